"""What is said of the line is what a transfer will find: neither a guess, nor eight times too much."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Any

import pytest

from fink_dask.kafka.inspect import Sample, open_inspector
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.kafka.probe import UNKNOWN_LINE, LineSpeed, line_of, measure_line
from fink_dask.settings import KafkaSettings
from tests.alerts.made_up import AlertKind
from tests.harness.kafka_settings import free_ports
from tests.harness.link import FarKafka, Line, far_kafka
from tests.harness.oracle import fill_topic
from tests.harness.producer import produce
from tests.harness.topics import create_topic

COUNT = 12_000


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarKafka]:
    with far_kafka(tmp_path_factory.mktemp("far"), Line()) as far:
        fill_topic(far.near.bootstrap_servers, "topic", AlertKind.ZTF_LIGHT, COUNT, partitions=1)
        yield far


def measured(servers: str, topic: str, end: int, limit_rate: int | None = None) -> LineSpeed:
    with open_inspector(KafkaSettings(servers, limit_rate=limit_rate)) as inspector:
        return measure_line(inspector.admin, topic, OffsetRange(0, 0, end))


@pytest.mark.links
@pytest.mark.parametrize(("mbit", "round_trip_s"), [(8, 0.04), (50, 0.1)])
def test_the_line_is_measured_within_bounds(far: FarKafka, mbit: float, round_trip_s: float) -> None:
    far.link.set(Line(mbit, round_trip_s))
    before = far.link.moved
    found = measured(far.bootstrap_servers, "topic", COUNT)
    assert found.round_trip_s is not None
    assert found.bytes_per_s is not None
    # A busy machine makes a line longer and slower, and never shorter or faster.
    assert found.round_trip_s >= round_trip_s
    assert found.bytes_per_s < 1.5 * mbit * 1e6 / 8
    assert found.bytes_per_s > 0.15 * mbit * 1e6 / 8
    assert far.link.moved.since(before).fetched < 14_000_000


@pytest.mark.links
def test_a_line_that_others_share_is_measured_with_little(far: FarKafka) -> None:
    far.link.set(Line())
    before = far.link.moved
    assert measured(far.bootstrap_servers, "topic", COUNT, limit_rate=10_000).round_trip_s is not None
    assert far.link.moved.since(before).fetched < 3_000_000


def test_what_is_compressed_is_counted_as_it_comes(kafka: Any, topic_name: str) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, partitions=1, config={"compression.type": "gzip"})
    source = random.Random(1)
    values = [source.randbytes(250).hex().encode() * 4 for _ in range(6000)]
    produce(kafka.bootstrap_servers, topic_name, values, partitions=1)
    found = measured(kafka.bootstrap_servers, topic_name, len(values))
    assert found.expansion > 2


def test_a_topic_with_too_little_to_read_tells_the_round_trip(kafka: Any, topic_name: str) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, partitions=1)
    produce(kafka.bootstrap_servers, topic_name, [b"alert"], partitions=1)
    found = measured(kafka.bootstrap_servers, topic_name, 1)
    assert found.round_trip_s is not None
    assert found.bytes_per_s is None


def test_who_does_not_answer_is_not_known() -> None:
    settings = KafkaSettings(f"127.0.0.1:{free_ports(1)[0]}", request_timeout_s=1)
    with open_inspector(settings) as inspector:
        assert measure_line(inspector.admin) == UNKNOWN_LINE


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (LineSpeed(0.042, 1_012_500), r"\b42 ms.* 8\.1 Mbit/s"),
        (LineSpeed(0.0004, 125e6, is_least=True), r"\b0\.4 ms.* fast"),
        (LineSpeed(0.0004, 1e6, is_least=True), r"\b0\.4 ms.* least 8 Mbit/s"),
        (LineSpeed(0.0004, slower_than=131_072), r"\b0\.4 ms.* slower .*\b1\.05 Mbit/s"),
        (LineSpeed(1.2), r"\b1200 ms$"),
        (UNKNOWN_LINE, "not known"),
    ],
)
def test_it_is_said_in_a_few_words(line: LineSpeed, words: str) -> None:
    assert re.search(words, line.words)


def test_a_look_at_a_few_records_tells_the_rate_only_where_it_took_long() -> None:
    assert line_of(Sample({0: 1000.0}, {0: 1020.0}, 0.3, 3_000_000)) == UNKNOWN_LINE
    assert line_of(Sample({}, {}, 15.0, 0)) == UNKNOWN_LINE
    assert line_of(Sample({0: 1000.0}, {0: 1020.0}, 4.0, 1_000_000)) == LineSpeed(None, 250_000, is_least=True)
