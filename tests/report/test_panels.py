"""The panels of a report say why they are left out, whatever the reason is."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from fink_dask.kafka.offsets import OffsetRange
from fink_dask.report import panels
from fink_dask.report.facts import find_facts
from tests.harness.ledgers import make_ledger, make_plan, transfer


@pytest.mark.parametrize("error", [pa.ArrowInvalid(""), OSError()], ids=["arrow", "os"])
def test_an_error_without_text_leaves_panels_out_and_the_report_is_made(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    plan = make_plan([OffsetRange(0, 0, 100)])
    ledger = make_ledger(tmp_path / "alerts", plan)
    transfer(ledger, plan, plan.ranges[0])
    monkeypatch.setattr(panels, "open_dataset", fail)
    found = panels.find_panels(find_facts(ledger))
    assert found.left_out["positions"] == f"the dataset can't be read: {type(error).__name__}"
