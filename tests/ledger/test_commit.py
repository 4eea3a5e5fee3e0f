"""A range is in the dataset exactly once, whatever is killed and whenever."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from itertools import count
from pathlib import Path

import pytest

from fink_dask.errors import LedgerError, StorageError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.commit import Attempt, missing_files, publish
from fink_dask.ledger.ledger import Ledger, storage_error
from fink_dask.store.local import LOCAL, LocalStore
from tests.harness.crash import run, run_until
from tests.harness.ledgers import (
    STEPS,
    assert_only_committed_is_seen,
    assert_whole,
    files_below,
    make_ledger,
    make_plan,
    places,
    read_places,
    resume,
    stage_range,
    transfer,
    transfer_and_die,
)

FIRST, SECOND = OffsetRange(0, 0, 25), OffsetRange(3, 100, 130)
PLAN = make_plan([FIRST, SECOND])


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return make_ledger(tmp_path / "alerts", PLAN)


def _transfer(ledger: Ledger, offset_range: OffsetRange) -> None:
    transfer(ledger, PLAN, offset_range)


@pytest.mark.parametrize("at", range(1, len(STEPS) + 1), ids=lambda at: f"{at}-{STEPS[at - 1]}")
def test_no_alert_is_lost_or_doubled_by_a_kill_at_a_step(ledger: Ledger, at: int) -> None:
    transfer(ledger, PLAN, SECOND)
    assert run(transfer_and_die, ledger, PLAN, at) == -signal.SIGKILL
    assert (ledger.marker(FIRST, PLAN.plan_id) is not None) == (STEPS[at - 1] not in {"staged", "marked"})
    assert_only_committed_is_seen(ledger, PLAN)
    resume(ledger, PLAN)
    assert_whole(ledger, PLAN)


def test_the_steps_that_tests_are_killed_at_are_all_there_are(ledger: Ledger) -> None:
    told: list[str] = []
    transfer(ledger, PLAN, FIRST, told.append)
    assert told == STEPS


def test_no_alert_is_lost_or_doubled_by_a_kill_after_any_operation(tmp_path: Path) -> None:
    for after in count(1):
        ledger = make_ledger(tmp_path / str(after), PLAN)
        killed = run_until(after, _transfer, ledger, FIRST)
        assert_only_committed_is_seen(ledger, PLAN)
        if not killed:
            break
        # The resume is killed as well, somewhere in its course.
        run_until(1 + 7 * after % 20, resume, ledger, PLAN)
        assert_only_committed_is_seen(ledger, PLAN)
        resume(ledger, PLAN)
        assert_whole(ledger, PLAN)
    assert after > 20


def test_of_two_attempts_at_once_one_is_in_the_dataset(ledger: Ledger) -> None:
    early, late = (Attempt(ledger, FIRST, PLAN.plan_id, lambda _: None) for _ in range(2))
    for attempt in (early, late):
        attempt.begin()
    markers = [stage_range(attempt, PLAN, FIRST) for attempt in (early, late)]
    won, lost = early.commit(markers[0]), late.commit(markers[1])
    assert won.attempt == lost.attempt == early.name
    late.clean_up()
    early.clean_up()
    assert not late.directory.exists()
    assert early.directory.exists(), "the winner's files went with the loser's"
    for marker in (won, lost):
        publish(ledger, marker, lambda _: None)
    assert read_places(ledger) == places(make_plan([FIRST]))
    resume(ledger, PLAN)
    assert_whole(ledger, PLAN)


def test_a_link_that_succeeds_and_says_it_exists_is_a_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.link

    def like_nfs(source: Path, target: Path) -> None:
        real(source, target)
        raise FileExistsError(errno.EEXIST, "File exists", str(target))

    monkeypatch.setattr(os, "link", like_nfs)
    ledger = make_ledger(tmp_path / "alerts", PLAN)
    resume(ledger, PLAN)
    assert_whole(ledger, PLAN)


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK])
def test_a_file_system_without_hard_links_is_named_in_one_line(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:

    def refuse(source: Path, target: Path) -> None:
        raise OSError(code, os.strerror(code), str(source), None, str(target))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(StorageError, match="hard links") as caught:
        transfer(ledger, PLAN, FIRST)
    assert "\n" not in str(caught.value)
    assert ledger.staged() == []
    assert files_below(ledger.outdir) == []


FAILURES_AFTER_THE_LINK = [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt(), MemoryError()]


@pytest.mark.parametrize("failure", FAILURES_AFTER_THE_LINK, ids=repr)
@pytest.mark.parametrize("where", ["sync", "step"])
def test_a_failure_after_the_link_keeps_the_files_that_the_marker_names(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, failure: BaseException, where: str
) -> None:

    def fail_when_linked(name: str) -> None:
        if name == "linked":
            raise failure

    def fail(_: LocalStore, path: Path) -> None:
        if path == ledger.markers_path:
            raise failure

    if where == "sync":
        monkeypatch.setattr(LocalStore, "sync", fail)
    with pytest.raises(type(failure)):
        transfer(ledger, PLAN, FIRST, fail_when_linked if where == "step" else lambda _: None)
    monkeypatch.undo()
    assert ledger.marker(FIRST, PLAN.plan_id) is not None
    resume(ledger, PLAN)
    assert_whole(ledger, PLAN)


def test_a_failure_before_the_link_leaves_nothing(ledger: Ledger) -> None:

    def fail(name: str) -> None:
        if name == "marked":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        transfer(ledger, PLAN, FIRST, fail)
    assert ledger.staged() == []


def test_a_committed_file_that_is_nowhere_is_reported(ledger: Ledger) -> None:
    marker = transfer(ledger, PLAN, FIRST)
    (ledger.outdir / marker.files[0].path).unlink()
    with pytest.raises(LedgerError, match="staged"):
        publish(ledger, marker, lambda _: None)


def test_an_attempt_of_another_plan_cannot_begin(ledger: Ledger) -> None:
    before = make_plan([FIRST])
    with pytest.raises(LedgerError, match=before.plan_id):
        transfer(ledger, before, FIRST)
    assert ledger.staged() == []
    transfer(ledger, PLAN, FIRST)
    with pytest.raises(LedgerError, match=f"{PLAN.plan_id}.*{before.plan_id}"):
        transfer(ledger, before, FIRST)
    resume(ledger, PLAN)
    assert_whole(ledger, PLAN)


def test_an_attempt_never_takes_the_marker_of_another_plan_for_its_own(tmp_path: Path) -> None:
    ledger, other = make_ledger(tmp_path / "alerts", PLAN), make_ledger(tmp_path / "other", make_plan([FIRST]))
    transfer(other, make_plan([FIRST]), FIRST)

    def another_is_faster(name: str) -> None:
        if name == "marked":
            shutil.copy(other.marker_path(FIRST), ledger.marker_path(FIRST))

    with pytest.raises(LedgerError, match=f"{make_plan([FIRST]).plan_id}.*{PLAN.plan_id}"):
        transfer(ledger, PLAN, FIRST, another_is_faster)
    assert files_below(ledger.outdir) == []


def test_committed_files_that_somebody_removed_are_listed(ledger: Ledger) -> None:
    assert run(transfer_and_die, ledger, PLAN, "linked") == -signal.SIGKILL
    assert missing_files(ledger, ledger.markers([PLAN])) == [], "what is staged is not lost"
    resume(ledger, PLAN)
    assert missing_files(ledger, ledger.markers([PLAN])) == []
    marker = ledger.marker(FIRST, PLAN.plan_id)
    assert marker is not None
    assert marker.quarantine is not None
    removed, shortened, replaced, *_ = [ledger.outdir / file.path for file in marker.files]
    removed.unlink()
    shortened.write_bytes(b"x")
    replaced.unlink()
    replaced.mkdir()
    quarantine = ledger.path / marker.quarantine.path
    quarantine.unlink()
    assert missing_files(ledger, ledger.markers([PLAN])) == [removed, shortened, replaced, quarantine]
    shutil.rmtree(ledger.outdir)
    ledger.outdir.write_text("a file where the dataset was")
    assert len(missing_files(ledger, ledger.markers([PLAN]))) == sum(len(m.files) for m in ledger.markers([PLAN])) + 1


def test_a_directory_removed_in_mid_run_is_made_again(ledger: Ledger) -> None:
    assert run(transfer_and_die, ledger, PLAN, "linked") == -signal.SIGKILL
    shutil.rmtree(ledger.outdir)
    resume(ledger, PLAN)
    assert_whole(ledger, PLAN)


@pytest.mark.parametrize("in_the_way", ["class=class%200", "quarantine"])
def test_a_file_in_the_way_is_refused_before_the_range_is_committed(ledger: Ledger, in_the_way: str) -> None:
    obstacle = (ledger.path if in_the_way == "quarantine" else ledger.outdir) / in_the_way
    obstacle.write_text("mine")
    with pytest.raises(FileExistsError) as caught:
        transfer(ledger, PLAN, FIRST)
    assert in_the_way in str(storage_error(caught.value, ledger.outdir))
    assert ledger.marker(FIRST, PLAN.plan_id) is None
    assert ledger.staged() == []
    obstacle.unlink()
    resume(ledger, PLAN)
    assert_whole(ledger, PLAN)


def test_a_file_system_that_ignores_case_is_refused_before_the_range_is_committed(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ledger.outdir / "CLASS=class%200").mkdir()
    real_is_dir, real_samefile = Path.is_dir, Path.samefile

    def fold(path: Path) -> Path:
        """Find a name as a file system does that ignores case."""
        twins = {entry.name.lower(): entry for entry in path.parent.iterdir()} if path.parent.exists() else {}
        return twins.get(path.name.lower(), path)

    monkeypatch.setattr(Path, "is_dir", lambda path: real_is_dir(fold(path)))
    monkeypatch.setattr(Path, "samefile", lambda path, other: real_samefile(fold(path), fold(Path(other))))
    with pytest.raises(StorageError, match="differ"):
        transfer(ledger, PLAN, FIRST)
    assert ledger.marker(FIRST, PLAN.plan_id) is None
    # A directory that is there as it is called is used again.
    LOCAL.make_directory_of(ledger.outdir, "CLASS=class%200/x.parquet")


def test_the_marker_is_on_the_disk_before_another_attempt_publishes(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(transfer_and_die, ledger, PLAN, "linked") == -signal.SIGKILL
    synced: list[Path] = []
    real = LocalStore.sync

    def note(store: LocalStore, path: Path) -> None:
        synced.append(path)
        if path == ledger.markers_path:
            assert files_below(ledger.outdir) == []
        real(store, path)

    monkeypatch.setattr(LocalStore, "sync", note)
    transfer(ledger, PLAN, FIRST)
    assert synced[0] == ledger.markers_path
