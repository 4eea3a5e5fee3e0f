"""Fill a topic as Fink's data transfer service does; the demo's with a made-up night."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from fink_dask.avro.schema import AvroSchema, parse_schema
from fink_dask.demo.alerts import AlertKind, play_alerts, recorded_schema
from fink_dask.errors import MissingSchemaError, SettingsError, parameter
from fink_dask.kafka.inspect import Inspector, open_inspector
from fink_dask.kafka.publish import MOCK_PARTITIONS, MockBroker, Publisher, create_topics
from fink_dask.kafka.topics import MAX_LETTERS, SCHEMA_SUFFIX, check_topic_name, schema_topic
from fink_dask.settings import KafkaSettings

#: What `fink-dask demo` transfers.
DEMO_TOPIC = "ftransfer_ztf_2026-02-24_123456"
#: How many copies of the schema are written; Fink writes a thousand, of which one is read.
_SCHEMA_COPIES = 10


@dataclass(frozen=True)
class Destination:
    """A topic to put alerts into."""

    topic: str
    #: How many it has.
    partitions: int
    #: How many offsets it has used so far, so that new alerts get other numbers.
    offsets: int = 0
    #: Whether its schema topic already holds the alerts' schema.
    has_schema: bool = False


def prepare_topic(
    settings: KafkaSettings, topic: str, schema: AvroSchema, partitions: int, append: bool
) -> Destination:
    """Create a topic and its schema topic, or find out whether alerts of a schema can be added to an existing one.

    `partitions`: number of partitions of a new topic.
    Raises SettingsError if the topic exists but must not, or can't take the alerts.
    """
    check_topic_name(topic)
    if topic.endswith(SCHEMA_SUFFIX):
        raise SettingsError(f"{topic} would be the schema topic of another topic: leave out {SCHEMA_SUFFIX}")
    if len(schema_topic(topic)) > MAX_LETTERS:
        most = MAX_LETTERS - len(SCHEMA_SUFFIX)
        raise SettingsError(
            f"{parameter('topic')} {topic[:80]}… has more than {most} letters: its schema topic could not be made"
        )
    with open_inspector(settings) as inspector:
        listed = inspector.topics()
        if topic in listed and not append:
            raise SettingsError(
                f"{topic} already exists: choose another {parameter('topic')}, or add to it with --append"
            )
        if topic in listed:
            return _existing(settings, inspector, topic, schema)
        if schema_topic(topic) in listed:
            raise SettingsError(
                f"{schema_topic(topic)} exists, but {topic} does not: choose another {parameter('topic')}"
            )
        create_topics(settings, inspector, {topic: partitions, schema_topic(topic): 1})
    return Destination(topic, partitions)


def fill_topic(
    publisher: Publisher,
    where: Destination,
    schema: str,
    values: Iterable[bytes],
    seed: int,
    delivered: Callable[[int], None] = lambda _: None,
    stopped: Callable[[], bool] = lambda: False,
) -> int:
    """Put alerts into random partitions, with the topic's name as key; the schema topic is filled first.

    `schema`: the Avro schema, which becomes the key of the schema topic's records.
    `seed`: random seed for the choice of partitions.
    `delivered`: called with 1 for each alert that the broker has confirmed.
    Returns: alerts that were confirmed: all of them unless it was stopped.
    Raises BrokerError if one was not confirmed.
    """
    key = where.topic.encode()
    if not where.has_schema:
        copies = ((0, schema.encode(), key) for _ in range(_SCHEMA_COPIES))
        publisher.publish(schema_topic(where.topic), copies, stopped=stopped)
    return publisher.publish(where.topic, _scattered(values, key, where.partitions, seed), delivered, stopped)


def _existing(settings: KafkaSettings, inspector: Inspector, topic: str, schema: AvroSchema) -> Destination:
    description = inspector.describe(topic)
    partitions = len(description.watermarks)
    offsets = sum(marks.last_stable_offset for marks in description.watermarks.values())
    try:
        known = inspector.schema(topic, description)
    except MissingSchemaError as error:
        if offsets:
            raise SettingsError(
                f"{topic} holds records whose schema is unknown: choose another {parameter('topic')}"
            ) from error
        if schema_topic(topic) not in inspector.topics():
            create_topics(settings, inspector, {schema_topic(topic): 1})
        return Destination(topic, partitions)
    if known.source == "record key":
        raise SettingsError(f"{topic} has its schemas in the keys of its records: choose another {parameter('topic')}")
    if parse_schema(known.text) != schema:
        raise SettingsError(f"{topic} holds alerts with a different schema: choose another {parameter('topic')}")
    return Destination(topic, partitions, offsets, has_schema=True)


def _scattered(values: Iterable[bytes], key: bytes, partitions: int, seed: int) -> Iterator[tuple[int, bytes, bytes]]:
    chance = random.Random(seed)  # noqa: S311 - which partition an alert goes to is no secret
    for value in values:
        yield chance.randrange(partitions), key, value


def publish_night(
    broker: MockBroker, topic: str, count: int, seed: int, stopped: Callable[[], bool] = lambda: False
) -> int:
    """Fill a topic with a night of light ZTF alerts, in Fink's conventions.

    `topic`: the topic; ``<topic>_schema`` is filled as well.
    `seed`: the same seed makes the same night.
    """
    alerts = play_alerts(AlertKind.ZTF_LIGHT, count, seed=seed)
    where = Destination(topic, MOCK_PARTITIONS)
    return fill_topic(broker.publisher, where, recorded_schema(AlertKind.ZTF_LIGHT), alerts, seed, stopped=stopped)
