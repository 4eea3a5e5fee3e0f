"""The oracle's producer: it returns what Kafka has acknowledged, which is what a transfer must deliver."""

from __future__ import annotations

import hashlib
import random
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from tests.harness.topics import client_config, create_topic, partition_count

DELIVERY_TIMEOUT_S = 60.0
#: The longest that a broker lets a transaction be open, by its default ``transaction.max.timeout.ms``.
OPEN_TRANSACTION_TIMEOUT_S = 900


@dataclass(frozen=True, slots=True, order=True)
class Produced:
    """One acknowledged record: where Kafka put it, and which input it was."""

    #: partition, offset: where it is.
    partition: int
    offset: int
    #: Digest of its value in hexadecimal; None for a tombstone, which has no value.
    sha256: str | None
    #: Its place in the input, from 0.
    index: int


class NotAcknowledgedError(RuntimeError):
    """Say how many records the broker has not acknowledged, and why."""


@dataclass(frozen=True)
class OpenTransaction:
    """A transaction that holds back the last stable offset until it is finished."""

    #: Keep it: the broker aborts the transaction of a producer that is fenced, or after 15 minutes.
    producer: Producer
    #: What was written and acknowledged in it.
    records: list[Produced]
    #: bootstrap, topic: where it was written to.
    bootstrap: str
    topic: str

    def commit(self) -> list[Produced]:
        """Commit, and return the records, which readers now see."""
        self.producer.commit_transaction(DELIVERY_TIMEOUT_S)
        return self._settled()

    def abort(self) -> list[Produced]:
        """Abort, and return the records, whose offsets are now holes to a read_committed reader."""
        self.producer.abort_transaction(DELIVERY_TIMEOUT_S)
        return self._settled()

    def _settled(self) -> list[Produced]:
        """Wait for the transaction markers: the broker answers before they are written, and a plan would miss them."""
        ends: dict[int, int] = {}
        for record in self.records:
            ends[record.partition] = max(ends.get(record.partition, 0), record.offset + 1)
        reader = Consumer(client_config(self.bootstrap) | {"group.id": "none", "isolation.level": "read_committed"})
        deadline = time.monotonic() + DELIVERY_TIMEOUT_S
        try:
            for partition, end in ends.items():
                where = TopicPartition(self.topic, partition)
                while reader.get_watermark_offsets(where, timeout=DELIVERY_TIMEOUT_S)[1] <= end:
                    if time.monotonic() > deadline:
                        raise NotAcknowledgedError(f"the end of the transaction is not written to {where}")
                    time.sleep(0.01)
        finally:
            reader.close()
        return self.records


def produce(
    bootstrap: str,
    topic: str,
    values: Iterable[bytes | None],
    *,
    partitions: int | None = None,
    keys: Iterable[bytes | None] | None = None,
    seed: int = 0,
    at_ms: int = 0,
    options: Mapping[str, Any] | None = None,
) -> list[Produced]:
    """Write values to partitions chosen at random, as Fink does, and return when each is acknowledged.

    `values`: what; consumed as it is sent, and not kept.
    `partitions`: only the first so many partitions get records; by default all that the topic has.
    `keys`: A key for each value; by default none.
    `at_ms`: kafka's timestamp of each, in milliseconds since 1970-01-01 UTC; 0 for now.
    `options`: librdkafka settings that win over the harness's.
    Returns: one for each value, in the order of the input.
    Raises NotAcknowledgedError: at least one record was not acknowledged.
    """
    producer = Producer(_config(bootstrap) | dict(options or {}))
    return _send(producer, topic, values, partitions or partition_count(bootstrap, topic), keys, seed, at_ms)


def open_transaction(
    bootstrap: str,
    topic: str,
    values: Iterable[bytes | None],
    *,
    partitions: int | None = None,
    seed: int = 0,
) -> OpenTransaction:
    """Write values in a transaction of their own and leave it open; the parameters are those of `produce`."""
    settings = {
        "transactional.id": f"fink-dask-test-{uuid.uuid4()}",
        "transaction.timeout.ms": OPEN_TRANSACTION_TIMEOUT_S * 1000,
    }
    producer = Producer(_config(bootstrap) | settings)
    producer.init_transactions(DELIVERY_TIMEOUT_S)
    producer.begin_transaction()
    records = _send(producer, topic, values, partitions or partition_count(bootstrap, topic), None, seed)
    return OpenTransaction(producer, records, bootstrap, topic)


def produce_transaction(
    bootstrap: str,
    topic: str,
    values: Iterable[bytes | None],
    *,
    commit: bool = True,
    partitions: int | None = None,
    seed: int = 0,
) -> list[Produced]:
    """Write values in one transaction, and commit or abort it; the parameters are those of `produce`.

    Returns: where the records are; of an aborted transaction, where they were never to be read.
    """
    transaction = open_transaction(bootstrap, topic, values, partitions=partitions, seed=seed)
    return transaction.commit() if commit else transaction.abort()


def publish_schema(bootstrap: str, topic: str, schema_json: str, copies: int = 10) -> str:
    """Create the topic's schema topic as Fink fills it: the Avro schema is the *key* of identical messages."""
    name = f"{topic}_schema"
    create_topic(bootstrap, name, partitions=1)
    produce(bootstrap, name, repeat(b"0", copies), partitions=1, keys=repeat(schema_json.encode(), copies))
    return name


def _config(bootstrap: str) -> dict[str, Any]:
    return client_config(bootstrap) | {
        "acks": "all",
        "enable.idempotence": True,
        "compression.type": "none",
        "linger.ms": 5,
        "batch.size": 1_000_000,
        "message.max.bytes": 20_000_000,
        "queue.buffering.max.messages": 100_000,
        "queue.buffering.max.kbytes": 128 * 1024,
        "message.timeout.ms": int(DELIVERY_TIMEOUT_S * 1000),
    }


def _send(
    producer: Producer,
    topic: str,
    values: Iterable[bytes | None],
    partitions: int,
    keys: Iterable[bytes | None] | None,
    seed: int,
    at_ms: int = 0,
) -> list[Produced]:
    choice = random.Random(seed)
    records: list[Produced] = []
    failures: list[str] = []
    sent = 0

    def acknowledge(index: int, digest: str | None, error: KafkaError | None, message: Message) -> None:
        if error is None:
            records.append(Produced(message.partition(), message.offset(), digest, index))
        else:
            failures.append(f"record {index}: {error.str()}")

    pairs = ((value, None) for value in values) if keys is None else zip(values, keys, strict=True)
    for index, (value, key) in enumerate(pairs):
        digest = None if value is None else hashlib.sha256(value).hexdigest()
        called = partial(acknowledge, index, digest)
        _enqueue(producer, topic, value, key, choice.randrange(partitions), called, at_ms)
        sent += 1
    producer.flush(DELIVERY_TIMEOUT_S + 10)
    if len(records) != sent:
        why = failures[0] if failures else "no answer"
        raise NotAcknowledgedError(f"{topic}: {sent - len(records)} of {sent} records were not acknowledged: {why}")
    return sorted(records, key=lambda record: record.index)


def _enqueue(
    producer: Producer, topic: str, value: bytes | None, key: bytes | None, partition: int, called: Any, at_ms: int
) -> None:
    """Hand one record to librdkafka, waiting while its queue is full."""
    deadline = time.monotonic() + DELIVERY_TIMEOUT_S + 10
    while True:
        try:
            producer.produce(topic, value, key, partition, on_delivery=called, timestamp=at_ms)
        except BufferError:
            if time.monotonic() > deadline:
                raise NotAcknowledgedError(f"{topic}[{partition}]: the queue stayed full") from None
            producer.poll(0.1)
        except KafkaException as error:
            raise NotAcknowledgedError(f"{topic}[{partition}]: {error.args[0].str()}") from error
        else:
            producer.poll(0)
            return
