"""A dataset on Azure Blob Storage is what it is in a directory, whatever is killed and whoever comes at once."""

from __future__ import annotations

import pickle
import signal
from itertools import count
from pathlib import Path

import pytest

import fink_dask
from fink_dask.errors import LedgerError, StorageError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.commit import roll_forward
from fink_dask.ledger.lease import hold_lease
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.outdir import find_ledger
from fink_dask.ledger.restart import old_datasets, set_aside
from fink_dask.store.location import locate
from fink_dask.verifying.files import verify_dataset
from tests.harness.azurite import KEY, Azurite
from tests.harness.ledgers import SCHEMA, make_ledger, make_plan, places, revise, transfer
from tests.harness.store_crash import killed_after, run_on_store

pytestmark = pytest.mark.stores

FIRST, SECOND = OffsetRange(0, 0, 25), OffsetRange(3, 100, 130)
PLAN = make_plan([FIRST, SECOND])


def _go_on(ledger: Ledger) -> None:
    """Go on as the next job does."""
    with hold_lease(ledger):
        roll_forward(ledger, ledger.plans())
        for offset_range in PLAN.ranges:
            transfer(ledger, PLAN, offset_range)
        roll_forward(ledger, ledger.plans())


def _read(ledger: Ledger) -> list[tuple[int, int]]:
    dataset = pickle.loads(pickle.dumps(fink_dask.open_dataset(str(ledger.outdir))))  # as one that is sent to workers
    table = dataset.to_table(columns=["kafka_partition", "kafka_offset"])
    return sorted(zip(table["kafka_partition"].to_pylist(), table["kafka_offset"].to_pylist(), strict=True))


def _assert_whole(ledger: Ledger) -> None:
    assert _read(ledger) == places(PLAN)
    assert ledger.staged() == []
    assert verify_dataset(ledger).problems == verify_dataset(ledger).foreign == ()


def test_no_alert_is_lost_or_doubled_by_a_kill_after_any_change(azurite: Azurite, azure_url: str) -> None:
    for after in count(2, 5):
        ledger = make_ledger(locate(f"{azure_url}-{after}"), PLAN)
        killed = run_on_store(azurite, killed_after, after, _go_on, ledger) == -signal.SIGKILL
        if not killed:
            break
        run_on_store(azurite, killed_after, 1 + 7 * after % 40, _go_on, ledger)
        _go_on(ledger)
        _assert_whole(ledger)
    assert after > 20


def test_a_lease_is_held_once_a_range_is_revised_and_a_dataset_begun_again(azure_url: str) -> None:
    ledger = make_ledger(locate(azure_url), PLAN)
    with hold_lease(ledger), pytest.raises(LedgerError, match="is running"), hold_lease(ledger):
        pass
    _go_on(ledger)
    revise(ledger, PLAN, FIRST)
    _assert_whole(ledger)
    with hold_lease(ledger):
        set_aside(ledger)
    again = find_ledger(ledger.outdir)
    assert [old.alerts for old in old_datasets(again)] == [len(places(PLAN))]
    again.freeze(PLAN, SCHEMA)
    _go_on(again)
    _assert_whole(again)


def test_what_is_wrong_is_said_in_a_line_without_the_key(
    azurite: Azurite, azure_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        pytest.raises(StorageError, match=r"\bbucket\b.*no-such") as caught,
        hold_lease(make_ledger(locate("az://no-such/alerts"))),
    ):
        pass
    assert KEY not in str(caught.value)
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME")
    with pytest.raises(StorageError, match="AZURE_STORAGE_ACCOUNT_NAME"):
        make_ledger(locate("az://other/alerts"))
