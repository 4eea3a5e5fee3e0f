"""Rows 1 to 4 and 6 of the table of faults: client and workers are killed, or stand still, at every point."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import dask
import psutil
import pytest
from confluent_kafka import Consumer, TopicPartition
from distributed import Client, LocalCluster

from fink_dask.cluster.local import Cluster
from fink_dask.cluster.worker import transfer_on_worker
from fink_dask.kafka.inspect import open_inspector
from fink_dask.ledger.commit import roll_forward
from fink_dask.ledger.lease import hold_lease
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.outdir import create_ledger
from fink_dask.planning.plan import Generations
from fink_dask.planning.prepare import freeze_plan, make_work, open_ranges, plan_next
from fink_dask.planning.schemas import inspect_topic
from fink_dask.planning.topic import finish
from fink_dask.progress.events import Event, RangeCommitted
from fink_dask.ranges.memory import FULL_SHARE
from fink_dask.ranges.task import transfer_range
from fink_dask.ranges.work import Work
from fink_dask.running import scheduling as job
from fink_dask.settings import KafkaSettings, TransferSettings
from fink_dask.verifying.files import verify_dataset
from tests.alerts.made_up import AlertKind
from tests.harness.crash import run, run_until, start
from tests.harness.oracle import Oracle, assert_exactly_once, fill_topic, wait_for
from tests.harness.planned import plan_topic
from tests.harness.running import Running
from tests.harness.topics import PATIENCE_S, client_config

LIGHT = AlertKind.ZTF_LIGHT


@pytest.fixture(scope="module")
def oracle(kafka: Any, topic: str) -> Oracle:
    return fill_topic(kafka.bootstrap_servers, topic, LIGHT, 120, partitions=2)


def whole_job(bootstrap: str, topic: str, outdir: Path, group: str) -> None:
    """Do what a transfer does, from the plan to the group's offsets, in a loop instead of on a cluster."""
    settings = TransferSettings(
        topic=topic, outdir=outdir, kafka=KafkaSettings(bootstrap), partitionby=("time",), group_id=group
    )
    ledger = Ledger(settings.outdir)
    with open_inspector(settings.kafka) as inspector:
        target = inspect_topic(settings, inspector, ledger, fresh=False)
        assert target is not None
        create_ledger(ledger)
        with hold_lease(ledger) as lease:
            plans = ledger.plans()
            roll_forward(ledger, plans)
            plan = plan_next(settings, target, inspector, ledger, plans).plan
            if plan is not None:
                plans.append(freeze_plan(ledger, target, plan, Generations(plans), lambda _: None))
            for item in make_work(settings, target, ledger, open_ranges(plans, ledger.markers(plans))):
                transfer_range(item.range, item.settings)
            finish(settings, lambda _: None, ledger, inspector, lease, [*target.description.watermarks])


def assert_group_at_end(bootstrap: str, topic: str, group: str, oracle: Oracle) -> None:
    consumer = Consumer(client_config(bootstrap) | {"group.id": group})
    try:
        wanted = {partition: offset + 1 for partition, offset in sorted(oracle.values)}
        found = consumer.committed([TopicPartition(topic, partition) for partition in wanted], timeout=PATIENCE_S)
        assert {place.partition: place.offset for place in found} == wanted
    finally:
        consumer.close()


def kill_after(operations: Sequence[int], kafka: Any, topic: str, oracle: Oracle, tmp_path: Path) -> int:
    """Kill the job after each of these operations, and its successor too; returns how many kills there were."""
    kills = 0
    for after in operations:
        outdir, group = tmp_path / str(after) / "alerts", f"group-{tmp_path.name}-{after}"
        arguments = (kafka.bootstrap_servers, topic, outdir, group)
        killed = run_until(after, whole_job, *arguments)
        run_until(1 + 7 * after % 30, whole_job, *arguments)
        assert run(whole_job, *arguments) == 0
        assert_exactly_once(outdir, oracle.values)
        assert verify_dataset(Ledger(outdir)).problems == ()
        assert_group_at_end(kafka.bootstrap_servers, topic, group, oracle)
        kills += killed
        if not killed:
            break
    return kills


def test_01_a_client_killed_at_some_steps_from_plan_to_group_commit_costs_nothing(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path
) -> None:
    assert kill_after(range(3, 400, 29), kafka, topic, oracle, tmp_path) > 2


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_01_a_client_killed_after_any_operation_from_plan_to_group_commit_costs_nothing(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path, chance: random.Random
) -> None:
    assert kill_after(range(chance.randrange(1, 4), 400, 3), kafka, topic, oracle, tmp_path) > 25


@pytest.fixture(scope="module")
def large(kafka: Any) -> tuple[str, Oracle]:
    topic = "ftransfer_ztf_2026-11-01_22"
    return topic, fill_topic(kafka.bootstrap_servers, topic, LIGHT, 30_000, partitions=12)


@pytest.mark.faults
@pytest.mark.parametrize("turn", range(4))
def test_02_a_run_survives_the_death_of_many_workers_at_any_moment(
    kafka: Any, large: tuple[str, Oracle], tmp_path: Path, chance: random.Random, turn: int
) -> None:
    topic, oracle = large
    running = Running(kafka, topic, tmp_path / "alerts")
    running.wait_until_it_reads()
    killed = 0
    while not running.is_over and killed < 8:
        if workers := running.workers():
            victim = chance.choice(workers)
            try:
                victim.send_signal(chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV]))
                killed += 1
            except psutil.Error:
                continue
            psutil.wait_procs([victim], timeout=20)
        markers, ranges = running.ledger.markers_path, min(12, killed)
        wait_for(lambda: running.is_over or len(list(markers.iterdir())) >= ranges, "some ranges")  # noqa: B023
    running.hurry()
    code, err = running.finish()
    assert (code, killed >= 4) == (0, True), err
    assert_exactly_once(running.outdir, oracle.values)


def _is_one_of_the_first(count: int, folder: Path) -> bool:
    """Take one of so many turns, which several processes want at once."""
    for number in range(count):
        with suppress(FileExistsError):
            (folder / f"turn-{number}").touch(exist_ok=False)
            return True
    return False


def die_after_commit(ranges: Any, settings: Any, *more: Any) -> Any:
    """Run a task up to its middle range, and kill the worker before anybody hears of it; the first four times only."""
    token = settings.ledger.path / f"died-{ranges[0].name}"
    if not token.exists() and _is_one_of_the_first(4, settings.ledger.path):
        transfer_on_worker(ranges[: len(ranges) // 2 + 1], settings, *more)
        token.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return transfer_on_worker(ranges, settings, *more)


@pytest.mark.parametrize(
    ("partitions", "alerts", "deaths"),
    [pytest.param(2, 120, 2, id="large", marks=pytest.mark.faults), pytest.param(96, 288, 4, id="many small")],
)
def test_03_a_worker_that_dies_after_its_marker_is_not_repeated_and_counted_once(
    kafka: Any,
    topic_name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    partitions: int,
    alerts: int,
    deaths: int,
) -> None:
    """Also where one task has several ranges, as many small ones wait."""
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, alerts, partitions=partitions)
    monkeypatch.setattr(job, "transfer_on_worker", die_after_commit)
    work = plan_topic(kafka.bootstrap_servers, topic_name, tmp_path / "alerts")
    ledger = work[0].settings.ledger
    attempts: set[str] = set()
    events: list[Event] = []

    def watch() -> None:
        attempts.update(path.name for path in ledger.staged())

    with (
        # Forked from the process that the other tests here kill their own from: each that dies is soon replaced.
        dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        job.run_ranges(Cluster(client, FULL_SHARE), work, 2, events.append, watch)
    assert len(list(ledger.path.glob("died-*"))) == deaths
    committed = [event for event in events if isinstance(event, RangeCommitted)]
    assert sorted(event.range for event in committed) == sorted(item.range for item in work)
    assert sum(event.rows for event in committed) == len(oracle.values)
    winners = {marker.attempt for marker in ledger.markers(ledger.plans())}
    assert {name.rpartition("-")[2] for name in attempts} <= winners, "a range was consumed twice"
    assert_exactly_once(ledger.outdir, oracle.values)


def stand_still(item: Work, at: str) -> None:
    """Transfer a range, and stop in the midst of it until somebody says go on."""

    steps: list[str] = []

    def step(name: str) -> None:
        steps.append(name)
        if name == at and steps.count(at) == 1:
            os.kill(os.getpid(), signal.SIGSTOP)

    transfer_range(item.range, item.settings, step=step)


@pytest.mark.parametrize("at", ["staged", "marked", "linked", "renamed", "published"])
def test_04_a_worker_that_stood_still_until_its_range_was_done_elsewhere_cleans_up(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path, at: str
) -> None:
    work = plan_topic(kafka.bootstrap_servers, topic, tmp_path / "alerts", partitionby=("time",))
    first = work[0]
    late = start(stand_still, first, at)
    wait_for(lambda: psutil.Process(late.pid).status() == psutil.STATUS_STOPPED, "the worker to stand still")
    for item in work:
        transfer_range(item.range, item.settings)
    assert_exactly_once(tmp_path / "alerts", oracle.values)
    os.kill(late.pid, signal.SIGCONT)
    late.join(PATIENCE_S)
    assert late.exitcode == 0
    assert_exactly_once(tmp_path / "alerts", oracle.values)
    ledger = first.settings.ledger
    assert ledger.staged() == []
    assert verify_dataset(ledger).problems == ()
