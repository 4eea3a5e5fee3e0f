"""A dataset on an object store is compacted there: all of it or none, however often that was cut off."""

from __future__ import annotations

import signal
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

import fink_dask
from fink_dask.compaction.compact import Caller, compact_dataset
from fink_dask.compaction.groups import Form
from fink_dask.compaction.task import Threads
from fink_dask.compaction.workspace import Workspace, read_compaction
from fink_dask.errors import FinkDaskError, LedgerError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.commit import roll_forward
from fink_dask.ledger.lease import hold_lease
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.outdir import create_ledger
from fink_dask.store.location import locate
from fink_dask.verifying.files import verify_dataset
from tests.harness.ledgers import SCHEMA, make_plan, make_whole, places, revise, transfer
from tests.harness.object_store import BUCKET, ObjectStore
from tests.harness.store_crash import SOME_OR_EACH_CHANGE, killed_after, run_on_store

RANGES = [OffsetRange(0, 0, 25), OffsetRange(3, 100, 130)]
PLANS = [make_plan(RANGES[:1]), make_plan(RANGES[1:], 2)]
PLACES = sorted(place for plan in PLANS for place in places(plan))


def _source(outdir: Path) -> Ledger:
    return make_whole(outdir, PLANS)


def _compact(source: Ledger, target: Ledger) -> None:
    compact_dataset(source, target, Form(), Threads(1), Caller())


def _read(ledger: Ledger) -> list[tuple[int, int]]:
    """Read a dataset as users do."""
    table = fink_dask.open_dataset(str(ledger.outdir)).to_table(columns=["kafka_partition", "kafka_offset"])
    return sorted(zip(table["kafka_partition"].to_pylist(), table["kafka_offset"].to_pylist(), strict=True))


def _assert_all_or_nothing(ledger: Ledger) -> None:
    try:
        assert _read(ledger) == PLACES
    except LedgerError:
        assert not ledger.plan_path(PLANS[0]).is_file()


def _assert_whole(store: ObjectStore, ledger: Ledger) -> None:
    assert _read(ledger) == PLACES
    assert verify_dataset(ledger).problems == verify_dataset(ledger).foreign == ()
    assert store.files(str(ledger.staging_path).removeprefix(f"s3://{BUCKET}/")) == []


@SOME_OR_EACH_CHANGE
def test_no_alert_is_lost_or_doubled_by_a_kill_after_any_change_of_a_compaction_on_a_store(
    object_store: ObjectStore, store_url: str, first: int, every: int
) -> None:
    source = _source(locate(store_url))
    before = verify_dataset(source)
    for after in count(first, every):
        target = Ledger(locate(f"{store_url}-{after}"))
        killed = run_on_store(object_store, killed_after, after, _compact, source, target) == -signal.SIGKILL
        _assert_all_or_nothing(target)
        if not killed:
            break
        run_on_store(object_store, killed_after, 1 + 11 * after % 30, _compact, source, target)
        _assert_all_or_nothing(target)
        _compact(source, target)
        _assert_whole(object_store, target)
    assert after > 40
    _assert_whole(object_store, target)
    assert verify_dataset(source) == before


@pytest.mark.parametrize("where", [lambda url, folder: (url, folder), lambda url, folder: (folder, url)])
def test_a_dataset_is_compacted_from_a_store_to_a_directory_and_back(
    store_url: str, tmp_path: Path, where: Callable[[str, str], tuple[str, str]]
) -> None:
    given, wanted = (locate(place) for place in where(store_url, str(tmp_path / "alerts")))
    target = Ledger(wanted)
    _compact(_source(given), target)
    assert _read(target) == PLACES
    assert verify_dataset(target).problems == ()


def test_a_compacted_dataset_on_a_store_is_gone_on_with_and_nothing_is_left_on_this_host(
    object_store: ObjectStore, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    source, target = _source(locate(store_url)), Ledger(locate(f"{store_url}-few"))
    _compact(source, target)
    create_ledger(target)
    more = make_plan([OffsetRange(0, 25, 40)], 3)
    with hold_lease(target):
        roll_forward(target, target.plans())
        target.freeze(more, SCHEMA)
        transfer(target, more, more.ranges[0])
    revise(target, more, more.ranges[0])
    assert _read(target) == sorted(PLACES + places(more))
    assert verify_dataset(target).problems == ()
    assert list(tmp_path.iterdir()) == []


def test_a_compaction_that_stood_still_while_another_one_completed_it_takes_nothing_away(
    object_store: ObjectStore, store_url: str
) -> None:
    source, target = _source(locate(store_url)), Ledger(locate(f"{store_url}-few"))
    told: list[str] = []

    def step(name: str) -> None:
        told.append(name)
        if name == "ready":
            begun = read_compaction(target)
            assert begun is not None
            Workspace(target, begun).publish()  # as another job does

    with pytest.raises(FinkDaskError):
        compact_dataset(source, target, Form(), Threads(1), Caller(step=step))
    assert told[-1] == "ready"
    _assert_whole(object_store, target)
