"""Whatever an attempt has left behind is committed, published or removed, and never lost once it was committed."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from fink_dask.dataset.presence import check_files
from fink_dask.errors import LedgerError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.commit import Attempt, roll_forward
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.records import Marker, Plan, seal
from fink_dask.verifying.files import examine_dataset, verify_dataset
from fink_dask.verifying.repair import find_damage
from tests.harness.crash import kill_self, run, run_until
from tests.harness.ledgers import (
    make_ledger,
    make_plan,
    places,
    read_places,
    revise,
    stage_range,
    transfer,
    transfer_and_die,
)

FIRST, SECOND = OffsetRange(0, 0, 25), OffsetRange(3, 100, 130)
PLAN = make_plan([FIRST, SECOND])
ONLY_FIRST = places(make_plan([FIRST]))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return make_ledger(tmp_path / "alerts", PLAN)


def _roll_forward(ledger: Ledger) -> None:
    roll_forward(ledger, ledger.plans())


def _begin(ledger: Ledger, offset_range: OffsetRange, step: Callable[[str], None] = lambda _: None) -> Attempt:
    attempt = Attempt(ledger, offset_range, PLAN.plan_id, step)
    attempt.begin()
    return attempt


def _assert_first_is_whole(ledger: Ledger) -> None:
    assert read_places(ledger) == ONLY_FIRST
    assert ledger.staged() == []
    assert verify_dataset(ledger).problems == ()


@pytest.mark.parametrize("died_at", ["marked", "linked", "renamed"])
def test_no_alert_is_lost_by_a_kill_of_the_roll_forward(tmp_path: Path, died_at: str) -> None:
    for after in count(1):
        ledger = make_ledger(tmp_path / str(after), PLAN)
        assert run(transfer_and_die, ledger, PLAN, died_at) == -signal.SIGKILL
        stage_range(_begin(ledger, SECOND), PLAN, SECOND)
        killed = run_until(after, _roll_forward, ledger)
        _roll_forward(ledger)
        _assert_first_is_whole(ledger)
        if not killed:
            break
    assert after > 5


def test_a_committed_range_survives_two_plans_of_one_id(ledger: Ledger) -> None:
    assert run(transfer_and_die, ledger, PLAN, "linked") == -signal.SIGKILL
    later = make_plan([OffsetRange(0, 25, 60)], generation=2)
    later.__dict__["plan_id"] = PLAN.plan_id
    roll_forward(ledger, [PLAN, later])
    _assert_first_is_whole(ledger)


@pytest.mark.parametrize("known", [[], [make_plan([SECOND], generation=2)]])
def test_a_committed_range_is_not_removed_where_its_plan_is_unknown(ledger: Ledger, known: list[Plan]) -> None:
    assert run(transfer_and_die, ledger, PLAN, "linked") == -signal.SIGKILL
    roll_forward(ledger, known)
    assert len(ledger.staged()) == 1, "the only copy of a committed range was removed"
    _roll_forward(ledger)
    _assert_first_is_whole(ledger)


def test_a_transfer_goes_on_where_somebody_has_removed_all_that_was_staged(ledger: Ledger) -> None:
    shutil.rmtree(ledger.staging_path)
    _roll_forward(ledger)
    transfer(ledger, PLAN, FIRST)
    _assert_first_is_whole(ledger)


def test_a_committed_range_of_an_unknown_plan_does_not_hold_up_the_next_one(tmp_path: Path) -> None:
    later = next(plan for number in count(2) if (plan := make_plan([SECOND], number)).plan_id > PLAN.plan_id)
    ledger = make_ledger(tmp_path / "alerts", PLAN)
    assert run(transfer_and_die, ledger, PLAN, "linked") == -signal.SIGKILL
    (ledger.staging_path / later.plan_id).mkdir()
    attempt = Attempt(ledger, SECOND, later.plan_id, lambda _: None)
    attempt.begin()
    attempt.commit(stage_range(attempt, later, SECOND))
    assert roll_forward(ledger, [later]) == 1
    assert read_places(ledger) == places(later)


def test_what_was_removed_in_the_midst_of_publishing_is_left_to_a_repair(ledger: Ledger) -> None:
    assert run(transfer_and_die, ledger, PLAN, "renamed") == -signal.SIGKILL
    shutil.rmtree(ledger.outdir)
    _roll_forward(ledger)
    assert ledger.staged() == []
    (marker,) = ledger.markers([PLAN])
    there = [file for file in marker.files if (ledger.outdir / file.path).exists()]
    assert len(there) == len(marker.files) - 1, "what was staged still is all that there is"
    with pytest.raises(LedgerError, match=r"\b1 file\b.*fink-dask repair"):
        check_files(ledger, [PLAN], list(ledger.markers([PLAN])))


def _revise_and_die(ledger: Ledger) -> None:
    revise(ledger, PLAN, FIRST, lambda name: kill_self() if name == "linked" else None)


def test_what_a_range_did_without_stays_where_what_took_its_place_is_gone(ledger: Ledger) -> None:
    before = transfer(ledger, PLAN, FIRST)
    assert run(_revise_and_die, ledger) == -signal.SIGKILL
    (staged,) = ledger.staged()
    next(staged.glob("1-*.parquet")).unlink()
    _roll_forward(ledger)
    assert all((ledger.outdir / file.path).exists() for file in before.files), "the last copy of alerts was removed"
    damages, _ = find_damage(ledger, [PLAN], examine_dataset(ledger, lambda _: None))
    (damage,) = damages
    # The next revision takes it over, so that nothing is left that no marker names.
    assert {file.path for file in before.files} <= set(damage.remainder.superseded)


def test_a_damaged_marker_with_its_files_still_staged_is_left_to_a_repair(ledger: Ledger) -> None:
    assert run(transfer_and_die, ledger, PLAN, "linked") == -signal.SIGKILL
    ledger.marker_path(FIRST).unlink()
    ledger.marker_path(FIRST).write_text("{}")
    _roll_forward(ledger)
    damages, _ = find_damage(ledger, [PLAN], examine_dataset(ledger, lambda _: None))
    assert [damage.range for damage in damages] == [FIRST]
    with pytest.raises(LedgerError, match="marker"):
        check_files(ledger, [PLAN], list(ledger.markers([PLAN])))


def test_an_attempt_whose_directory_was_removed_commits_nothing(ledger: Ledger) -> None:
    attempt = _begin(ledger, FIRST, lambda name: _roll_forward(ledger) if name == "staged" else None)
    with pytest.raises(FileNotFoundError):
        attempt.commit(stage_range(attempt, PLAN, FIRST))
    attempt.clean_up()
    assert ledger.marker(FIRST, PLAN.plan_id) is None
    transfer(ledger, PLAN, FIRST)
    _assert_first_is_whole(ledger)


def test_an_attempt_that_is_ready_is_committed_for_it(ledger: Ledger) -> None:
    attempt = _begin(ledger, FIRST, lambda name: _roll_forward(ledger) if name == "marked" else None)
    with pytest.raises(FileNotFoundError):
        attempt.commit(stage_range(attempt, PLAN, FIRST))
    attempt.clean_up()
    _assert_first_is_whole(ledger)


def test_an_attempt_that_fails_as_it_is_committed_for_it_keeps_its_files(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:

    def roll_forward_and_die(name: str) -> None:
        if name == "marked":
            monkeypatch.setattr("fink_dask.ledger.commit.publish", _interrupt)
            with pytest.raises(KeyboardInterrupt):
                _roll_forward(ledger)
            monkeypatch.undo()
            raise MemoryError

    attempt = _begin(ledger, FIRST, roll_forward_and_die)
    with pytest.raises(MemoryError):
        attempt.commit(stage_range(attempt, PLAN, FIRST))
    attempt.clean_up()
    assert len(ledger.staged()) == 1, "the only copy of a committed range was removed"
    _roll_forward(ledger)
    _assert_first_is_whole(ledger)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _look_late(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, attempt: Attempt, marker: Marker) -> None:
    """Commit just after the roll forward has looked for the marker."""
    real, looked = Ledger.marker, []

    def look_then_commit(self: Ledger, offset_range: OffsetRange, plan_id: str, revision: int = 0) -> object:
        found = real(self, offset_range, plan_id, revision)
        if not looked:
            looked.append(offset_range)
            attempt.commit(marker)
        return found

    monkeypatch.setattr(Ledger, "marker", look_then_commit)


def test_a_commit_in_the_midst_of_a_roll_forward_keeps_its_files(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = _begin(ledger, FIRST)
    _look_late(ledger, monkeypatch, attempt, stage_range(attempt, PLAN, FIRST))
    assert roll_forward(ledger, [PLAN]) == 1
    monkeypatch.undo()
    _assert_first_is_whole(ledger)


def test_a_committed_range_is_kept_where_the_file_system_remembers_that_it_had_no_marker(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(transfer_and_die, ledger, PLAN, "linked") == -signal.SIGKILL
    monkeypatch.setattr(Ledger, "marker", lambda *_: None)  # as over NFS, for up to a minute
    assert roll_forward(ledger, [PLAN]) == 1
    monkeypatch.undo()
    _assert_first_is_whole(ledger)


def test_nothing_is_removed_while_it_is_not_known_who_won(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = [_begin(ledger, FIRST), _begin(ledger, FIRST)]
    for attempt in attempts:
        attempt.commit(stage_range(attempt, PLAN, FIRST))
    monkeypatch.setattr(Ledger, "marker", lambda *_: None)
    for _ in range(2):
        with pytest.raises(LedgerError, match="vanished"):
            roll_forward(ledger, [PLAN])
        assert ledger.staged()
    monkeypatch.undo()
    _roll_forward(ledger)
    _assert_first_is_whole(ledger)


def _tear(directory: Path, _: Marker) -> None:
    content = (directory / "marker.json").read_bytes()
    (directory / "marker.json").write_bytes(content[:-20])


def _remove_a_file(directory: Path, marker: Marker) -> None:
    (directory / marker.files[1].staged).unlink()


def _shorten_a_file(directory: Path, marker: Marker) -> None:
    (directory / marker.files[1].staged).write_bytes(b"x")


def _name_another(directory: Path, marker: Marker) -> None:
    (directory / "marker.json").write_bytes(seal("marker", replace(marker, attempt="0").to_json()))


def _name_another_plan(directory: Path, marker: Marker) -> None:
    (directory / "marker.json").write_bytes(seal("marker", replace(marker, plan_id="0").to_json()))


@pytest.mark.parametrize("spoil", [_tear, _remove_a_file, _shorten_a_file, _name_another, _name_another_plan])
def test_what_is_not_whole_is_not_committed(ledger: Ledger, spoil: Callable[[Path, Marker], None]) -> None:
    attempt = _begin(ledger, FIRST, lambda name: _interrupt() if name == "marked" else None)
    marker = stage_range(attempt, PLAN, FIRST)
    with pytest.raises(KeyboardInterrupt):
        attempt.commit(marker)
    spoil(attempt.directory, marker)
    assert roll_forward(ledger, [PLAN]) == 0
    assert ledger.staged() == []
    assert ledger.marker(FIRST, PLAN.plan_id) is None
    transfer(ledger, PLAN, FIRST)
    _assert_first_is_whole(ledger)


def test_a_ready_attempt_at_a_committed_range_is_removed(ledger: Ledger) -> None:
    late = _begin(ledger, FIRST, lambda name: _interrupt() if name == "marked" else None)
    with pytest.raises(KeyboardInterrupt):
        late.commit(stage_range(late, PLAN, FIRST))
    transfer(ledger, PLAN, FIRST)
    assert roll_forward(ledger, [PLAN]) == 0
    _assert_first_is_whole(ledger)
