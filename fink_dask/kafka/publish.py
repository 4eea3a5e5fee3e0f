"""Put records into topics, each confirmed by the broker; create the topics for them; and the demo's embedded Kafka.

That is librdkafka's own mock cluster: real sockets on 127.0.0.1, and nothing to install. It serves what a transfer
needs, and no more: topics appear with four partitions, about 5 MB a partition are kept, and admin requests are not
answered. https://github.com/confluentinc/librdkafka/blob/master/src/rdkafka_mock.h
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from fink_dask.errors import BrokerError, BrokerUnavailableError
from fink_dask.kafka.admin import Admin
from fink_dask.kafka.confluent import (
    Errors,
    KafkaError,
    KafkaException,
    NewTopic,
    Producer,
    broker_error,
    client_config,
    in_words,
)
from fink_dask.kafka.inspect import Inspector
from fink_dask.settings import KafkaSettings
from fink_dask.units import pluralize

Item = TypeVar("Item")

#: The properties of every producer. An alert of Rubin has up to 300 kB; what waits to be sent takes 32 MiB at most.
PRODUCER_CONFIG: dict[str, Any] = {
    "acks": "all",
    # Otherwise a record whose acknowledgement was lost on the way would be in the topic twice.
    "enable.idempotence": True,
    "linger.ms": 5,
    "batch.size": 2**20,
    "message.max.bytes": 20_000_000,
    "queue.buffering.max.kbytes": 32 * 1024,
    "message.timeout.ms": 60_000,
}
#: Seconds between two looks at whether to stop; and then for what waits, and for what is on its way.
_LOOK_S, _DRAIN_S, _STOP_S = 0.2, 2.0, 5.0
#: Seconds before the broker is asked again whether a new topic is there.
_PAUSE_S = 0.1

MOCK_PARTITIONS = 4


class Publisher:
    """Puts records into topics through one producer."""

    def __init__(self, producer: Producer) -> None:
        # The producer, made with `PRODUCER_CONFIG`.
        self._producer = producer

    def publish(
        self,
        topic: str,
        records: Iterable[tuple[int, bytes, bytes]],
        delivered: Callable[[int], None] = lambda _: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> int:
        """Publish records, and return when the broker has confirmed each of them.

        What is stopped, or fails, takes no more records, and waits for those that it took: what `delivered` was told is
        what the topic then holds, unless the broker takes more than 5 s for the rest. Where it keeps up, these are the
        first of `records`.

        `records`: partition, key and value of each; taken as they can be sent.
        `delivered`: called with 1 for each record that the broker has confirmed.
        Returns: how many were confirmed: all, unless it was stopped.
        Raises BrokerError if one was not confirmed.
        """
        refused: list[KafkaError] = []
        confirmed = 0

        def note(error: KafkaError | None, _: object) -> None:
            nonlocal confirmed
            if error is None:
                confirmed += 1
                delivered(1)
            else:
                refused.append(error)

        sent = 0
        try:
            for partition, key, value in records:
                if refused or stopped():
                    break
                self._send(topic, partition, key, value, note, stopped)
                sent += 1
            while not (refused or stopped()) and self._producer.flush(_LOOK_S):
                pass
        finally:
            if not refused:
                # Else what waits for one partition would be missing before what is in another one already.
                self._producer.flush(_DRAIN_S)
            self._settle()
        # What still waited when it was stopped was dropped, not refused.
        if refused and not stopped():
            reason = in_words(refused[0])
            raise BrokerError(f"{sent - confirmed:,} of {pluralize(sent, 'record')} not acknowledged: {reason}", topic)
        return confirmed

    def _send(
        self,
        topic: str,
        partition: int,
        key: bytes,
        value: bytes,
        note: Callable[..., None],
        stopped: Callable[[], bool],
    ) -> None:
        while not stopped():
            try:
                self._producer.produce(topic, value, key, partition, on_delivery=note)
            except BufferError:  # the queue is full: let it drain
                self._producer.poll(_LOOK_S)
            except KafkaException as exception:
                raise broker_error(exception.args[0], topic, partition) from exception
            else:
                self._producer.poll(0)
                return

    def _settle(self) -> None:
        """Drop what still waits, and wait for what is on its way."""
        if len(self._producer):
            self._producer.purge(in_queue=True, in_flight=False, blocking=True)
            self._producer.flush(_STOP_S)


@contextmanager
def open_publisher(settings: KafkaSettings) -> Iterator[Publisher]:
    """Make a `Publisher`; the broker confirms a record when all its replicas have it, and none is there twice.

    Raises BrokerError if librdkafka refuses a property.
    """
    try:
        producer = Producer(client_config(settings, Errors()) | PRODUCER_CONFIG)
    except KafkaException as exception:
        raise broker_error(exception.args[0]) from exception
    yield Publisher(producer)


def create_topics(settings: KafkaSettings, inspector: Inspector, partitions: Mapping[str, int]) -> None:
    """Create topics, and return when each partition has a leader; the broker decides how many replicas there are.

    Raises BrokerError if one exists, or the broker refuses or does not answer.
    """
    timeout_s = settings.request_timeout_s
    admin = Admin(settings)

    def create(client: Any, topic: str) -> Any:
        new = NewTopic(topic, num_partitions=partitions[topic], replication_factor=-1)
        return client.create_topics([new], operation_timeout=timeout_s, request_timeout=timeout_s)[topic]

    for topic in partitions:
        admin.ask(partial(create, topic=topic), topic)
    deadline = time.monotonic() + timeout_s
    while True:
        listed = inspector.topics()
        missing = [topic for topic, count in partitions.items() if listed.get(topic) != list(range(count))]
        if not missing:
            return
        if time.monotonic() > deadline:
            raise BrokerUnavailableError(f"the new topic has no leaders after {timeout_s:g} s", missing[0])
        time.sleep(_PAUSE_S)


def paced(items: Iterable[Item], per_second: float, wait: Callable[[float], object]) -> Iterator[Item]:
    """Yield items no faster than so many a second, counted from the first one; `wait` takes the seconds to wait."""
    began = time.monotonic()
    for number, item in enumerate(items):
        wait(min(max(0.0, began + number / per_second - time.monotonic()), threading.TIMEOUT_MAX))
        yield item


@dataclass(frozen=True)
class MockBroker:
    """A running mock cluster."""

    #: Puts records into it.
    publisher: Publisher
    bootstrap_servers: str


@contextmanager
def mock_broker() -> Iterator[MockBroker]:
    """Run a mock cluster in this process until the block ends.

    Raises BrokerError if it does not start.
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
