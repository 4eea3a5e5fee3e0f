"""Rows of a catalog that wait on disk to be written, each file in the order of places on the sky."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from hats.pixel_math import HealpixPixel, compute_spatial_index
from hats.pixel_math.spatial_index import SPATIAL_INDEX_COLUMN

from fink_dask.catalog.form import POSITION
from fink_dask.catalog.sky import Integers, end_place, first_place

#: The column with the place of a row.
PLACE = SPATIAL_INDEX_COLUMN
#: Bytes of rows that are read back at once.
_BATCH_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Shard:
    """A file of rows."""

    path: Path
    #: firsts, lasts: the first and the last place of each of its batches.
    firsts: tuple[int, ...]
    lasts: tuple[int, ...]

    def rows_in(self, pixel: HealpixPixel) -> Iterator[pa.Table]:
        """Yield the rows in a pixel."""
        first, end = first_place(pixel), end_place(pixel)
        wanted = [
            number
            for number, (low, high) in enumerate(zip(self.firsts, self.lasts, strict=True))
            if low < end and high >= first
        ]
        if not wanted:
            return
        with pa.memory_map(str(self.path)) as source, pa.ipc.open_file(source) as file:
            for number in wanted:
                batch = file.get_batch(number)
                start, stop = np.searchsorted(places_of(batch), [first, end])
                yield pa.Table.from_batches([batch.slice(start, stop - start)])


def places_of(rows: pa.Table | pa.RecordBatch) -> Integers:
    """Return the places of rows."""
    return np.asarray(rows[PLACE].to_numpy(zero_copy_only=False) if isinstance(rows, pa.RecordBatch) else rows[PLACE])


def with_places(rows: pa.Table) -> pa.Table:
    """Put the column of places in front."""
    ra, dec = (rows[name].cast(pa.float64()).to_numpy() for name in POSITION)
    return rows.add_column(0, pa.field(PLACE, pa.int64()), pa.array(compute_spatial_index(ra, dec)))


def write_shard(path: Path, rows: pa.Table) -> Shard:
    """Write rows in the order of their places."""
    ordered = rows.take(pa.array(np.argsort(places_of(rows), kind="stable"))).combine_chunks()
    size = max(1, _BATCH_BYTES * ordered.num_rows // max(1, ordered.nbytes))
    firsts, lasts = [], []
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_file(path, ordered.schema, options=options) as file:
        for batch in ordered.to_batches(max_chunksize=size):
            file.write_batch(batch)
            firsts.append(int(batch[PLACE][0].as_py()))
            lasts.append(int(batch[PLACE][-1].as_py()))
    return Shard(path, tuple(firsts), tuple(lasts))
