"""What tests do to topics beside producing, each call bounded in time and finished when it returns."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

#: What has not come by then does not come, however busy the machine is; a test has twice the time.
PATIENCE_S = 300.0
_BOUNDED = {"operation_timeout": PATIENCE_S, "request_timeout": PATIENCE_S}


def client_config(bootstrap: str) -> dict[str, Any]:
    """Return what every librdkafka client of the harness is made with: quick to reconnect, silent on stderr.

    `bootstrap`: ``host:port`` of a broker, or several with commas.
    Returns: librdkafka settings; the place for security settings when a listener has any.
    """
    return {
        "bootstrap.servers": bootstrap,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 500,
        # Who asks a broker that is fenced for a moment, as after a freeze, hears of no controller, and does not ask
        # again before this.
        "topic.metadata.refresh.interval.ms": 1000,
        "allow.auto.create.topics": False,
        # A broker that a test has killed would fill the report with refused connections, which are errors (3).
        "log_level": 2,
    }


def create_topic(
    bootstrap: str, name: str, partitions: int = 10, config: Mapping[str, str] | None = None, replicas: int = 1
) -> None:
    """Create a topic and return when each of its partitions has a leader."""
    admin = _admin(bootstrap)
    topic = NewTopic(name, num_partitions=partitions, replication_factor=replicas, config=dict(config or {}))
    admin.create_topics([topic], **_BOUNDED)[name].result()
    _wait_for(lambda: _leaders(admin, name) == partitions, f"{name} has no leader for each of {partitions} partitions")


def delete_topic(bootstrap: str, name: str, *, missing_ok: bool = False) -> None:
    """Delete a topic and return when the broker no longer lists it."""
    admin = _admin(bootstrap)
    try:
        admin.delete_topics([name], **_BOUNDED)[name].result()
    except KafkaException as error:
        if not (missing_ok and error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART):
            raise
    _wait_for(lambda: name not in _metadata(admin).topics, f"{name} is still listed")


def name_topic(kind: str = "ztf") -> str:
    """Make up the name of a topic for a kind of alerts, which nobody else has."""
    return f"ftransfer_{kind.partition('-')[0]}_2026-11-01_{uuid.uuid4().int % 10**12}"


def remove_topics(bootstrap: str, *names: str) -> None:
    """Delete topics and their schema topics, as far as they are there."""
    for name in names:
        for each in (name, f"{name}_schema"):
            delete_topic(bootstrap, each, missing_ok=True)


@contextmanager
def own_topic(bootstrap: str, kind: str = "ztf") -> Iterator[str]:
    """Yield the name of a topic that nobody has made; it and its schema topic are deleted at the end."""
    name = name_topic(kind)
    try:
        yield name
    finally:
        remove_topics(bootstrap, name)


def add_partitions(bootstrap: str, name: str, total: int) -> None:
    """Raise a topic's partitions to `total` and return when each has a leader."""
    admin = _admin(bootstrap)
    admin.create_partitions([NewPartitions(name, total)], **_BOUNDED)[name].result()
    _wait_for(lambda: _leaders(admin, name) == total, f"{name} has no leader for each of {total} partitions")


def delete_records_before(bootstrap: str, topic: str, partition: int, offset: int) -> int:
    """Remove the head of a partition, as retention does.

    Returns: the low watermark that the broker now has.
    """
    place = TopicPartition(topic, partition, offset)
    admin = _admin(bootstrap)  # in a variable: a client that is collected answers none of its futures
    futures = admin.delete_records([place], **_BOUNDED)
    low: int = futures[place].result().low_watermark
    return low


def partition_count(bootstrap: str, topic: str) -> int:
    """Return how many partitions a topic has; a topic that is not there is a `KafkaException`."""
    described = _metadata(_admin(bootstrap), topic).topics[topic]
    if described.error is not None:
        raise KafkaException(described.error)
    return len(described.partitions)


def topic_names(bootstrap: str) -> set[str]:
    """Return the names of all topics but Kafka's own (``__consumer_offsets`` and the like)."""
    return {name for name in _metadata(_admin(bootstrap)).topics if not name.startswith("__")}


def _admin(bootstrap: str) -> AdminClient:
    return AdminClient(client_config(bootstrap))


def _metadata(admin: AdminClient, topic: str | None = None) -> Any:
    return admin.list_topics(topic, timeout=PATIENCE_S)


def _leaders(admin: AdminClient, topic: str) -> int:
    """Count the partitions of a topic that have a leader: just after its creation, the broker may not know them."""
    described = _metadata(admin, topic).topics[topic]
    return sum(partition.leader >= 0 for partition in described.partitions.values())


def _wait_for(condition: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{otherwise} after {PATIENCE_S:.0f} s")
        time.sleep(0.02)
