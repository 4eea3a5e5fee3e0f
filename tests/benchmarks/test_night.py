"""The rehearsal of a night finds out what is missing, doubled, or another alert, wherever it should be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.jobs.emptier_job import COLUMNS, keep
from benchmarks.jobs.feed_job import committed_offsets
from benchmarks.night import account

#: Three alerts of a partition are moved, and two of another are left.
MOVED, LEFT = [(0, 0, 70), (0, 1, 71), (0, 2, 72)], [(1, 0, 80), (1, 1, 81)]
EXPECTED = {"0": np.array([70, 71, 72]), "1": np.array([80, 81])}


def _rows(alerts: list[tuple[int, int, int]]) -> np.ndarray:
    return np.array(alerts, np.int64).T


def _found(work: Path, moved: list[tuple[int, int, int]], left: list[tuple[int, int, int]]) -> dict[str, object]:
    (work / "moved").mkdir()
    (work / "store").mkdir()
    np.savez(work / "expected", **EXPECTED)
    keep(work / "moved" / "000001.npz", ["a.parquet", "b.parquet"], [_rows(moved[:1]), _rows(moved[1:])])
    keep(work / "moved" / "000002.npz", ["b.parquet"], [_rows(moved[1:])])  # not handed over in time, and so again
    pq.write_table(pa.table(dict(zip(COLUMNS, _rows(left), strict=True))), work / "store" / "c.parquet")
    return account(work, work / "store")


def test_what_was_moved_and_what_is_left_is_all_that_was_published(tmp_path: Path) -> None:
    assert _found(tmp_path, MOVED, LEFT) == {"alerts": 5, "exactly_once": True, "files_moved": 2, "files_left": 1}


@pytest.mark.parametrize(
    ("moved", "left"),
    [(MOVED[:2], LEFT), (MOVED, [*LEFT, LEFT[0]]), (MOVED, [*LEFT, MOVED[0]]), (MOVED, [LEFT[0], (1, 1, 99)])],
    ids=["one is missing", "one is there twice", "one is moved and left", "one is another"],
)
def test_an_alert_that_is_missing_doubled_or_another_is_found(
    tmp_path: Path, moved: list[tuple[int, int, int]], left: list[tuple[int, int, int]]
) -> None:
    with pytest.raises(BenchmarkError, match=r"partition [01]"):
        _found(tmp_path, moved, left)


def test_committed_offsets_are_those_of_markers_and_not_of_their_revisions(tmp_path: Path) -> None:
    assert committed_offsets(tmp_path / "none") == 0
    for name in ("00000-0000000000000000000-0000000000000000025", "00003-0000000000000000100-0000000000000000130"):
        (tmp_path / f"{name}.json").touch()
        (tmp_path / f"{name}.1.json").touch()
    assert committed_offsets(tmp_path) == 55
