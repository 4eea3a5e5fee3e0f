"""Fill topics with made-up alerts as Fink's data transfer does: ten partitions chosen at random, no key, no codec."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from benchmarks.errors import BenchmarkError
from benchmarks.noise import make_pool
from tests.alerts.made_up import AlertKind, avro_schema
from tests.harness.producer import publish_schema
from tests.harness.topics import client_config, create_topic

PARTITIONS = 10
#: `batch.size` of Kafka's own producer, which Spark and so Fink's server use as it is.
SERVER_BATCH_BYTES = 16_384
#: Filled in a tenth of the time.
_BATCH_BYTES = 1_000_000
_FLUSH_TIMEOUT_S = 120.0
_ASK_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class FilledTopic:
    """A topic that holds made-up alerts, and only those."""

    name: str
    survey: str
    kind: str
    #: How many alerts it holds.
    alerts: int
    #: Number of its first alert; the ids follow from the numbers.
    first_number: int
    #: What all alerts take, without what Kafka adds.
    value_bytes: int
    #: The high watermark of each partition; the low ones are 0.
    ends: tuple[int, ...]


def fill_topic(
    bootstrap: str,
    name: str,
    kind: AlertKind,
    alerts: int,
    first_number: int,
    *,
    partitions: int = PARTITIONS,
    batch_bytes: int = _BATCH_BYTES,
) -> FilledTopic:
    """Make a topic and its schema topic, and fill it with alerts of which no two are alike.

    `name`: the topic, which must not be there.
    `first_number`: number of the first alert; the same numbers give the same alerts.
    `batch_bytes`: the most bytes of a batch of records, which Kafka stores and sends whole.
    Raises BenchmarkError: kafka has not taken all of them.
    """
    create_topic(bootstrap, name, partitions)
    publish_schema(bootstrap, name, json.dumps(avro_schema(kind)))
    failures: list[str] = []

    def note(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(error.str())

    producer = Producer(producer_config(bootstrap) | {"batch.size": batch_bytes, "on_delivery": note})
    pool = make_pool(kind, alerts)
    rng = np.random.Generator(np.random.SFC64([first_number, alerts]))
    starts, ends = [0, *pool.ends[:-1].tolist()], pool.ends.tolist()
    value_bytes = 0
    for first in range(0, alerts, len(pool)):
        count = min(len(pool), alerts - first)
        varied = pool.vary(np.arange(first, first + len(pool)) + first_number, rng)
        chosen = rng.integers(0, partitions, count).tolist()
        for index in range(count):
            value = varied[starts[index] : ends[index]]
            while True:
                try:
                    producer.produce(name, value, partition=chosen[index])
                    break
                except BufferError:
                    producer.poll(0.05)
        value_bytes += ends[count - 1]
        producer.poll(0)
    left = producer.flush(_FLUSH_TIMEOUT_S)
    found = _ends(bootstrap, name, partitions)
    if left or failures or sum(found) != alerts:
        why = failures[0] if failures else "no answer in time"
        raise BenchmarkError(f"{name} holds {sum(found):,} alerts, not {alerts:,}: {why}")
    return FilledTopic(name, kind.value.partition("-")[0], kind.value, alerts, first_number, value_bytes, found)


def producer_config(bootstrap: str) -> dict[str, Any]:
    """Return what producers of benchmarks are made with."""
    return client_config(bootstrap) | {
        "acks": "all",
        "enable.idempotence": True,  # a retry would put an alert into the topic twice
        "linger.ms": 20,
        "message.max.bytes": 20_000_000,
        "queue.buffering.max.messages": 200_000,
        "queue.buffering.max.kbytes": 256 * 1024,
        "message.timeout.ms": int(_FLUSH_TIMEOUT_S * 1000),
        "delivery.report.only.error": True,  # millions of good reports would take as long as the filling
    }


def _ends(bootstrap: str, name: str, partitions: int) -> tuple[int, ...]:
    reader = Consumer(client_config(bootstrap) | {"group.id": "none"})
    try:
        asked = (TopicPartition(name, partition) for partition in range(partitions))
        return tuple(reader.get_watermark_offsets(place, timeout=_ASK_TIMEOUT_S)[1] for place in asked)
    finally:
        reader.close()
