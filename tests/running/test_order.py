"""Ranges on a Dask cluster: the largest first, small ones together, few at a time, and nothing is kept there."""

from __future__ import annotations

import gc
import json
import random
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import Client, Future, LocalCluster

from fink_dask.avro.schema import parse_schema
from fink_dask.cluster.local import DASK_CONFIG, Cluster, local_cluster
from fink_dask.cluster.readiness import Lookahead
from fink_dask.dataset.partitioning import Partitioning
from fink_dask.errors import TransferError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.outdir import create_ledger
from fink_dask.ledger.records import Identity, Marker, Plan, seal
from fink_dask.progress.events import Event, RangeCommitted
from fink_dask.ranges.memory import FULL_SHARE
from fink_dask.ranges.work import TaskSettings, Work
from fink_dask.running import scheduling
from fink_dask.running.scheduling import run_ranges
from fink_dask.settings import KafkaSettings
from tests.alerts.made_up import AlertKind, avro_schema
from tests.harness.oracle import wait_for

COUNT = 120


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    """Yield a scheduler and three workers in this process, where they can be looked into."""
    with (
        dask.config.set(DASK_CONFIG),
        LocalCluster(n_workers=3, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as found,
    ):
        yield found


@pytest.fixture
def work(tmp_path: Path) -> list[Work]:
    """Make ranges of all sizes, in any order, that hold nothing: they are committed, and workers see that they are."""
    schema = parse_schema(json.dumps(avro_schema(AlertKind.ZTF_LIGHT)))
    identity = Identity("topic", "unknown", (), None, schema.fingerprint, "file")
    sizes = random.Random(1).sample(range(1, 10 * COUNT), COUNT)
    ranges = tuple(OffsetRange(partition, 0, size) for partition, size in enumerate(sizes))
    ledger, plan = Ledger(tmp_path / "out"), Plan(1, identity, ranges, 0)
    create_ledger(ledger)
    ledger.freeze(plan, schema)
    for each in ranges:
        hole = ((each.start, each.end),)
        marker = Marker(plan.plan_id, each, "0" * 16, rows=0, raw_bytes=0, files=(), quarantined=0, holes=hole)
        ledger.marker_path(each).write_bytes(seal("marker", marker.to_json()))
    settings = TaskSettings(ledger, KafkaSettings("127.0.0.1:1"), identity, plan.plan_id, Partitioning(()), 1000)
    return [Work(each, settings) for each in ranges]


def held(cluster: LocalCluster) -> int:
    """Count the ranges that the scheduler knows of."""
    return sum(str(key).startswith("transfer_range-") for key in list(cluster.scheduler.tasks))


def test_a_client_that_stays_open_keeps_nothing_of_a_run_that_is_over(cluster: LocalCluster, work: list[Work]) -> None:
    """One of a notebook, which transfers a night's topics in turn."""

    class Shown(list[Event]):
        pass

    with Client(cluster) as client:
        shown = Shown()
        run_ranges(Cluster(client, FULL_SHARE), work[:3], 1, shown.append, lambda: None)
        assert any(isinstance(event, RangeCommitted) for event in shown)
        left = weakref.ref(shown)
        del shown

        def is_gone() -> bool:
            gc.collect()
            return left() is None

        wait_for(is_gone, "an end of what was shown")


def test_the_largest_range_goes_first(cluster: LocalCluster, work: list[Work]) -> None:
    events: list[Event] = []
    with Client(cluster) as client:
        run_ranges(Cluster(client, FULL_SHARE), work, 1, events.append, lambda: None)
    sizes = [len(event.range) for event in events if isinstance(event, RangeCommitted)]
    assert sizes == sorted((len(item.range) for item in work), reverse=True)


def test_few_ranges_are_handed_out_at_once_and_none_is_held_when_it_is_done(
    cluster: LocalCluster, work: list[Work]
) -> None:
    seen: list[int] = []
    events: list[Any] = []

    def observe(event: Event) -> None:
        events.append(event)
        seen.append(held(cluster))

    with Client(cluster) as client:
        run_ranges(Cluster(client, FULL_SHARE, Lookahead(2, None)), work, 3, observe, lambda: None)
        wait_for(lambda: held(cluster) == 0, "the results to be released")
    assert sorted(event.range for event in events) == sorted(item.range for item in work)
    # Five are on their way, and as many may have been done since.
    assert 3 <= max(seen) <= 10


def test_many_small_ranges_are_few_tasks_and_one_that_fails_takes_no_other_along(
    cluster: LocalCluster, work: list[Work]
) -> None:
    """A topic of many partitions with a few alerts each: a task of Dask's costs more than such a range."""
    small = [replace(item, range=OffsetRange(item.range.partition, 0, 1)) for item in work]
    settings = work[0].settings
    ledger, identity = settings.ledger, settings.identity
    plan = Plan(2, identity, tuple(item.range for item in small), 0)
    for item in small:
        hole = ((0, 1),)
        marker = Marker(plan.plan_id, item.range, "0" * 16, rows=0, raw_bytes=0, files=(), quarantined=0, holes=hole)
        ledger.marker_path(item.range).write_bytes(seal("marker", marker.to_json()))
    bad = small[COUNT // 2].range
    ledger.marker_path(bad).write_bytes(b"damaged")
    common = replace(settings, plan_id=plan.plan_id)
    wanted = [replace(item, settings=common) for item in small]
    events: list[Any] = []
    with Client(cluster) as client, pytest.raises(TransferError, match=f"{bad.name}.* is damaged"):
        run_ranges(Cluster(client, FULL_SHARE), wanted, 1, events.append, lambda: None)
    done = [event.range for event in events if isinstance(event, RangeCommitted)]
    assert sorted(done) == sorted(item.range for item in small if item.range != bad)
    tasks = cluster.scheduler.task_prefixes["transfer_range"].state_counts
    assert 4 < tasks["memory"] < COUNT // 2


def spans_of_rolls(cluster: LocalCluster, client: Client, work: list[Work]) -> int:
    """Run ranges as a follower has them, each when there is nothing left of the one before; count Dask's spans."""
    rolls = work[:5]

    def more(waiting: int, running: int) -> list[Work] | None:
        if waiting or running or held(cluster):
            return []
        return [rolls.pop()] if rolls else None

    run_ranges(Cluster(client, FULL_SHARE), [], 1, lambda _: None, lambda: None, more)
    return len(cluster.scheduler.extensions["spans"].spans)


def test_following_for_months_fills_no_scheduler_with_spans(cluster: LocalCluster, work: list[Work]) -> None:
    with Client(cluster) as client:
        assert spans_of_rolls(cluster, client, work) == 1
    with local_cluster(1, 1, "127.0.0.1:0") as own:
        assert spans_of_rolls(own.client.cluster, own.client, work) == 0


@pytest.mark.parametrize("is_lost", [False, True], ids=["with the reports", "fetched, as the reports are lost"])
def test_the_result_of_a_range_comes_whatever_becomes_of_the_reports(
    cluster: LocalCluster, work: list[Work], monkeypatch: pytest.MonkeyPatch, is_lost: bool
) -> None:
    fetched = 0

    def fetch(self: Future, timeout: float | None = None) -> Any:
        nonlocal fetched
        fetched += 1
        return plain(self, timeout)

    plain = Future.result
    monkeypatch.setattr(Future, "result", fetch)
    if is_lost:
        monkeypatch.setattr(scheduling._Run, "on_progress", lambda run, event: None)
    events: list[Any] = []
    with Client(cluster) as client:
        run_ranges(Cluster(client, FULL_SHARE), work, 3, events.append, lambda: None)
    assert sorted(event.range for event in events) == sorted(item.range for item in work)
    assert fetched == (len(work) if is_lost else 0)
