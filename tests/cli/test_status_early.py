"""``status`` of a transfer whose jobs still wait in a queue, so that nothing is planned yet."""

from __future__ import annotations

from pathlib import Path

from fink_dask.dataset.lease import hold_lease
from fink_dask.dataset.ledger import Ledger
from fink_dask.dataset.outdir import create_ledger
from tests.harness.cli import run_cli


def test_a_transfer_that_waits_is_not_called_one_that_nobody_has_begun(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "out")
    create_ledger(ledger)
    with hold_lease(ledger):
        result = run_cli("status", str(ledger.outdir))
    assert result.returncode == 1
    assert "has begun and has not planned yet" in result.stderr
    assert "was planned yet" in run_cli("status", str(ledger.outdir)).stderr
