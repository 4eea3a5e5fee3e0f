"""Row 24: the line is slow, far, and shared by all consumers."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fink_dask.kafka.connection import open_connection
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.kafka.reader import RangeReader
from fink_dask.settings import KafkaSettings
from tests.alerts.made_up import AlertKind
from tests.harness.cli import environment, run_cli
from tests.harness.filled import Filled, carry
from tests.harness.link import FarKafka, Line
from tests.harness.oracle import fill_topic
from tests.harness.producer import produce, produce_transaction
from tests.harness.topics import create_topic, name_topic

pytestmark = pytest.mark.links
Topics = Callable[[int], Filled]


@pytest.mark.sample
def test_24_a_line_of_a_home_carries_a_topic_about_once(far: FarKafka, far_topic: Topics, tmp_path: Path) -> None:
    topic, line = far_topic(15_000), Line(mbit=8, round_trip_s=0.02)
    topic.assert_moved_about_once(carry(far, topic, tmp_path / "alerts", line, "-nconsumers", "4"))


@pytest.mark.parametrize(
    ("mbit", "round_trip_s", "consumers", "alerts"),
    [
        (2, 0.06, 1, 4_000),
        (2, 0.06, 32, 4_000),
        (4, 1.0, 8, 4_000),
        (8, 0.02, 1, 15_000),
        (8, 0.02, 32, 15_000),
        (20, 0.001, 2, 40_000),
        (20, 0.04, 8, 40_000),
        (50, 0.3, 16, 90_000),
        (100, 0.001, 1, 90_000),
        (100, 0.1, 16, 90_000),
        (100, 1.0, 32, 90_000),
    ],
)
def test_24_lines_of_any_rate_and_length_carry_a_topic_about_once_whatever_the_consumers(
    far: FarKafka,
    far_topic: Topics,
    tmp_path: Path,
    mbit: float,
    round_trip_s: float,
    consumers: int,
    alerts: int,
) -> None:
    topic, line = far_topic(alerts), Line(mbit, round_trip_s)
    topic.assert_moved_about_once(carry(far, topic, tmp_path / "alerts", line, "-nconsumers", str(consumers)))


@pytest.mark.timeout(600)
def test_24_batches_of_which_four_at_once_never_come_in_time_come_one_after_the_other(
    far: FarKafka, tmp_path: Path
) -> None:
    """librdkafka gives a response up after a minute: what came of it by then is thrown away, and asked for again."""
    options = {"batch.size": 10**6, "linger.ms": 3000}
    name = name_topic()
    oracle = fill_topic(far.near.bootstrap_servers, name, AlertKind.ZTF_LIGHT, 3400, partitions=4, options=options)
    topic = Filled(name, oracle, far.stored_bytes(name))
    patience = ("-nconsumers", "4", "--reconnect-timeout", "150s")
    carry(far, topic, tmp_path / "alerts", Line(mbit=0.4, round_trip_s=0.06), *patience, timeout_s=500)


def test_24_a_long_stretch_of_aborted_transactions_is_no_silence_of_a_slow_line_even_for_who_has_no_patience(
    far: FarKafka, topic_name: str
) -> None:
    create_topic(far.near.bootstrap_servers, topic_name, partitions=1)
    aborted = [bytes(10_000)] * 300  # three batches or so, of eight seconds each
    produce_transaction(far.near.bootstrap_servers, topic_name, aborted, commit=False, partitions=1)
    produce(far.near.bootstrap_servers, topic_name, [b"alert"] * 5)
    far.link.set(Line(mbit=1, round_trip_s=0.02))
    settings = KafkaSettings(far.bootstrap_servers, reconnect_timeout_s=3)
    with open_connection(settings, fetch_bytes=2**16) as connection:
        reader = RangeReader(connection, topic_name, OffsetRange(0, 0, 306), lambda: False)
        assert sum(map(len, reader.batches(10, 2**20))) == 5
    assert reader.holes == [(0, 301)]


def test_24_all_consumers_together_take_no_more_of_a_line_than_they_are_allowed(
    far: FarKafka, far_topic: Topics, tmp_path: Path
) -> None:
    topic, began = far_topic(4_000), time.monotonic()
    moved = carry(far, topic, tmp_path / "alerts", Line(), "-nconsumers", "4", "--limit-rate", "500kB/s")
    assert moved.down <= 500_000 * (time.monotonic() - began)
    topic.assert_moved_about_once(moved)


def test_24_who_reads_a_topic_as_a_frame_is_told_that_it_is_looked_at(far: FarKafka, far_topic: Topics) -> None:
    topic = far_topic(4_000)
    far.link.set(Line(mbit=0.5, round_trip_s=1.0))
    script = f"import fink_dask; print(fink_dask.read_topic({topic.name!r}, {far.bootstrap_servers!r}).npartitions)"
    run = [sys.executable, "-c", script]
    result = subprocess.run(run, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert re.search(r"topic .*\d+ s\b", result.stderr)


@pytest.mark.sample
def test_24_a_sample_of_a_dataset_costs_a_small_part_of_what_the_topic_did(
    far: FarKafka, far_topic: Topics, tmp_path: Path
) -> None:
    topic, outdir = far_topic(4_000), tmp_path / "alerts"
    carry(far, topic, outdir, Line())
    before = far.link.moved
    sample = ("--sample", "400", "--seed", "1", "--bootstrap-servers", far.bootstrap_servers)
    result = run_cli("verify", str(outdir), *sample)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "400 records read again" in result.stdout
    # By itself each of these records would bring its batch: more than the topic, as it is of 4,000 alerts.
    assert far.link.moved.since(before).fetched < topic.stored_bytes / 2
