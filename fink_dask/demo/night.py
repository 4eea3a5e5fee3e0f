"""A made-up night in a topic of Fink's data transfer service: what `fink-dask demo` transfers."""

from __future__ import annotations

from collections.abc import Callable

from fink_dask.demo.alerts import AlertKind, play_alerts, recorded_schema
from fink_dask.demo.fill import Destination, fill_topic
from fink_dask.kafka.publish import MOCK_PARTITIONS, MockBroker

DEMO_TOPIC = "ftransfer_ztf_2026-02-24_123456"


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
