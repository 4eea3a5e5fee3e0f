"""An embedded Kafka for the demo: librdkafka's own mock cluster, real sockets on 127.0.0.1, nothing to install.

It serves what a transfer needs, and no more: topics appear with four partitions, about 5 MB a partition are kept, and
admin requests are not answered. https://github.com/confluentinc/librdkafka/blob/master/src/rdkafka_mock.h
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fink_dask.kafka.client import KafkaException, Producer, broker_error
from fink_dask.kafka.publish import PRODUCER_CONFIG, Publisher

MOCK_PARTITIONS = 4


@dataclass(frozen=True)
class MockBroker:
    """A running mock cluster.

    Parameters
    ----------
    publisher : Publisher
        Puts records into it.
    bootstrap_servers : str
        Where it listens.
    """

    publisher: Publisher
    bootstrap_servers: str


@contextmanager
def mock_broker() -> Iterator[MockBroker]:
    """Run a mock cluster in this process until the block ends.

    Raises
    ------
    BrokerError
        If it does not start.
    """
    # log_level 0: neither the mock's start nor connections that close at the end are news.
    producer = Producer(PRODUCER_CONFIG | {"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0})
    try:
        brokers = producer.list_topics(timeout=10).brokers.values()
    except KafkaException as exception:
        raise broker_error(exception.args[0]) from exception
    try:
        yield MockBroker(Publisher(producer), ",".join(f"{broker.host}:{broker.port}" for broker in brokers))
    finally:
        producer.flush(5)
