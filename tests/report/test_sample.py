"""A small dataset is read whole; a sample of a large one is small, and says what all of it would."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from fink_dask.report import sample
from fink_dask.report.sample import choose_pieces, read_sample

SCHEMA = pa.schema(
    [("candidate", pa.struct([("ra", pa.float64())])), ("number", pa.int64()), ("finkclass", pa.string())]
)


def write(place: Path, files: Sequence[tuple[str, int, int]]) -> tuple[ds.Dataset, dict[str, int]]:
    """Write files of a class, so many rows and row groups of a size; rows are numbered."""
    rows_of, start = {}, 0
    for number, (label, rows, group) in enumerate(files):
        path = place / f"finkclass={label}" / f"part-{number:04d}.parquet"
        path.parent.mkdir(exist_ok=True)
        values = np.arange(start, start + rows)
        candidate = pa.StructArray.from_arrays([pa.array(values / 1000)], ["ra"])
        pq.write_table(pa.table({"candidate": candidate, "number": values}), path, row_group_size=group)
        rows_of[str(path)] = rows
        start += rows
    partitioning = ds.partitioning(pa.schema([("finkclass", pa.string())]), flavor="hive")
    options = {"format": "parquet", "partitioning": partitioning, "partition_base_dir": str(place)}
    return ds.dataset(list(rows_of), schema=SCHEMA, **options), rows_of


PATHS = {"ra": "candidate.ra", "number": "number", "class": "finkclass"}


def test_a_small_dataset_is_read_whole(tmp_path: Path) -> None:
    dataset, rows_of = write(tmp_path, [("SN", 700, 100), ("QSO", 300, 1000), ("none", 0, 10)])
    found = read_sample(tmp_path, dataset, choose_pieces(dataset, rows_of), PATHS, 1000)
    assert (found.table.num_rows, found.of, found.unread) == (1000, 1000, 0)
    assert set(found.weights) == {1}
    assert sorted(found.table["number"].to_pylist()) == list(range(1000))
    assert found.counts(found.table["class"]) == {"SN": 700, "QSO": 300}
    assert found.numbers("ra").max() == pytest.approx(0.999)


@pytest.mark.parametrize("group", [500, 100_000])
def test_a_sample_of_a_large_dataset_is_small_and_fair(
    group: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "SAMPLE_ROWS", 5000)
    monkeypatch.setattr(sample, "_PLACES", 250)
    monkeypatch.setattr(sample, "_ROWS_OF_PLACE", 20)
    sizes = [60_000, 30_000, *[500] * 20]
    labels = ["SN", "QSO", *["rare"] * 20]
    dataset, rows_of = write(tmp_path, [(label, size, group) for label, size in zip(labels, sizes, strict=True)])
    pieces = choose_pieces(dataset, rows_of)
    assert len(pieces) <= 22
    found = read_sample(tmp_path, dataset, pieces, PATHS, 100_000)
    assert 4000 <= found.table.num_rows <= 5000
    numbers = found.table["number"].to_pylist()
    assert len(set(numbers)) == len(numbers), "a row is there twice"
    counts = found.counts(found.table["class"])
    assert sum(counts.values()) == pytest.approx(100_000)
    assert counts["SN"] == pytest.approx(60_000, rel=0.02)
    assert counts["rare"] == pytest.approx(10_000, rel=0.1)
    # Of all places alike: the mean of the numbers is that of all.
    assert np.average(numbers, weights=found.weights) == pytest.approx(50_000, rel=0.02)


def test_a_file_that_went_away_or_is_damaged_is_counted_and_left_out(tmp_path: Path) -> None:
    dataset, rows_of = write(tmp_path, [("SN", 10, 10), ("QSO", 10, 10), ("AGN", 10, 10)])
    pieces = choose_pieces(dataset, rows_of)
    gone, damaged, _ = rows_of
    Path(gone).unlink()
    Path(damaged).write_bytes(b"PAR1")
    found = read_sample(tmp_path, dataset, pieces, PATHS, 30)
    assert (found.unread, found.table.num_rows) == (2, 10)
    assert found.weights.sum() == pytest.approx(30)
