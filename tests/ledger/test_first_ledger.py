"""A ledger whose plans have ids of 8 digits, as the first ones had, is read, rolled forward and continued.

`first_ledger.tar.gz` was made with commit e2fcb93: a range that was repaired, one that was committed and not published
when its job died, and a generation of which nothing was read yet. A third of its alerts have an empty class.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

import fink_dask
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.commit import roll_forward
from fink_dask.ledger.ledger import Ledger
from fink_dask.planning.continuing import go_on_with
from fink_dask.settings import KafkaSettings, TransferSettings
from fink_dask.verifying.files import verify_dataset
from tests.harness.ledgers import SCHEMA, make_plan, places, read_places, transfer


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    with tarfile.open(Path(__file__).with_name("first_ledger.tar.gz")) as archive:
        archive.extractall(tmp_path, filter="data")
    return Ledger(tmp_path / "alerts")


def test_what_a_first_ledger_had_committed_is_there_and_means_what_it_did(ledger: Ledger) -> None:
    plans = ledger.plans()
    assert [plan.plan_id for plan in plans] == ["6f8f3153", plans[1].plan_id]
    roll_forward(ledger, plans)
    assert ledger.staged() == []
    found = fink_dask.open_dataset(ledger.outdir).to_table(columns=["kafka_offset", "class"]).to_pydict()
    assert len(found["class"]) == 45
    assert set(found["class"]) == {None, "class 1", "class 2"}, "old files don't tell the empty string from null"


def test_a_first_ledger_is_gone_on_with_as_it_was_begun_though_nothing_of_that_is_given(ledger: Ledger) -> None:
    begun = ledger.begun_with()
    settings = go_on_with(TransferSettings(begun.topic, ledger.outdir, KafkaSettings("127.0.0.1:1")), begun)
    assert (settings.partitionby, settings.outformat) == (begun.partitionby, "parquet")
    assert begun.partitionby


def test_a_first_ledger_is_continued(ledger: Ledger) -> None:
    roll_forward(ledger, ledger.plans())
    more = make_plan([OffsetRange(0, 40, 60)], generation=3)
    ledger.freeze(more, SCHEMA, [plan.plan_id for plan in ledger.plans()])
    plans = ledger.plans()
    for plan in plans[1:]:
        for offset_range in plan.ranges:
            transfer(ledger, plan, offset_range)
    assert read_places(ledger) == sorted(place for plan in plans for place in places(plan))
    assert verify_dataset(ledger).problems == ()
