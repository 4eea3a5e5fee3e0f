"""--restart on an object store loses nothing of the old dataset before the new one is complete, whatever is killed."""

from __future__ import annotations

import json
import signal
from itertools import count
from pathlib import Path

import pytest

from fink_dask.errors import LedgerError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.commit import Attempt, missing_files
from fink_dask.ledger.lease import hold_lease
from fink_dask.ledger.ledger import Ledger, latest
from fink_dask.ledger.outdir import create_ledger, datasets_in, find_ledger
from fink_dask.ledger.restart import complete_move, delete_old_dataset, is_begun, old_datasets, set_aside
from fink_dask.store.location import locate
from fink_dask.verifying.files import verify_dataset
from tests.harness.ledgers import SCHEMA, make_ledger, make_plan, stage_range, transfer
from tests.harness.object_store import BUCKET, ObjectStore
from tests.harness.store_crash import SOME_OR_EACH_CHANGE, killed_after, run_on_store

FIRST, SECOND = OffsetRange(0, 0, 12), OffsetRange(1, 0, 12)
PLAN, AGAIN = make_plan([FIRST, SECOND]), make_plan([OffsetRange(0, 0, 12), OffsetRange(1, 0, 30)])
#: A lease and what says how far the move is come and go.
_PASSING = ("lease-", ".lease-", ".trial", ".probe", "begun.json", "moved.json", "README.txt")


def _make_dataset(url: str) -> Ledger:
    ledger = make_ledger(locate(url), PLAN)
    transfer(ledger, PLAN, FIRST)
    # Of this range, the marker is all that was committed before a kill.
    attempt = Attempt(ledger, SECOND, PLAN.plan_id, lambda _: None)
    attempt.begin()
    attempt.commit(stage_range(attempt, PLAN, SECOND))
    return ledger


def _set_aside(ledger: Ledger) -> None:
    if complete_move(ledger) is None and is_begun(ledger):
        with hold_lease(ledger):
            set_aside(ledger)


def _go_on(outdir: Path) -> Ledger:
    """Go on as the next job does."""
    ledger = find_ledger(outdir)
    complete_move(ledger)
    return ledger


def _transfer_again(ledger: Ledger) -> None:
    create_ledger(ledger)
    ledger.freeze(AGAIN, SCHEMA)
    for offset_range in AGAIN.ranges:
        transfer(ledger, AGAIN, offset_range)


def _below(store: ObjectStore, path: Path) -> dict[str, bytes]:
    """Read what counts below a place, through the folder that the store keeps."""
    prefix = str(path).removeprefix(f"s3://{BUCKET}/") + "/"
    root = store.folder / "data" / BUCKET
    names = [name for name in store.files(prefix) if not name.rsplit("/")[-1].startswith(_PASSING)]
    return {name.removeprefix(prefix): (root / name).read_bytes() for name in names}


def _delete(ledger: Ledger) -> None:
    for old in old_datasets(ledger):
        delete_old_dataset(old)


@SOME_OR_EACH_CHANGE
def test_a_move_and_a_deletion_killed_after_any_change_to_the_store_are_completed(
    object_store: ObjectStore, store_url: str, first: int, every: int
) -> None:
    for after in count(first, every):
        ledger = _make_dataset(f"{store_url}-{after}")
        data, known = _below(object_store, ledger.outdir), _below(object_store, ledger.path)
        was_killed = run_on_store(object_store, killed_after, after, _set_aside, ledger) == -signal.SIGKILL
        # The next job is killed in completing it, too.
        run_on_store(object_store, killed_after, 1 + after % 9, _go_on, ledger.outdir)
        new = _go_on(ledger.outdir)
        if new.number:
            (old,) = old_datasets(new)
            assert (_below(object_store, old.ledger.outdir), _below(object_store, old.ledger.path)) == (data, known)
            assert missing_files(old.ledger, old.ledger.markers([PLAN])) == []
            assert _below(object_store, new.outdir) == {}
        else:
            assert was_killed, "nothing was moved"
            assert (_below(object_store, ledger.outdir), _below(object_store, ledger.path)) == (data, known)
            new = _begin_again(ledger)
        _transfer_again(new)
        run_on_store(object_store, killed_after, 1 + after % 9, _delete, new)
        _delete(new)
        found = find_ledger(ledger.outdir)
        assert found == new
        assert verify_dataset(found).problems == verify_dataset(found).foreign == ()
        assert set(_below(object_store, ledger.first_path)) == {
            f"again/{new.number:08d}/{name}" for name in _below(object_store, new.path)
        }, "something of the old dataset is left"
        if not was_killed:
            break
    assert after > 20


def _begin_again(ledger: Ledger) -> Ledger:
    with hold_lease(ledger):
        set_aside(ledger)
    return latest(ledger)


def test_an_attempt_of_the_old_dataset_that_still_runs_writes_nothing_into_the_new_one(
    object_store: ObjectStore, store_url: str
) -> None:
    ledger = make_ledger(locate(store_url), PLAN)
    late, later = (Attempt(ledger, FIRST, PLAN.plan_id, lambda _: None) for _ in range(2))
    late.begin()
    marker = stage_range(late, PLAN, FIRST)
    new = _begin_again(ledger)
    create_ledger(new)
    new.freeze(AGAIN, SCHEMA)
    before = _below(object_store, new.path), _below(object_store, new.outdir)
    with pytest.raises(LedgerError, match="gone"):
        late.commit(marker)
    with pytest.raises(LedgerError, match=PLAN.plan_id):
        later.begin()
    assert (_below(object_store, new.path), _below(object_store, new.outdir)) == before


def test_a_job_that_stood_still_while_another_one_began_again_removes_nothing_of_the_new_dataset(
    object_store: ObjectStore, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = _make_dataset(store_url)
    new = _begin_again(ledger)
    _transfer_again(new)
    _delete(new)
    monkeypatch.setattr("fink_dask.ledger.restart.check_outdir", lambda _: None)  # which it had done before
    before = _below(object_store, new.path), _below(object_store, new.outdir)
    set_aside(ledger)  # of which it thinks that it holds the lease
    _delete(new)
    assert (_below(object_store, new.path), _below(object_store, new.outdir)) == before
    assert verify_dataset(find_ledger(new.outdir)).problems == ()


def test_what_is_begun_again_twice_keeps_both_old_datasets_apart_and_is_found_in_a_season(store_url: str) -> None:
    outdir = locate(store_url) / "ftransfer_ztf_2026-02-24_1"
    ledger = find_ledger(outdir, joins=True)
    for number in range(3):
        assert (ledger.number, ledger.is_of_season) == (number, True)
        create_ledger(ledger)
        ledger.freeze(AGAIN, SCHEMA)
        transfer(ledger, AGAIN, AGAIN.ranges[0])
        ledger = find_ledger(outdir) if number == 2 else _begin_again(ledger)
    assert [old.alerts for old in old_datasets(ledger)] == [10, 10]
    assert datasets_in(outdir.parent) == [ledger]
    _delete(ledger)
    assert old_datasets(ledger) == []
    assert verify_dataset(ledger).problems == ()


def test_a_dataset_that_was_begun_again_on_a_store_is_one_also_in_a_directory(
    object_store: ObjectStore, store_url: str, tmp_path: Path
) -> None:
    new = _begin_again(_make_dataset(store_url))
    _transfer_again(new)
    _delete(new)
    for path, target in ((new.outdir, tmp_path / "alerts"), (new.first_path, tmp_path / "alerts.fink")):
        prefix = str(path).removeprefix(f"s3://{BUCKET}/") + "/"
        for name in object_store.files(prefix):
            (target / name.removeprefix(prefix)).parent.mkdir(parents=True, exist_ok=True)
            content = (object_store.folder / "data" / BUCKET / name).read_bytes()
            (target / name.removeprefix(prefix)).write_bytes(content)
    copied = find_ledger(tmp_path / "alerts")
    assert verify_dataset(copied).problems == ()
    with hold_lease(copied):
        set_aside(copied)
    (old,) = old_datasets(find_ledger(copied.outdir))
    assert old.alerts == 34
    assert not copied.outdir.exists()


@pytest.mark.parametrize("token", [b"{", b"[]", b"{}", b'{"files": 1}', b'{"files": [1]}', b'{"files": ["../x"]}'])
def test_a_hostile_token_moves_nothing(store_url: str, token: bytes) -> None:
    ledger = make_ledger(locate(store_url), PLAN)
    new = Ledger(ledger.outdir, number=1)
    (new.path / "begun.json").write_bytes(token)
    with pytest.raises(LedgerError, match="is damaged"):
        complete_move(new)
    assert ledger.exists()


def test_a_token_lists_what_is_there(store_url: str) -> None:
    ledger = _make_dataset(store_url)
    marker = ledger.marker(FIRST, PLAN.plan_id)
    assert marker is not None
    new = _begin_again(ledger)
    files = json.loads((new.path / "begun.json").read_bytes())["files"]
    assert sorted(files) == sorted(file.path for file in marker.files)
