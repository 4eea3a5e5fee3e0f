"""A made-up night in a topic of Fink's data transfer service: what `fink-dask demo` transfers."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from fink_dask.demo.alerts import AlertKind, avro_schema, encoded_alerts
from fink_dask.kafka.mock import MOCK_PARTITIONS, MockBroker
from fink_dask.kafka.topics import schema_topic

DEMO_TOPIC = "ftransfer_ztf_2026-02-24_123456"
#: Copies of the schema that Fink's server writes; one is read.
_SCHEMA_COPIES = 10


def publish_night(broker: MockBroker, topic: str, count: int, seed: int) -> int:
    """Fill a topic with a night of light ZTF alerts, in Fink's conventions.

    Parameters
    ----------
    broker : MockBroker
        Where to.
    topic : str
        The topic; ``<topic>_schema`` is filled as well.
    count : int
        Number of alerts.
    seed : int
        The same seed makes the same night.

    Returns
    -------
    int
        Alerts that were acknowledged.
    """
    schema = json.dumps(avro_schema(AlertKind.ZTF_LIGHT)).encode()
    broker.publish(schema_topic(topic), ((0, schema, topic.encode()) for _ in range(_SCHEMA_COPIES)))
    return broker.publish(topic, _records(topic, count, seed))


def _records(topic: str, count: int, seed: int) -> Iterator[tuple[int, bytes, bytes]]:
    chance = random.Random(seed)  # noqa: S311 - which partition an alert goes to is no secret
    for value in encoded_alerts(AlertKind.ZTF_LIGHT, count, seed=seed, nights=2):
        yield chance.randrange(MOCK_PARTITIONS), topic.encode(), value
