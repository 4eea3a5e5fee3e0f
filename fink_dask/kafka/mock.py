"""An embedded Kafka for the demo: librdkafka's own mock cluster, real sockets on 127.0.0.1, nothing to install.

It serves what a transfer needs, and no more: topics appear with four partitions, about 5 MB a partition are kept, and
admin requests are not answered. https://github.com/confluentinc/librdkafka/blob/master/src/rdkafka_mock.h
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from fink_dask.errors import BrokerError
from fink_dask.kafka.client import KafkaException, Producer, broker_error

#: More than this in a partition, and the mock forgets the oldest records.
MOCK_PARTITION_BYTES = 5 * 2**20
MOCK_PARTITIONS = 4


class MockBroker:
    """A running mock cluster.

    Parameters
    ----------
    producer : Producer
        The client that hosts it.
    bootstrap_servers : str
        Where it listens.
    """

    def __init__(self, producer: Producer, bootstrap_servers: str) -> None:
        self._producer = producer
        self.bootstrap_servers = bootstrap_servers

    def publish(self, topic: str, records: Iterable[tuple[int, bytes, bytes]]) -> int:
        """Publish records given as partition, key and value; return how many were acknowledged.

        Raises
        ------
        BrokerError
            If one was not.
        """
        refused: list[object] = []

        def note(error: object, _: object) -> None:
            if error is not None:
                refused.append(error)

        count = 0
        for partition, key, value in records:
            while True:
                try:
                    self._producer.produce(topic, value, key, partition, on_delivery=note)
                    break
                except BufferError:  # the queue is full: let it drain
                    self._producer.poll(0.1)
            count += 1
        left = self._producer.flush(30)
        if left or refused:
            raise BrokerError(f"{left or len(refused)} of {count} records were not acknowledged", topic)
        return count


@contextmanager
def mock_broker() -> Iterator[MockBroker]:
    """Run a mock cluster in this process until the block ends.

    Raises
    ------
    BrokerError
        If it does not start.
    """
    # log_level 0: a mock that is announced, and connections that close at the end, are no news.
    producer = Producer(
        {"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "linger.ms": 5, "log_level": 0, "acks": "all"}
    )
    try:
        brokers = producer.list_topics(timeout=10).brokers.values()
    except KafkaException as exception:
        raise broker_error(exception.args[0]) from exception
    try:
        yield MockBroker(producer, ",".join(f"{broker.host}:{broker.port}" for broker in brokers))
    finally:
        producer.flush(5)
