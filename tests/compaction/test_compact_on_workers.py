"""A compaction whose files are written by workers: what the command alone makes, whoever is killed or goes on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import Client, LocalCluster

from fink_dask.cluster.choice import ClusterChoice
from fink_dask.cluster.existing import Scheduler
from fink_dask.compaction import merge
from fink_dask.compaction.compact import Caller, compact_dataset
from fink_dask.compaction.groups import Form
from fink_dask.compaction.task import MergeTask, Threads, Watcher
from fink_dask.errors import FinkDaskError, StorageError, TransferError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.records import Marker
from fink_dask.running.merging import merging_on
from fink_dask.verifying.files import verify_dataset
from tests.harness.crash import SOME_OR_EACH, run_until, start
from tests.harness.ledgers import files_below, make_plan, make_whole, places, read_places
from tests.harness.oracle import wait_for

RANGES = [OffsetRange(0, 0, 25), OffsetRange(0, 25, 60), OffsetRange(3, 100, 130), OffsetRange(7, 5, 6)]
PLANS = [make_plan(RANGES[:2]), make_plan(RANGES[2:], 2)]
PLACES = sorted(place for plan in PLANS for place in places(plan))
#: A group for each file, and one of the columns by which alerts of several partitions are the same.
FORMS = [Form(1), Form(unique="kafka_offset")]


@pytest.fixture
def source(tmp_path: Path) -> Ledger:
    return make_whole(tmp_path / "alerts", PLANS)


@contextmanager
def on_workers(address: str, notes: list[str] | None = None) -> Iterator[Any]:
    said = [] if notes is None else notes
    with merging_on(ClusterChoice(Scheduler(address, all_threads=True)), 1, False, said.append) as merger:
        yield merger


def _compact_on(address: str, source: Ledger, target: Ledger, form: Form = FORMS[0]) -> None:
    with on_workers(address) as merger:
        compact_dataset(source, target, form, merger, Caller())


def _compact_here(source: Ledger, target: Ledger, form: Form = FORMS[0]) -> None:
    compact_dataset(source, target, form, Threads(1), Caller())


def content(ledger: Ledger) -> dict[str, bytes | Marker]:
    """Read the dataset, and its ledger, but for what files were called as they waited."""
    kept = (ledger.outdir, ledger.plans_path, ledger.quarantine_path)
    found: dict[str, bytes | Marker] = {
        str(path.relative_to(ledger.outdir.parent)): path.read_bytes() for each in kept for path in files_below(each)
    }
    for marker in ledger.markers(PLANS):
        files = tuple(replace(file, staged="-") for file in marker.files)
        found[marker.range.name] = replace(marker, files=files)
    return found


def made_here(source: Ledger, target: Ledger, form: Form = FORMS[0]) -> dict[str, bytes | Marker]:
    """Return what the command makes of it alone, under the name of the other."""
    alone = Ledger(target.outdir.parent / "alone" / target.outdir.name)
    alone.outdir.parent.mkdir(exist_ok=True)
    _compact_here(source, alone, form)
    return content(alone)


def _assert_whole(target: Ledger, wanted: dict[str, bytes | Marker]) -> None:
    assert content(target) == wanted
    assert verify_dataset(target).problems == verify_dataset(target).foreign == ()
    assert [path.name for path in target.staging_path.iterdir()] == []


@pytest.mark.parametrize("form", FORMS, ids=["many groups", "unique"])
def test_what_workers_make_is_byte_for_byte_what_the_command_alone_makes(
    source: Ledger, tmp_path: Path, dask_scheduler: str, form: Form
) -> None:
    target = Ledger(tmp_path / "few")
    _compact_on(dask_scheduler, source, target, form)
    _assert_whole(target, made_here(source, target, form))


@SOME_OR_EACH
def test_no_alert_is_lost_or_doubled_by_a_kill_after_any_operation_of_a_command_whose_files_workers_write(
    source: Ledger, tmp_path: Path, dask_scheduler: str, every: int
) -> None:
    wanted = made_here(source, Ledger(tmp_path / "few"))
    for after in count(1, 2 * every):
        target = Ledger(tmp_path / str(after) / "few")
        target.outdir.parent.mkdir()
        killed = run_until(after, _compact_on, dask_scheduler, source, target)
        assert read_places(target) in ([], PLACES), "a reader sees all of it, or nothing"
        if not killed:
            break
        _compact_on(dask_scheduler, source, target)
        _assert_whole(target, wanted)
    assert after > 60


class _CapturedError(Exception):
    """Ends a run that has said what there is to merge."""


def _begin(source: Ledger, target: Ledger) -> list[MergeTask]:
    """Begin a compaction, and end it as its first file would be written."""
    found: list[MergeTask] = []

    def capture(tasks: Sequence[MergeTask], *_: Any) -> None:
        found.extend(tasks)
        raise _CapturedError

    with pytest.raises(_CapturedError):
        compact_dataset(source, target, FORMS[0], capture, Caller())
    return found


def _merge_and_stand_still(task: MergeTask, after: int) -> None:
    """Merge a group, and stand still after some operations, until the test lets it go on."""
    seen = 0

    def counting(real: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            nonlocal seen
            found = real(*args, **options)
            seen += 1
            if seen == after:
                os.kill(os.getpid(), signal.SIGSTOP)
            return found

        return counted

    for module, name in ((os, "open"), (os, "fsync"), (os, "unlink"), (merge, "check_source"), (merge, "_flush")):
        setattr(module, name, counting(getattr(module, name)))
    with suppress(OSError, FinkDaskError):  # what it writes to is gone
        task.run(lambda: False)
    os.kill(os.getpid(), signal.SIGSTOP)  # also where there were fewer


STEPS = ("begun", "group", "dataset", "assembled", "ready", "renamed few", "renamed plans", "the end")


@pytest.mark.parametrize(
    "after", [2, *(pytest.param(after, marks=pytest.mark.kills) for after in (1, 4))], ids="after {}".format
)
@pytest.mark.parametrize("step", STEPS)
def test_a_task_that_nobody_waits_for_any_more_writes_into_nothing_that_a_second_run_makes(
    source: Ledger, tmp_path: Path, step: str, after: int
) -> None:
    """A worker was lost, its command was killed; another command goes on, and at any moment so does the worker."""
    target = Ledger(tmp_path / "few")
    orphan = start(_merge_and_stand_still, _begin(source, target)[0], after)

    def stands_still() -> bool:
        return psutil.Process(orphan.pid).status() == psutil.STATUS_STOPPED

    told: list[str] = []

    def go_on(name: str) -> None:
        if name == step and step not in told:
            os.kill(orphan.pid, signal.SIGCONT)
            wait_for(stands_still, "it to have done all it does")
        told.append(name)

    try:
        wait_for(stands_still, "it to stand still")
        compact_dataset(source, target, FORMS[0], Threads(1), Caller(step=go_on))
        go_on("the end")
        assert step in told
        _assert_whole(target, made_here(source, target))
    finally:
        orphan.kill()
        orphan.join()


@contextmanager
def own_workers(workers: int) -> Iterator[tuple[Client, str]]:
    size = {"n_workers": workers, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": None}
    with LocalCluster(**size) as cluster, Client(cluster) as client:
        yield client, cluster.scheduler_address


def _hold(gate: Path) -> None:
    """Have a worker wait at the first file that it reads, until the gate is there."""
    real = merge.check_source

    def check_source(*arguments: Any) -> None:
        while not gate.exists():
            time.sleep(0.02)
        real(*arguments)

    merge.check_source = check_source


def _busy(dask_worker: Any) -> int:
    return len(dask_worker.active_threads)


@pytest.mark.commands
def test_neither_a_worker_nor_a_command_that_is_killed_in_the_middle_of_a_file_loses_or_doubles_one(
    source: Ledger, tmp_path: Path
) -> None:
    target, gate = Ledger(tmp_path / "few"), tmp_path / "gate"

    def being_written() -> int:
        return len(list(target.staging_path.glob("*/*.parquet")))

    with own_workers(2) as (client, address):
        client.wait_for_workers(2)
        client.run(_hold, gate)
        command = start(_compact_on, address, source, target)
        try:
            wait_for(lambda: being_written() == 2 or not command.is_alive(), "two files that are being written")
            worker = psutil.Process(min(client.run(os.getpid).values()))
            worker.kill()
            wait_for(lambda: being_written() > 2 or not command.is_alive(), "another attempt, of a name of its own")
            assert command.is_alive()
        finally:
            command.kill()
            command.join()
        assert read_places(target) == []
        wanted = made_here(source, target)
        _compact_here(source, target)
        _assert_whole(target, wanted)
        gate.touch()
        wait_for(lambda: not any(client.run(_busy).values()), "the workers to give up")
        _assert_whole(target, wanted)


def test_workers_that_do_not_see_the_directories_are_named_before_anything_is_written(
    source: Ledger, tmp_path: Path, dask_scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This path leads to another directory in each process, as on hosts without a common file system.
    monkeypatch.chdir(tmp_path)
    target, elsewhere = Ledger(tmp_path / "few"), Path("/proc/self/cwd")
    for given, wanted in ((source, Ledger(elsewhere / "few")), (Ledger(elsewhere / "alerts"), target)):
        with pytest.raises(TransferError, match=r"tcp://.*/proc/self/cwd/") as raised:
            _compact_on(dask_scheduler, given, wanted)
        assert "\n" not in str(raised.value)
        assert read_places(target) == []
    _compact_on(dask_scheduler, source, target)
    assert read_places(target) == PLACES


def test_a_file_that_a_worker_has_written_elsewhere_is_not_taken_for_one(source: Ledger, tmp_path: Path) -> None:
    target = Ledger(tmp_path / "few")

    def elsewhere(tasks: Sequence[MergeTask], watcher: Watcher) -> None:
        merged = tasks[0].run(lambda: False)
        assert merged.file is not None
        next(target.staging_path.glob(f"*/{merged.file.staged}")).unlink()
        watcher.done(tasks[0], merged)

    with pytest.raises(StorageError, match=r"worker\b.*\.parquet"):
        compact_dataset(source, target, FORMS[0], elsewhere, Caller())
