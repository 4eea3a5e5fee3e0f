"""Files that were copied elsewhere are handed over: no alert is lost, asked for again, or there twice by that."""

from __future__ import annotations

import json
import signal
from itertools import count
from pathlib import Path

import pytest

from fink_dask.dataset.handover import files_to_hand_over, hand_over
from fink_dask.dataset.presence import check_files
from fink_dask.dataset.read import open_dataset
from fink_dask.errors import LedgerError, SettingsError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.commit import Attempt, roll_forward
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.records import Plan
from fink_dask.ledger.summary import summarise
from fink_dask.store.location import locate
from fink_dask.verifying.files import verify_dataset
from tests.harness.cli import run_cli
from tests.harness.crash import run_until
from tests.harness.ledgers import (
    copy_of,
    files_below,
    make_plan,
    make_whole,
    places,
    read_places,
    revise,
    stage_range,
    transfer,
)
from tests.harness.object_store import ObjectStore
from tests.harness.store_crash import SOME_OR_EACH_CHANGE, killed_after, run_on_store

FIRST, SECOND = OffsetRange(0, 0, 25), OffsetRange(3, 100, 130)
PLAN = make_plan([FIRST, SECOND])
#: Of as many intervals as alerts that a condition has picked are.
SCATTERED = OffsetRange(0, 0, 1000)
OF_SECOND = [place for place in places(PLAN) if place[0] == 3]


def _names(ledger: Ledger, offset_range: OffsetRange) -> list[str]:
    return [file.path for marker, file in files_to_hand_over(ledger) if marker.range == offset_range]


def _all_names(ledger: Ledger) -> list[str]:
    return [file.path for _, file in files_to_hand_over(ledger)]


def _hand_over(ledger: Ledger, names: list[str]) -> None:
    hand_over({ledger: names})


def _roll(ledger: Ledger) -> None:
    roll_forward(ledger, ledger.plans())


def _assert_first_is_handed_over(ledger: Ledger, plan: Plan = PLAN) -> None:
    summary = summarise(ledger).summary
    assert (summary.alerts, summary.transferred) == (len(OF_SECOND), len(places(plan)))
    assert summary.state == "partial", "what is in quarantine is still there"
    assert ledger.staged() == []
    assert verify_dataset(ledger).problems == ()
    check_files(ledger, [plan], list(ledger.markers([plan])))


def test_what_was_handed_over_is_gone_and_accounted_for(tmp_path: Path) -> None:
    ledger = make_whole(tmp_path / "alerts", [PLAN])
    names = _names(ledger, FIRST)
    done = hand_over({ledger: names})
    assert (done.ranges, done.files) == (1, len(names))
    assert read_places(ledger) == OF_SECOND
    assert open_dataset(ledger.outdir).count_rows() == len(OF_SECOND)
    _assert_first_is_handed_over(ledger)
    (marker,) = [marker for marker in ledger.markers([PLAN]) if marker.range == FIRST]
    handed = [(0, offset) for start, end in marker.handed_over for offset in range(start, end)]
    assert sorted(handed + OF_SECOND) == places(PLAN)
    assert _names(ledger, FIRST) == []
    assert hand_over({ledger: names}).ranges == 0, "a list that is given once more"


def test_a_range_is_handed_over_whole_and_only_by_its_own_names(tmp_path: Path) -> None:
    ledger = make_whole(tmp_path / "alerts", [PLAN])
    first, *others = _names(ledger, FIRST)
    for names, named in (([first], others[0]), (["class=x/part-1.parquet"], "part-1")):
        with pytest.raises(SettingsError, match=named):
            hand_over({ledger: names})
    assert read_places(ledger) == places(PLAN)


def test_files_of_several_topics_are_handed_over_by_one_list(tmp_path: Path) -> None:
    season = tmp_path / "season"
    ledgers = [make_whole(season / name, [PLAN]) for name in ("one", "other")]
    names = run_cli("hand-over", str(season)).stdout.splitlines()
    assert sorted(names) == sorted(f"{each.outdir.name}/{name}" for each in ledgers for name in _all_names(each))
    (tmp_path / "list").write_text("\n".join([*names, "other/part-1.parquet"]))
    assert run_cli("hand-over", str(season), "--copied", str(tmp_path / "list")).returncode == 2
    assert [read_places(each) for each in ledgers] == [places(PLAN)] * 2, "what is refused was done in part"
    kept = {f"other/{name}" for name in _names(ledgers[1], SECOND)}
    (tmp_path / "list").write_text("\n".join(name for name in names if name not in kept))
    done = run_cli("hand-over", str(season), "--copied", str(tmp_path / "list"), "--json")
    assert (done.returncode, json.loads(done.stdout)["ranges"]) == (0, 3), done.stderr
    assert [read_places(each) for each in ledgers] == [[], OF_SECOND]
    table = run_cli("status", str(season)).stdout.splitlines()
    assert "handed over" in table[0], "it looks as if there had been fewer alerts"
    assert f"{2 * len(places(PLAN)) - len(OF_SECOND)}" in table[3]
    for strange in ("nobody/part-1.parquet", "part-1.parquet", "other/part-1.parquet"):
        (tmp_path / "list").write_text(strange)
        refused = run_cli("hand-over", str(season), "--copied", str(tmp_path / "list"))
        assert (refused.returncode, "part-1.parquet" in refused.stderr) == (2, True)
    assert {run_cli("verify", str(each.outdir)).returncode for each in ledgers} == {3}, "some are in quarantine"


def test_a_topic_that_is_damaged_does_not_keep_the_files_of_the_others(tmp_path: Path) -> None:
    season = tmp_path / "season"
    damaged, other = (make_whole(season / name, [PLAN]) for name in ("damaged", "other"))
    damaged.marker_path(FIRST).write_bytes(b"")
    listed = run_cli("hand-over", str(season))
    assert listed.stdout.splitlines() == [f"other/{name}" for name in _all_names(other)]
    assert (listed.returncode, str(damaged.marker_path(FIRST)) in listed.stderr) == (1, True)
    content = json.loads(run_cli("hand-over", str(season), "--json").stdout)
    assert (content["state"], len(content["files"])) == ("failed", len(_all_names(other)))


def test_files_that_were_moved_away_already_are_handed_over(tmp_path: Path) -> None:
    plan = make_plan([OffsetRange(0, 0, 7)])
    ledger = make_whole(tmp_path / "alerts", [plan])
    names = _names(ledger, plan.ranges[0])
    for name in names:
        (ledger.outdir / name).unlink()
    with pytest.raises(LedgerError, match="missing"):
        check_files(ledger, [plan], list(ledger.markers([plan])))
    hand_over({ledger: names})
    check_files(ledger, [plan], list(ledger.markers([plan])))
    assert summarise(ledger).summary.state == "complete"


def test_a_transfer_that_ends_meanwhile_misses_only_files_that_nobody_has_handed_over(tmp_path: Path) -> None:
    ledger = make_whole(tmp_path / "alerts", [PLAN])
    markers = ledger.markers([PLAN])
    hand_over({ledger: _names(ledger, FIRST)})
    check_files(ledger, [PLAN], markers)
    (ledger.outdir / _names(ledger, SECOND)[0]).unlink()
    with pytest.raises(LedgerError, match="1 file"):
        check_files(ledger, [PLAN], markers)


@pytest.mark.parametrize(("first", "every"), [(FIRST, 1), (SCATTERED, 4)], ids=["a list", "packed"])
def test_no_alert_is_lost_or_doubled_by_a_kill_after_any_operation_of_a_hand_over(
    tmp_path: Path, first: OffsetRange, every: int
) -> None:
    plan = make_plan([first, SECOND])
    whole = make_whole(tmp_path / "whole", [plan])
    for after in count(1, every):
        ledger = copy_of(whole.outdir, tmp_path / str(after))
        names = _names(ledger, first)
        killed = run_until(after, _hand_over, ledger, names)
        assert set(OF_SECOND) <= set(read_places(ledger)) <= set(places(plan))
        if not killed:
            break
        if after % 2:
            run_until(1 + 7 * after % 20, _roll, ledger)  # as a transfer that begins meanwhile
            _roll(ledger)
        hand_over({ledger: names})
        assert read_places(ledger) == OF_SECOND
        _roll(ledger)
        _assert_first_is_handed_over(ledger, plan)
    assert after > 10


def test_the_offsets_of_scattered_alerts_take_little_room_and_are_known_each(tmp_path: Path) -> None:
    plan = make_plan([SCATTERED])
    ledger = make_whole(tmp_path / "alerts", [plan])
    hand_over({ledger: _names(ledger, SCATTERED)})
    (marker,) = ledger.markers([plan])
    handed = [(0, offset) for start, end in marker.handed_over for offset in range(start, end)]
    assert handed == places(plan)
    assert ledger.marker_path(SCATTERED, 1).stat().st_size < 5000, "of a night it would be megabytes"


@SOME_OR_EACH_CHANGE
def test_no_alert_is_lost_or_doubled_by_a_kill_after_any_change_of_a_hand_over_on_a_store(
    object_store: ObjectStore, store_url: str, first: int, every: int
) -> None:
    for after in count(first, every):
        ledger = make_whole(locate(f"{store_url}-{after}"), [PLAN])
        names = _names(ledger, FIRST)
        killed = run_on_store(object_store, killed_after, after, _hand_over, ledger, names) == -signal.SIGKILL
        if after % 2:
            _roll(ledger)
        hand_over({ledger: names})
        _roll(ledger)
        _assert_first_is_handed_over(ledger)
        left = {path.relative_to(ledger.outdir).as_posix() for path in ledger.outdir.rglob("*")}
        assert left == set(_names(ledger, SECOND))
        if not killed:
            break


def test_of_a_hand_over_and_another_change_at_once_one_counts(tmp_path: Path) -> None:
    ledger = make_whole(tmp_path / "alerts", [PLAN])
    names = _names(ledger, FIRST)
    late = Attempt(ledger, FIRST, PLAN.plan_id, lambda _: None, revision=1)
    late.begin()
    marker = stage_range(late, PLAN, FIRST)
    hand_over({ledger: names})
    with pytest.raises(LedgerError, match="meanwhile"):
        late.supersede(marker)
    late.clean_up()
    _assert_first_is_handed_over(ledger)


def test_what_a_repair_has_replaced_is_handed_over_by_its_new_names(tmp_path: Path) -> None:
    ledger = make_whole(tmp_path / "alerts", [PLAN])
    names = _names(ledger, FIRST)
    revise(ledger, PLAN, FIRST)
    repaired = _names(ledger, FIRST)
    assert not set(repaired) & set(names), "a repair has replaced them"
    with pytest.raises(SettingsError):
        hand_over({ledger: names})
    assert read_places(ledger) == places(PLAN)
    hand_over({ledger: repaired})
    _assert_first_is_handed_over(ledger)


def test_a_transfer_goes_on_over_what_was_handed_over(tmp_path: Path) -> None:
    ledger = make_whole(tmp_path / "alerts", [PLAN])
    hand_over({ledger: _names(ledger, FIRST)})
    before = {path.name for path in files_below(ledger.outdir)}
    transfer(ledger, PLAN, FIRST)
    assert {path.name for path in files_below(ledger.outdir)} == before, "it is committed"
    _assert_first_is_handed_over(ledger)
