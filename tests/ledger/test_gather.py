"""A dataset of a season has one ledger at any moment, wherever it is, and no second job begins with another one."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from fink_dask.errors import FinkDaskError, LedgerError, SettingsError, StorageError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.lease import hold_lease
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.outdir import check_outdir, create_ledger, datasets_in, find_ledger, gather_ledgers
from fink_dask.ledger.restart import complete_move, old_datasets, set_aside
from fink_dask.verifying.files import verify_dataset
from tests.harness.crash import run_until
from tests.harness.ledgers import SCHEMA, files_below, make_ledger, make_plan, transfer

RANGE = OffsetRange(0, 0, 12)
PLAN = make_plan([RANGE])


def _make_dataset(ledger: Ledger) -> Ledger:
    create_ledger(ledger)
    ledger.freeze(PLAN, SCHEMA)
    transfer(ledger, PLAN, RANGE)
    return ledger


def _set_aside(ledger: Ledger) -> None:
    with hold_lease(ledger):
        set_aside(ledger)


def test_a_gathering_killed_after_any_operation_leaves_each_dataset_whole_and_is_completed(tmp_path: Path) -> None:
    for after in count(1):
        season = tmp_path / str(after) / "nights"
        for name in ("a", "b"):
            _make_dataset(Ledger(season / name))
        killed = run_until(after, gather_ledgers, season)
        found = datasets_in(season)
        assert [ledger.outdir.name for ledger in found] == ["a", "b"]
        assert [find_ledger(ledger.outdir) for ledger in found] == found
        gathered, _ = gather_ledgers(season)
        assert all(ledger.is_of_season and not verify_dataset(ledger).problems for ledger in gathered)
        assert {path.suffix for path in files_below(season)} == {".parquet"}
        assert gather_ledgers(season) == (gathered, 0)
        if not killed:
            break
    assert after > 8


def test_the_ledgers_of_new_topics_are_beside_the_season_and_old_ones_are_found_where_they_are(tmp_path: Path) -> None:
    season = tmp_path / "nights"
    assert find_ledger(season / "a") == Ledger(season / "a")
    new = _make_dataset(find_ledger(season / "b", joins=True))
    assert new.path == tmp_path / "nights.fink" / "b"
    old = _make_dataset(Ledger(season / "a"))
    assert datasets_in(season) == [old, new]
    assert find_ledger(season / "a", joins=True) == old
    assert find_ledger(season / "c") == Ledger(season / "c", is_of_season=True)
    assert find_ledger(season) == Ledger(season)
    assert not find_ledger(season).exists()


def test_of_two_jobs_that_chose_another_place_for_the_ledger_one_is_refused(tmp_path: Path) -> None:
    season = tmp_path / "nights"
    beside, of_season = Ledger(season / "a"), Ledger(season / "a", is_of_season=True)
    create_ledger(beside)
    create_ledger(of_season)
    for first, second in ((beside, of_season), (of_season, beside)):
        with hold_lease(first), pytest.raises(LedgerError, match="two ledgers"), hold_lease(second):
            pytest.fail("both write the same dataset")
    beside.freeze(PLAN, SCHEMA)
    with pytest.raises(LedgerError, match="two ledgers"), hold_lease(of_season):
        pytest.fail("a dataset has a second plan")
    with pytest.raises(FinkDaskError):
        gather_ledgers(season)  # what is in the way is not removed


def test_a_ledger_at_work_stays_where_it_is(tmp_path: Path) -> None:
    ledger = _make_dataset(Ledger(tmp_path / "nights" / "a"))
    with hold_lease(ledger), pytest.raises(LedgerError, match="running"):
        gather_ledgers(tmp_path / "nights")
    assert ledger.exists()


def test_there_must_be_a_season_to_gather(tmp_path: Path) -> None:
    make_ledger(tmp_path / "alerts", PLAN)
    with pytest.raises(SettingsError, match="one topic"):
        gather_ledgers(tmp_path / "alerts")
    with pytest.raises(SettingsError, match="no datasets"):
        gather_ledgers(tmp_path / "nothing")


def test_no_dataset_is_put_among_the_ledgers_of_a_season(tmp_path: Path) -> None:
    _make_dataset(Ledger(tmp_path / "nights" / "a", is_of_season=True))
    for inside in ("nights.fink/more", "nights/a/more", "nights/deep/down"):
        with pytest.raises(StorageError, match="is inside"):
            check_outdir(Ledger(tmp_path / inside))


def test_a_restart_in_a_season_killed_after_any_operation_is_completed(tmp_path: Path) -> None:
    for after in count(1):
        ledger = _make_dataset(Ledger(tmp_path / str(after) / "nights" / "a", is_of_season=True))
        data = {path.name for path in files_below(ledger.outdir)}
        killed = run_until(after, _set_aside, ledger)
        complete_move(ledger)
        if ledger.path.exists():
            assert killed
            assert {path.name for path in files_below(ledger.outdir)} == data
        else:
            (old,) = old_datasets(ledger)
            assert {path.name for path in files_below(old.ledger.outdir)} == data
            assert not verify_dataset(old.ledger).problems
            assert datasets_in(ledger.outdir.parent) == []
        if not killed:
            break
    assert after > 10
