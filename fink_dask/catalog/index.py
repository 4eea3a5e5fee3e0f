"""An index of a catalog, in HATS' form: the pixel of each value of a column, in the order of the values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from itertools import pairwise
from operator import or_
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from hats.io import file_io
from hats.io.parquet_metadata import write_parquet_metadata
from hats.pixel_math import HealpixPixel

from fink_dask.catalog.shards import PLACE

#: Where the files of an index are.
INDEX_PATH = Path("dataset") / "index"
#: The columns of HATS' indexes beside the value.
_WHERE = (pa.field(PLACE, pa.int64()), pa.field("Norder", pa.uint8()), pa.field("Npix", pa.uint64()))
#: Rows of a file, and of its row groups: a look-up reads those that may have the value.
_FILE_ROWS, _GROUP_ROWS = 2**21, 2**16
#: One of so many values is looked at to divide an index into files of that size.
_SAMPLED = 64


def entries_of(index: Path, column: str, values: pa.Array) -> Iterator[HealpixPixel]:
    """Yield the pixels that have some of these values."""
    found = _open(index).to_table(columns=["Norder", "Npix"], filter=pc.field(column).isin(values))
    pixels = found.group_by(["Norder", "Npix"]).aggregate([])
    for order, number in zip(pixels["Norder"].to_pylist(), pixels["Npix"].to_pylist(), strict=True):
        yield HealpixPixel(order, number)


def write_index(
    path: Path,
    column: str,
    kind: pa.DataType,
    entries: Mapping[HealpixPixel, Path],
    old: Path | None,
    staying: Sequence[HealpixPixel],
) -> int:
    """Write an index; returns its rows, of which there may be none.

    `entries`: files with the column and the places of the rows that were written anew.
    `staying`: the pixels that have stayed as they were.
    """
    schema = pa.schema([pa.field(column, kind), *_WHERE])
    parts = [(ds.dataset(str(file), format="parquet"), _in_pixel(pixel)) for pixel, file in entries.items()]

    def select(condition: pc.Expression) -> Iterator[pa.Table]:
        for dataset, where in parts:
            wanted = {column: pc.field(column), PLACE: pc.field(PLACE), **where}
            yield dataset.to_table(columns=wanted, filter=condition).select(schema.names).cast(schema)
        if old is not None and staying:
            for batch in _open(old).to_batches(columns=schema.names, filter=condition & _is_among(staying)):
                yield pa.Table.from_batches([batch]).cast(schema)

    edges = _edges(select(pc.field(column).is_valid()), column)
    if edges is None:
        return 0
    directory = path / INDEX_PATH
    directory.mkdir(parents=True)
    sorting = pq.SortingColumn.from_ordering(schema, [(column, "ascending")])
    asked = {"sorting_columns": sorting, "row_group_size": _GROUP_ROWS}
    options = file_io.get_parquet_write_table_kwargs(schema, write_table_kwargs=asked)
    rows = 0
    bounds = [None, *edges, None]
    for number, (low, high) in enumerate(pairwise(bounds)):
        condition = pc.field(column).is_valid()
        if low is not None:
            condition &= pc.field(column) >= low
        if high is not None:
            condition &= pc.field(column) < high
        table = pa.concat_tables(select(condition)).sort_by([(column, "ascending"), (PLACE, "ascending")])
        rows += table.num_rows
        pq.write_table(table, directory / f"part.{number}.parquet", **options)
    write_parquet_metadata(path, order_by_healpix=False)
    return rows


def _open(index: Path) -> ds.Dataset:
    return ds.dataset(str(index / INDEX_PATH), format="parquet")


def _in_pixel(pixel: HealpixPixel) -> dict[str, pc.Expression]:
    return {
        "Norder": pc.scalar(pa.scalar(int(pixel.order), pa.uint8())),
        "Npix": pc.scalar(pa.scalar(int(pixel.pixel), pa.uint64())),
    }


def _is_among(pixels: Sequence[HealpixPixel]) -> pc.Expression:
    numbers: dict[int, list[int]] = {}
    for pixel in pixels:
        numbers.setdefault(int(pixel.order), []).append(int(pixel.pixel))
    return reduce(
        or_,
        (
            (pc.field("Norder") == pa.scalar(order, pa.uint8())) & pc.field("Npix").isin(pa.array(those, pa.uint64()))
            for order, those in numbers.items()
        ),
    )


def _edges(parts: Iterator[pa.Table], column: str) -> list[pa.Scalar] | None:
    """Choose values that divide an index into files of about the same size; None if it has no values."""
    rows, sampled = 0, []
    for part in parts:
        rows += part.num_rows
        sampled.append(part[column].take(pa.array(np.arange(0, part.num_rows, _SAMPLED))))
    if not rows:
        return None
    sample = pa.chunked_array([chunk for each in sampled for chunk in each.chunks]).sort()
    files = -(-rows // _FILE_ROWS)
    return [sample[len(sample) * number // files] for number in range(1, files)]
