"""What a topic is and holds, asked of the broker without creating, joining or committing anything."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from fink_dask.config import KafkaSettings
from fink_dask.errors import BrokerError, SchemaError
from fink_dask.kafka.client import (
    AdminClient,
    Consumer,
    Errors,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
    ask,
    broker_error,
    is_passing,
    one_line,
    open_consumer,
)
from fink_dask.kafka.offsets import Watermarks
from fink_dask.kafka.topics import schema_topic

#: Stands for a topic's id where the broker can't say it, as librdkafka's mock and brokers before 2.8.
UNKNOWN_ID = "unknown"

#: Where a writer schema came from.
SchemaSource = Literal["file", "schema topic", "record key"]


@dataclass(frozen=True)
class TopicDescription:
    """A topic as the broker describes it.

    Parameters
    ----------
    topic : str
        Its name.
    topic_id : str
        Kafka's id, another one when the topic is deleted and made again; `UNKNOWN_ID` where the broker can't say.
    watermarks : mapping of int to Watermarks
        What each partition holds.
    """

    topic: str
    topic_id: str
    watermarks: Mapping[int, Watermarks]


@dataclass(frozen=True)
class TopicSchema:
    """A writer schema and where it came from.

    Parameters
    ----------
    text : bytes
        The schema as JSON, not yet checked.
    source : {"file", "schema topic", "record key"}
        Where it was found.
    """

    text: bytes
    source: SchemaSource


class Inspector:
    """Asks a broker about topics, through one consumer.

    Parameters
    ----------
    settings : KafkaSettings
        How to reach Kafka.
    consumer, errors
        The consumer to ask through.
    """

    def __init__(self, settings: KafkaSettings, consumer: Consumer, errors: Errors) -> None:
        self._settings = settings
        self._consumer = consumer
        self._errors = errors

    def describe(self, topic: str) -> TopicDescription:
        """Describe a topic.

        Raises
        ------
        BrokerError
            If there is no such topic, or the broker refuses or does not answer.
        """
        partitions = self._partitions(topic)
        if not partitions:
            raise BrokerError("no such topic on this Kafka (nothing was created); check the name", topic)
        watermarks = {partition: self.watermarks(topic, partition) for partition in partitions}
        return TopicDescription(topic, self._topic_id(topic), watermarks)

    def watermarks(self, topic: str, partition: int) -> Watermarks:
        """Ask for the first offset and the last stable offset of a partition, now."""
        where = TopicPartition(topic, partition)
        low, stable = ask(
            lambda timeout: _answered(self._consumer.get_watermark_offsets(where, timeout=timeout, cached=False)),
            self._consumer,
            self._errors,
            self._settings,
            topic,
        )
        return Watermarks(low, stable)

    def schema(self, topic: str, description: TopicDescription) -> TopicSchema:
        """Read the writer schema from ``<topic>_schema``, or else from the key of the topic's own first record.

        Raises
        ------
        SchemaError
            If neither holds one, or ``<topic>_schema`` holds two that differ.
        """
        name = schema_topic(topic)
        # The copies should be identical; the first and the last one of each partition tell whether they are.
        keys: set[bytes] = set()
        for partition in self._partitions(name):
            marks = self.watermarks(name, partition)
            for offset in {marks.low, marks.stable - 1}:
                if marks.low <= offset < marks.stable:
                    key = self._key_at(name, partition, offset)
                    if key is not None:
                        keys.add(key)
        if len(keys) > 1:
            raise SchemaError(f"{name} holds schemas that differ; choose one with --schema FILE", topic)
        if keys:
            return TopicSchema(keys.pop(), "schema topic")
        for partition, marks in description.watermarks.items():
            if marks.low < marks.stable:
                key = self._key_at(topic, partition, marks.low)
                if key is not None and key.lstrip()[:1] == b"{":
                    return TopicSchema(key, "record key")
        raise SchemaError(
            f"no schema: {name} is absent or empty, and the records' keys hold none; give one with --schema FILE", topic
        )

    def sample_sizes(self, topic: str, spans: Mapping[int, tuple[int, int]], count: int = 5) -> dict[int, float]:
        """Estimate the mean size of a value in each partition, in bytes, from `count` records in the middle.

        Partitions that yield nothing in time (holes, a slow broker) are absent from the result.
        """
        wanted = dict.fromkeys(spans, count)
        sizes: dict[int, list[int]] = {partition: [] for partition in spans}
        self._consumer.assign([TopicPartition(topic, p, (start + end) // 2) for p, (start, end) in spans.items()])
        deadline = time.monotonic() + self._settings.request_timeout_s / 2
        while wanted and time.monotonic() < deadline:
            for message in self._consumer.consume(num_messages=100, timeout=0.05):
                partition = message.partition()
                if message.error() is not None:
                    wanted.pop(partition, None)
                elif len(sizes[partition]) < count:
                    sizes[partition].append(len(message.value() or b""))
                    if len(sizes[partition]) == count:
                        wanted.pop(partition, None)
        self._consumer.unassign()
        return {partition: sum(found) / len(found) for partition, found in sizes.items() if found}

    def _partitions(self, topic: str) -> list[int]:
        # All topics are listed, because asking for one by name lets some brokers create it.
        metadata = ask(
            lambda timeout: self._consumer.list_topics(timeout=timeout),
            self._consumer,
            self._errors,
            self._settings,
            topic,
        )
        self._has_controller = metadata.controller_id in metadata.brokers
        found = metadata.topics.get(topic)
        return sorted(found.partitions) if found is not None and found.error is None else []

    def _topic_id(self, topic: str) -> str:
        if not self._has_controller:
            return UNKNOWN_ID  # librdkafka's mock has none, and would let the question time out
        admin = AdminClient({"bootstrap.servers": self._settings.bootstrap_servers})
        # The question is answered through a future, so a signal is seen at once.
        future = admin.describe_topics(TopicCollection([topic]), request_timeout=self._settings.request_timeout_s)
        try:
            found = future[topic].result()
        except KafkaException as exception:
            if is_passing(exception.args[0]):
                raise broker_error(exception.args[0], topic) from exception
            return UNKNOWN_ID
        return str(found.topic_id) if found.topic_id is not None else UNKNOWN_ID

    def _key_at(self, topic: str, partition: int, offset: int) -> bytes | None:
        """Read the key of the first record at or after `offset`, or None at the partition's end."""
        self._consumer.assign([TopicPartition(topic, partition, offset)])
        deadline = time.monotonic() + self._settings.request_timeout_s
        try:
            while time.monotonic() < deadline:
                message = self._consumer.poll(0.2)
                if message is None:
                    continue
                if message.error() is None:
                    key: bytes | None = message.key()
                    return key
                if not is_passing(message.error()):
                    return None  # the partition's end, or the record is gone
        finally:
            self._consumer.unassign()
        reason = self._errors.last.str() if self._errors.last is not None else "no record came"
        raise BrokerError(f"can't read the schema: {one_line(reason)}", topic, partition, offset)


@contextmanager
def open_inspector(settings: KafkaSettings) -> Iterator[Inspector]:
    """Open an `Inspector`, and close its consumer at the end."""
    # Questions need single records: small fetches keep them quick (a record larger than this still comes).
    with open_consumer(settings, fetch_message_max_bytes=64 * 1024) as (consumer, errors):
        yield Inspector(settings, consumer, errors)


def _answered(watermarks: tuple[int, int] | None) -> tuple[int, int]:
    if watermarks is None:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
    return watermarks
