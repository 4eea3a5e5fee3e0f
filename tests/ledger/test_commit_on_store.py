"""A range is in the dataset exactly once on an object store, whatever is killed, late, or left without an answer."""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from fink_dask.dataset.formats import Origin
from fink_dask.errors import LedgerError, StorageError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.commit import Attempt, is_published, missing_files, publish, roll_forward
from fink_dask.ledger.ledger import Ledger
from fink_dask.store import bucket as bucket_module
from fink_dask.store import uploads
from fink_dask.store.location import locate
from fink_dask.store.uploads import PART_BYTES
from fink_dask.verifying.files import verify_dataset
from tests.harness.crash import SOME_OR_EACH, start
from tests.harness.ledgers import (
    STEPS,
    assert_only_committed_is_seen,
    assert_whole,
    make_ledger,
    make_plan,
    places,
    read_places,
    resume,
    revise,
    stage_range,
    transfer,
    transfer_and_die,
)
from tests.harness.object_store import BUCKET, ObjectStore
from tests.harness.store_crash import in_environment, killed_after, run_on_store
from tests.harness.topics import PATIENCE_S

FIRST, SECOND = OffsetRange(0, 0, 25), OffsetRange(3, 100, 130)
PLAN = make_plan([FIRST, SECOND])


@pytest.fixture
def ledger(store_url: str) -> Ledger:
    return make_ledger(locate(store_url), PLAN)


def _resume(ledger: Ledger) -> None:
    resume(ledger, PLAN)
    roll_forward(ledger, ledger.plans())


def _assert_whole(ledger: Ledger) -> None:
    assert_whole(ledger, PLAN)
    named = {ledger.outdir / file.path for marker in ledger.markers([PLAN]) for file in marker.files}
    assert set(ledger.outdir.rglob("*")) == named, "an object that no marker names"


@pytest.mark.parametrize("at", range(1, len(STEPS) + 1), ids=lambda at: f"{at}-{STEPS[at - 1]}")
def test_no_alert_is_lost_or_doubled_by_a_kill_at_a_step(object_store: ObjectStore, ledger: Ledger, at: int) -> None:
    transfer(ledger, PLAN, SECOND)
    assert run_on_store(object_store, transfer_and_die, ledger, PLAN, at) == -signal.SIGKILL
    assert (ledger.marker(FIRST, PLAN.plan_id) is not None) == (STEPS[at - 1] not in {"staged", "marked"})
    assert_only_committed_is_seen(ledger, PLAN)
    _resume(ledger)
    _assert_whole(ledger)


def test_the_steps_that_tests_are_killed_at_are_all_there_are(ledger: Ledger) -> None:
    told: list[str] = []
    transfer(ledger, PLAN, FIRST, told.append)
    assert told == STEPS


@SOME_OR_EACH
def test_no_alert_is_lost_or_doubled_by_a_kill_after_any_change(
    object_store: ObjectStore, store_url: str, every: int
) -> None:
    for after in count(1, every):
        ledger = make_ledger(locate(f"{store_url}-{after}"), PLAN)
        killed = run_on_store(object_store, killed_after, after, transfer, ledger, PLAN, FIRST) == -signal.SIGKILL
        assert_only_committed_is_seen(ledger, PLAN)
        if not killed:
            break
        # The resume is killed as well, somewhere in its course.
        run_on_store(object_store, killed_after, 1 + 7 * after % 40, _resume, ledger)
        assert_only_committed_is_seen(ledger, PLAN)
        _resume(ledger)
        _assert_whole(ledger)
    assert after > 12


def _transfer_in_parts(ledger: Ledger) -> None:
    """Transfer a range whose files have three parts each, all of them at once."""
    uploads._FIRST = 16
    footer = Origin.footer
    Origin.footer = lambda origin: {**footer(origin), "padding": "x" * (2 * PART_BYTES + 1)}  # type: ignore[method-assign]
    transfer(ledger, PLAN, FIRST)


@pytest.mark.parametrize(
    "requests", [pytest.param(1, marks=pytest.mark.kills), 4, pytest.param(8, marks=pytest.mark.kills)]
)
def test_a_kill_while_several_files_are_sent_in_parts_loses_and_doubles_nothing_and_leaves_nothing_behind(
    object_store: ObjectStore, ledger: Ledger, requests: int
) -> None:
    transfer(ledger, PLAN, SECOND)
    under_way, is_dead = threading.Semaphore(0), threading.Event()
    passing = count()

    def rule(method: str, path: str, _: Mapping[str, str]) -> Any:
        if "uploadId=" not in path:
            return "pass"
        if next(passing) < requests:
            return "pass"
        under_way.release()
        is_dead.wait(PATIENCE_S)
        return "reset"

    object_store.wire.rule = rule
    ours = set(object_store.wire.connections)
    child = start(in_environment, object_store.environment, _transfer_in_parts, ledger)
    for _ in range(3):  # several requests are held back at once
        assert under_way.acquire(timeout=PATIENCE_S)
    child.kill()
    child.join(PATIENCE_S)
    is_dead.set()
    object_store.wire.wait_until_left(ours)
    object_store.wire.mend()
    staging = f"{ledger.path.key}/staging/"  # type: ignore[attr-defined]
    assert object_store.uploads(staging) != []
    assert_only_committed_is_seen(ledger, PLAN)
    _resume(ledger)
    _assert_whole(ledger)
    assert object_store.uploads(staging) == []


def test_of_two_attempts_at_once_one_is_in_the_dataset(ledger: Ledger) -> None:
    for _ in range(5):
        _race(ledger)


def _race(ledger: Ledger) -> None:
    attempts = [Attempt(ledger, FIRST, PLAN.plan_id, lambda _: None) for _ in range(4)]
    for attempt in attempts:
        attempt.begin()
    markers = [stage_range(attempt, PLAN, FIRST) for attempt in attempts]
    together = Barrier(len(attempts))

    def commit(number: int) -> str:
        together.wait()
        won = attempts[number].commit(markers[number])
        publish(ledger, won, lambda _: None)
        attempts[number].clean_up()
        return won.attempt

    with ThreadPoolExecutor(len(attempts)) as pool:
        winners = set(pool.map(commit, range(len(attempts))))
    assert len(winners) == 1
    assert ledger.staged() == []
    assert read_places(ledger) == places(make_plan([FIRST]))
    ledger.marker_path(FIRST).unlink()
    ledger.outdir.delete_below()


def test_a_late_attempt_can_not_win_after_its_range_was_transferred_again(ledger: Ledger) -> None:
    late = Attempt(ledger, FIRST, PLAN.plan_id, lambda _: None)
    late.begin()
    marker = stage_range(late, PLAN, FIRST)
    roll_forward(ledger, ledger.plans())
    assert late.directory in ledger.staged(), "what an attempt that may still run has staged was removed"
    _resume(ledger)
    assert ledger.staged() == []
    with pytest.raises(LedgerError, match="gone"):
        late.commit(marker)
    late.clean_up()
    _assert_whole(ledger)


def test_a_late_attempt_that_is_about_to_put_its_marker_is_beaten(ledger: Ledger) -> None:
    late = Attempt(ledger, FIRST, PLAN.plan_id, lambda name: _resume(ledger) if name == "staged" else None)
    late.begin()
    with pytest.raises(LedgerError, match="gone"):
        late.commit(stage_range(late, PLAN, FIRST))
    late.clean_up()
    _resume(ledger)
    _assert_whole(ledger)


def test_an_attempt_that_a_roll_forward_takes_over_wins_with_it(ledger: Ledger) -> None:
    late = Attempt(ledger, FIRST, PLAN.plan_id, lambda name: _resume(ledger) if name == "marked" else None)
    late.begin()
    won = late.commit(stage_range(late, PLAN, FIRST))
    assert won.attempt == late.name
    assert is_published(ledger, won)
    publish(ledger, won, lambda _: None)
    late.clean_up()
    _assert_whole(ledger)


def test_an_attempt_that_fails_when_it_is_ready_leaves_its_files_to_whoever_commits_it(
    ledger: Ledger,
) -> None:
    def fail(name: str) -> None:
        if name == "marked":
            raise StorageError("the store is away")

    late = Attempt(ledger, FIRST, PLAN.plan_id, fail)
    late.begin()
    with pytest.raises(StorageError):
        late.commit(stage_range(late, PLAN, FIRST))
    late.clean_up()
    assert roll_forward(ledger, ledger.plans()) == 1
    transfer(ledger, PLAN, SECOND)
    _assert_whole(ledger)


@pytest.mark.parametrize("fate", ["lost", "reset", "500", "503", "slow"])
@pytest.mark.parametrize("method", ["PUT", "GET", "HEAD", "DELETE"])
def test_every_second_request_that_goes_wrong_changes_nothing(
    object_store: ObjectStore, ledger: Ledger, method: str, fate: Any
) -> None:
    seen: dict[str, int] = {}

    def rule(verb: str, path: str, _: Mapping[str, str]) -> Any:
        # Each thing that is asked for goes wrong the first time; of what takes long, some things do.
        seen[verb + path] = seen.get(verb + path, 0) + 1
        is_meant = verb == method and seen[verb + path] == 1
        return fate if is_meant and (fate != "slow" or len(seen) % 8 == 0) else "pass"

    object_store.wire.rule = rule
    _resume(ledger)
    object_store.wire.mend()
    _assert_whole(ledger)


def test_a_marker_whose_answer_is_lost_is_a_win(object_store: ObjectStore, ledger: Ledger) -> None:
    lost: list[str] = []

    def rule(method: str, path: str, headers: Mapping[str, str]) -> Any:
        is_marker = method == "PUT" and "/markers/" in path and path not in lost
        if is_marker:
            lost.append(path)
        return "lost" if is_marker else "pass"

    object_store.wire.rule = rule
    _resume(ledger)
    assert len(lost) == 2
    object_store.wire.mend()
    _assert_whole(ledger)


def test_a_store_that_goes_away_after_the_marker_was_put_loses_nothing(
    object_store: ObjectStore, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_module.Bucket, "patience_s", 0.5)
    bucket_module.open_bucket.cache_clear()
    gone: list[str] = []

    def rule(method: str, path: str, _: Mapping[str, str]) -> Any:
        if method == "PUT" and "/markers/" in path and not gone:
            gone.append(path)
            return "lost"
        return "reset" if gone else "pass"

    object_store.wire.rule = rule
    with pytest.raises(StorageError, match="answer"):
        transfer(ledger, PLAN, FIRST)
    object_store.wire.mend()
    assert ledger.marker(FIRST, PLAN.plan_id) is not None
    assert missing_files(ledger, ledger.markers([PLAN])) == [], "what is staged is not lost"
    _resume(ledger)
    _assert_whole(ledger)


def test_an_attempt_of_another_plan_cannot_begin(ledger: Ledger) -> None:
    before = make_plan([FIRST])
    with pytest.raises(LedgerError, match=before.plan_id):
        transfer(ledger, before, FIRST)
    _resume(ledger)
    _assert_whole(ledger)


def test_an_attempt_commits_nothing_into_a_ledger_that_was_removed(ledger: Ledger) -> None:
    late = Attempt(ledger, FIRST, PLAN.plan_id, lambda _: None)
    late.begin()
    marker = stage_range(late, PLAN, FIRST)
    ledger.path.delete_below()
    make_ledger(ledger.outdir, make_plan([FIRST]))
    with pytest.raises(LedgerError, match="gone"):
        late.commit(marker)
    assert list(ledger.markers([make_plan([FIRST])])) == []


def test_what_is_removed_from_the_dataset_is_listed(ledger: Ledger) -> None:
    _resume(ledger)
    marker = ledger.marker(FIRST, PLAN.plan_id)
    assert marker is not None
    removed, shortened, *_ = [ledger.outdir / file.path for file in marker.files]
    removed.unlink()
    shortened.write_bytes(b"x")
    assert missing_files(ledger, ledger.markers([PLAN])) == [removed, shortened]
    found = verify_dataset(ledger)
    assert len(found.problems) == 2
    (ledger.outdir / "class=other" / "mine.parquet").write_bytes(b"x")
    assert verify_dataset(ledger).foreign == (ledger.outdir / "class=other" / "mine.parquet",)


def test_nothing_is_left_on_this_host(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    _resume(ledger)
    assert list(tmp_path.iterdir()) == []
    assert not Path("s3:").exists()
    assert BUCKET in str(ledger.outdir)


def _revise_and_die(ledger: Ledger, changes: int) -> None:
    killed_after(changes, revise, ledger, PLAN, FIRST)


@SOME_OR_EACH
def test_a_change_of_a_range_that_is_killed_after_any_change_to_the_store_counts_once(
    object_store: ObjectStore, store_url: str, every: int
) -> None:
    for after in count(1, every):
        ledger = make_ledger(locate(f"{store_url}-{after}"), PLAN)
        for offset_range in PLAN.ranges:
            transfer(ledger, PLAN, offset_range)
        killed = run_on_store(object_store, _revise_and_die, ledger, after) == -signal.SIGKILL
        roll_forward(ledger, ledger.plans())
        assert read_places(ledger) == places(PLAN)
        revise(ledger, PLAN, FIRST)
        roll_forward(ledger, ledger.plans())
        _assert_whole(ledger)
        if not killed:
            break
    assert after > 12
