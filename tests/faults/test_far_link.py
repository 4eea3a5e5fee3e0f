"""Row 30, and round trips: the other end of the line is far away, and whatever is asked takes its time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from fink_dask.ledger.ledger import Ledger
from tests.harness.cli import run_cli, transfer_arguments
from tests.harness.filled import Filled, fill_far_topic
from tests.harness.link import FarKafka, Line
from tests.harness.oracle import assert_exactly_once
from tests.harness.running import Running
from tests.harness.topics import delete_records_before

pytestmark = pytest.mark.links
#: To a ship, or a telescope behind two satellites.
SHIP = Line(mbit=4, round_trip_s=1.0)


@pytest.mark.sample
def test_30_what_retention_takes_is_declared_at_a_round_trip_of_a_second_as_at_one_of_a_millisecond(
    far: FarKafka, tmp_path: Path
) -> None:
    topic = fill_far_topic(far, 6000, partitions=3)
    far.link.set(SHIP)
    running = Running(far, topic.name, tmp_path / "alerts", "-nconsumers", "1", slowly=False)
    try:
        running.wait_until_it_reads()
        # One is being read, and another one may be fetched ahead.
        for partition in (0, 1, 2):
            delete_records_before(far.near.bootstrap_servers, topic.name, partition, 1000)
        code, err = running.finish(200)
    finally:
        running.kill()
    assert code == 3, err
    ledger = running.ledger
    lost = {
        (marker.range.partition, offset)
        for marker in ledger.markers(ledger.plans())
        for start, end in marker.lost
        for offset in range(start, end)
    }
    assert lost
    assert all(offset < 1000 for _, offset in lost)
    assert_exactly_once(running.outdir, topic.oracle.values.keys() - lost)


@dataclass(frozen=True)
class Times:
    """Of a transfer, in seconds from its start: when the first records of a range arrived, and when it ended."""

    first: float
    end: float


#: What takes its time besides is the same at either, and the shorter of two tries is less disturbed.
NEAR, FAR, TRIES = 0.2, 1.2, 2


def measure(kafka: FarKafka, topic: Filled, outdir: Path, round_trip_s: float, options: Sequence[str]) -> Times:
    """Transfer a topic at some distance, and note when what happened."""
    kafka.link.set(Line(round_trip_s=round_trip_s))
    began = time.time()
    result = run_cli(*transfer_arguments(kafka, topic.name, outdir, *options))
    ended = time.time()
    assert result.returncode == 0, result.stderr
    assert_exactly_once(outdir, topic.oracle.values)
    # What is sampled before there is a plan is none of the alerts that were asked for.
    planned = max(path.stat().st_mtime for path in Ledger(outdir).plans_path.iterdir())
    return Times(kafka.link.first_records_after(planned) - began, ended - began)


def round_trips(kafka: FarKafka, topic: Filled, folder: Path, *options: str) -> Times:
    """Count the round trips that follow each other, by what distance adds to the time."""
    best = {}
    for seconds in (NEAR, FAR):
        tries = [measure(kafka, topic, folder / f"{seconds} {one}", seconds, options) for one in range(TRIES)]
        best[seconds] = Times(min(one.first for one in tries), min(one.end for one in tries))
    near, far = best.values()
    return Times((far.first - near.first) / (FAR - NEAR), (far.end - near.end) / (FAR - NEAR))


def test_the_first_alert_comes_after_few_round_trips_and_a_small_topic_is_over_a_few_later(
    far: FarKafka, tmp_path: Path
) -> None:
    found = round_trips(far, fill_far_topic(far, 400, partitions=2), tmp_path)
    assert round(found.first) <= 8, found
    assert round(found.end) <= 12, found
