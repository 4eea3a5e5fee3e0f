"""A committed range is changed by a next marker of it, and no alert is ever lost or there twice by that."""

from __future__ import annotations

import hashlib
import json
import signal
from itertools import count
from pathlib import Path

import pytest

from fink_dask.dataset.presence import check_files
from fink_dask.errors import LedgerError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.commit import Attempt, roll_forward, staging_of
from fink_dask.ledger.ledger import KnownMarkers, Ledger
from fink_dask.ledger.outdir import create_ledger
from fink_dask.ledger.records import Marker
from tests.harness.crash import kill_self, run, run_until
from tests.harness.ledgers import (
    assert_whole,
    files_below,
    make_ledger,
    make_plan,
    make_whole,
    places,
    read_places,
    revise,
    stage_range,
    transfer,
)
from tests.harness.powercut import Recorder, after_power_cut

FIRST, SECOND = OffsetRange(0, 0, 25), OffsetRange(3, 100, 130)
PLAN = make_plan([FIRST, SECOND])


def _whole(outdir: Path) -> Ledger:
    return make_whole(outdir, [PLAN])


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return _whole(tmp_path / "alerts")


def _revise(ledger: Ledger) -> None:
    revise(ledger, PLAN, FIRST)


def _resume(ledger: Ledger) -> None:
    create_ledger(ledger)
    roll_forward(ledger, ledger.plans())


def test_the_last_revision_counts_and_the_files_of_the_one_before_are_gone(ledger: Ledger) -> None:
    before = {path.name for path in files_below(ledger.outdir)}
    revise(ledger, PLAN, FIRST)
    revise(ledger, PLAN, FIRST)
    assert_whole(ledger, PLAN)
    markers = {marker.range: marker for marker in ledger.markers([PLAN])}
    assert [markers[FIRST].revision, markers[SECOND].revision] == [2, 0]
    after = {path.name for path in files_below(ledger.outdir)}
    assert after - before == {file.path.rpartition("/")[2] for file in markers[FIRST].files}
    quarantined = sorted(path.name for path in (ledger.path / "quarantine").iterdir())
    assert len(quarantined) == 2, "one file a range"


def test_no_alert_is_lost_or_doubled_by_a_kill_after_any_operation_of_a_revision(tmp_path: Path) -> None:
    for after in count(1):
        ledger = _whole(tmp_path / str(after))
        killed = run_until(after, _revise, ledger)
        assert set(read_places(ledger)) == set(places(PLAN)), "an alert is absent for a while"
        if not killed:
            break
        run_until(1 + 7 * after % 20, _resume, ledger)
        assert set(read_places(ledger)) == set(places(PLAN))
        _resume(ledger)
        assert_whole(ledger, PLAN)
    assert after > 20


def test_of_two_revisions_at_once_one_counts(ledger: Ledger) -> None:
    late = Attempt(ledger, FIRST, PLAN.plan_id, lambda _: None, revision=1)
    late.begin()
    marker = stage_range(late, PLAN, FIRST)
    won = revise(ledger, PLAN, FIRST)
    assert late.commit(marker) == won
    late.clean_up()
    assert_whole(ledger, PLAN)


def test_a_killed_revision_over_a_damaged_marker_is_completed(ledger: Ledger) -> None:
    assert run(_revise_and_die, ledger) == -signal.SIGKILL
    assert ledger.staged() != []
    ledger.marker_path(FIRST).write_text("{")
    _resume(ledger)
    assert_whole(ledger, PLAN)


def test_what_is_staged_for_a_range_whose_last_marker_is_damaged_is_kept(ledger: Ledger) -> None:
    assert run(_revise_and_die, ledger) == -signal.SIGKILL
    ledger.marker_path(FIRST, 1).write_text("{")
    staged = [path.name for directory in ledger.staged() for path in directory.iterdir()]
    _resume(ledger)
    assert [path.name for directory in ledger.staged() for path in directory.iterdir()] == staged
    with pytest.raises(LedgerError, match="damaged"):
        check_files(ledger, [PLAN], list(ledger.markers([PLAN])))


def test_who_knows_the_markers_of_before_misses_neither_a_range_nor_a_revision(tmp_path: Path) -> None:
    ledger, known = make_ledger(tmp_path / "alerts", PLAN), KnownMarkers()
    assert list(ledger.markers([PLAN], known=known)) == []
    transfer(ledger, PLAN, FIRST)
    assert list(ledger.markers([PLAN], known=known)) == list(ledger.markers([PLAN])) != []
    transfer(ledger, PLAN, SECOND)
    revise(ledger, PLAN, FIRST)
    now = list(ledger.markers([PLAN], known=known))
    assert [marker.revision for marker in now] == [1, 0]
    ledger.marker_path(FIRST, 1).write_text("{")
    assert list(ledger.markers([PLAN], known=known)) == now, "none of these is read again"


def test_a_changed_range_whose_markers_are_gone_is_not_taken_for_one_that_was_never_read(ledger: Ledger) -> None:
    revise(ledger, PLAN, FIRST)
    for revision in (0, 1):
        ledger.marker_path(FIRST, revision).unlink()
    with pytest.raises(LedgerError, match=rf"{FIRST.name}\.json"):  # read again, its alerts would be there twice
        check_files(ledger, [PLAN], list(ledger.markers([PLAN])))


def test_a_marker_under_the_name_of_another_revision_is_refused(ledger: Ledger) -> None:
    ledger.marker_path(FIRST, 1).write_bytes(ledger.marker_path(FIRST).read_bytes())
    with pytest.raises(LedgerError, match="revision 0"):
        list(ledger.markers([PLAN]))


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "quarantine/../../x", ""])
def test_a_marker_removes_no_file_outside_the_dataset(ledger: Ledger, name: str) -> None:
    content = json.loads(ledger.marker_path(FIRST).read_bytes())["marker"]
    with pytest.raises(LedgerError, match="outside"):
        Marker.from_json(content | {"superseded": [name]})


def test_no_power_cut_in_a_revision_loses_or_doubles_an_alert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = _whole(tmp_path / "alerts")
    first = ledger.marker(FIRST, PLAN.plan_id)
    assert first is not None
    contents = {path: path.read_bytes() for path in [*files_below(ledger.outdir), *files_below(ledger.path)]}
    recorder = Recorder(tmp_path)
    recorder.attach(monkeypatch)
    second = revise(ledger, PLAN, FIRST)
    recorder.note()
    monkeypatch.undo()
    for eager in (False, True):
        disks = after_power_cut(tmp_path, recorder.events, eager)
        for disk in disks:
            content = disk.get(ledger.marker_path(FIRST, 1))
            assert content is None or content == ledger.marker_path(FIRST, 1).read_bytes()
            marker = second if content else first
            staged = staging_of(ledger, second)
            for root, file in [*((ledger.outdir, f) for f in marker.files), (ledger.path, marker.quarantine)]:
                assert file is not None
                copies = [root / file.path, staged / file.staged]
                found = [disk[path] or contents.get(path) for path in copies if path in disk]
                assert any(data and hashlib.sha256(data).hexdigest() == file.sha256 for data in found), file.path
        # At the end nothing of the revision before is there any more, whatever was cut off.
        assert not {ledger.outdir / file.path for file in first.files} & disks[-1].keys()


def _revise_and_die(ledger: Ledger) -> None:
    def step(name: str) -> None:
        if name == "renamed":
            kill_self()

    revise(ledger, PLAN, FIRST, step)
