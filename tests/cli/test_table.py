"""The table of several topics can be read where it is printed."""

from __future__ import annotations

import pytest

from fink_dask.cli.several import print_table
from fink_dask.ledger.summary import Summary

NIGHTS = ("ftransfer_ztf_2026-02-24_123456", "ftransfer_ztf_2026-02-25_200101")


def test_the_table_of_a_full_night_is_aligned_and_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([Summary(name, "complete", alerts=3_900_000 * n, files=30) for n, name in enumerate(NIGHTS)])
    lines = capsys.readouterr().out.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert len(lines[0]) <= 80
    assert lines[-1].split() == ["2", "topics", "complete", "3,900,000", "0", "0", "60"]
