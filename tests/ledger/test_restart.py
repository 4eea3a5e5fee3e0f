"""--restart loses nothing of the old dataset before the new one is complete, whatever is killed."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from fink_dask.errors import LedgerError, StorageError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.lease import hold_lease
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.restart import complete_move, delete_old_dataset, old_datasets, set_aside
from tests.harness.crash import run_until
from tests.harness.ledgers import files_below, make_ledger, make_plan, transfer

RANGE = OffsetRange(0, 0, 12)
PLAN = make_plan([RANGE])
NAMES = ["alerts", "a [b]*?{c}", "with spaces ", "été☃", "-rf", "100%25", "alerts.fink"]


def _make_dataset(outdir: Path) -> Ledger:
    ledger = make_ledger(outdir, PLAN)
    transfer(ledger, PLAN, RANGE)
    return ledger


def _set_aside(ledger: Ledger) -> None:
    with hold_lease(ledger):
        set_aside(ledger)


def _contents(directory: Path) -> dict[str, bytes]:
    """Read what counts below a directory: the lease and the token come and go."""
    paths = [path for path in files_below(directory) if not path.name.startswith((".", "lease-", "restart"))]
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


@pytest.mark.parametrize("name", NAMES)
def test_dataset_and_ledger_are_moved_together_and_deleted_at_the_end(tmp_path: Path, name: str) -> None:
    ledger = _make_dataset(tmp_path / name)
    bystander = _make_dataset(tmp_path / f"{name}2")
    data, known = _contents(ledger.outdir), _contents(ledger.path)
    _set_aside(ledger)
    (old,) = old_datasets(ledger)
    assert (_contents(old.ledger.outdir), _contents(old.ledger.path)) == (data, known)
    assert old.alerts == 10  # of twelve offsets, two hold no alert
    assert not ledger.outdir.exists()
    assert not ledger.path.exists()
    _make_dataset(ledger.outdir)
    assert complete_move(ledger) is None
    _delete(ledger)
    assert old_datasets(ledger) == []
    assert sorted(tmp_path.iterdir()) == sorted([ledger.outdir, ledger.path, bystander.outdir, bystander.path])
    assert _contents(bystander.outdir)


def test_a_move_killed_after_any_operation_is_completed(tmp_path: Path) -> None:
    for after in count(1):
        ledger = _make_dataset(tmp_path / str(after) / "alerts")
        data, known = _contents(ledger.outdir), _contents(ledger.path)
        killed = run_until(after, _set_aside, ledger)
        # The next job is killed in completing it, too.
        run_until(1 + after % 6, complete_move, ledger)
        complete_move(ledger)
        if not ledger.path.exists():
            (old,) = old_datasets(ledger)
            assert (_contents(old.ledger.outdir), _contents(old.ledger.path)) == (data, known)
            assert not ledger.outdir.exists()
        else:
            assert killed, "nothing was moved"
            assert (_contents(ledger.outdir), _contents(ledger.path)) == (data, known)
        if not killed:
            break
    assert after > 10


def _delete(ledger: Ledger) -> None:
    for old in old_datasets(ledger):
        delete_old_dataset(old)


def test_an_old_dataset_whose_ledger_cannot_be_read_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    ledger = _make_dataset(tmp_path / "alerts")
    _set_aside(ledger)
    (old,) = old_datasets(ledger)
    (marker,) = old.ledger.markers_path.iterdir()
    marker.write_text("torn")
    assert old.alerts is None


def test_a_deletion_killed_after_any_operation_is_completed(tmp_path: Path) -> None:
    for after in count(1):
        ledger = _make_dataset(tmp_path / str(after) / "alerts")
        _set_aside(ledger)
        killed = run_until(after, _delete, ledger)
        _delete(ledger)
        assert list((tmp_path / str(after)).iterdir()) == []
        if not killed:
            break
    assert after > 5


def test_what_cannot_be_deleted_yet_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = _make_dataset(tmp_path / "alerts")
    _set_aside(ledger)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda path, ignore_errors: None)
        _delete(ledger)
        assert len(old_datasets(ledger)) == 1
    _delete(ledger)
    assert old_datasets(ledger) == []


def test_a_file_of_the_users_is_neither_moved_nor_deleted(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path / "alerts")
    (ledger.outdir / "thesis.txt").write_text("mine")
    with hold_lease(ledger), pytest.raises(StorageError, match="empty"):
        set_aside(ledger)
    (tmp_path / "alerts.fink-old-notes").mkdir()
    (tmp_path / "alerts.fink-old-notes" / "thesis.txt").write_text("mine")
    (tmp_path / "alerts.fink-old-file").write_text("mine")
    _delete(ledger)
    assert (ledger.outdir / "thesis.txt").exists()


def test_a_move_is_left_to_the_job_that_makes_it(tmp_path: Path) -> None:
    ledger = _make_dataset(tmp_path / "alerts")
    with hold_lease(ledger):
        (ledger.path / "restart.json").write_text('{"aside": "alerts.fink-old-1"}')
        with pytest.raises(LedgerError, match="is running"):
            complete_move(ledger)
    assert ledger.outdir.exists()


@pytest.mark.parametrize(
    "token",
    ["", "{", "[]", "{}", '{"aside": 1}', '{"aside": "../x"}', '{"aside": "alerts.fink-old-/../../x"}', "[" * 100_000],
)
def test_a_hostile_token_moves_nothing(tmp_path: Path, token: str) -> None:
    ledger = _make_dataset(tmp_path / "alerts")
    (ledger.path / "restart.json").write_text(token)
    with pytest.raises(LedgerError, match="is damaged"):
        complete_move(ledger)
    assert sorted(tmp_path.iterdir()) == [ledger.outdir, ledger.path]
