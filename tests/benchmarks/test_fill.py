"""What a benchmark fills topics with is alerts: each decodes, no two are alike, and the times keep their nights."""

from __future__ import annotations

import io
import time
from typing import Any

import fastavro
import numpy as np
import pytest
from confluent_kafka import Consumer, TopicPartition

from benchmarks.fill import FilledTopic, fill_topic
from benchmarks.noise import ID_COLUMN, alert_ids, make_pool
from tests.alerts.made_up import AlertKind, avro_schema
from tests.harness.topics import PATIENCE_S, client_config

KINDS = (
    AlertKind.ZTF_LIGHT,
    # Making up so many of these takes half a minute.
    *(pytest.param(kind, marks=pytest.mark.commands) for kind in (AlertKind.ZTF_FULL, AlertKind.LSST_FULL)),
)


def values_of(bootstrap: str, topic: FilledTopic) -> list[bytes]:
    """Read every value of a topic."""
    settings = client_config(bootstrap) | {"group.id": "none", "auto.offset.reset": "error"}
    reader = Consumer(settings)
    reader.assign([TopicPartition(topic.name, partition, 0) for partition in range(len(topic.ends))])
    found: list[bytes] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(found) < topic.alerts:
        assert time.monotonic() < deadline, f"only {len(found)} of {topic.alerts} alerts came"
        found += [message.value() for message in reader.consume(100, 0.2)]
    reader.close()
    return found


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value)
def test_filled_alerts_decode_and_are_all_different(kind: AlertKind, kafka: Any, topic_name: str) -> None:
    topic = fill_topic(kafka.bootstrap_servers, topic_name, kind, 700, 5000, partitions=3)
    values = values_of(kafka.bootstrap_servers, topic)
    assert (len(values), sum(map(len, values))) == (topic.alerts, topic.value_bytes)
    schema = fastavro.parse_schema(avro_schema(kind))
    ids = []
    for value in values:
        stream = io.BytesIO(value)
        alert = fastavro.schemaless_reader(stream, schema, None)
        assert not stream.read()
        ids.append(alert[ID_COLUMN[topic.survey]])
        for detection in {"candidate", "diaSource"} & alert.keys():
            assert alert[detection][ID_COLUMN[topic.survey]] == ids[-1]
    assert sorted(ids) == sorted(alert_ids(topic.survey, np.arange(5000, 5700)).tolist())
    # Without their ids, which differ by design: the noise does too.
    assert len({value[40:] for value in values}) == topic.alerts


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value)
def test_another_copy_of_the_pool_keeps_the_nights(kind: AlertKind) -> None:
    pool = make_pool(kind, 60)
    schema = fastavro.parse_schema(avro_schema(kind))
    nights = []
    for varied in (pool.base.tobytes(), pool.vary(np.arange(60), np.random.default_rng(1))):
        stream = io.BytesIO(varied)
        alerts: list[Any] = [fastavro.schemaless_reader(stream, schema, None) for _ in range(60)]
        if pool.survey == "ztf":
            nights.append([int(alert.get("candidate", alert)["jd"] + 0.5) for alert in alerts])
        else:
            # Midnight in UTC is 37 s into the day of TAI, so the day of TAI can't tell those around it.
            nights.append([round(alert["diaSource"]["midpointMjdTai"] - 0.31) for alert in alerts])
    assert nights[0] == nights[1]
    assert len(set(nights[0])) >= 3
