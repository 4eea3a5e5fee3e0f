"""Read some columns of a dataset, in bounded time and memory: all rows of a small one, a fair sample of a large one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from fink_dask.avro.schema import field_type
from fink_dask.dataset.surveys import expression
from fink_dask.store.location import store_of

Floats = npt.NDArray[np.float64]

#: Rows of a sample; a dataset of no more rows, and of this many files at most, is read in full.
SAMPLE_ROWS = 250_000
_WHOLE_FILES = 400
#: Places of a larger dataset that are looked at, and how many rows each.
_PLACES = 250
_ROWS_OF_PLACE = SAMPLE_ROWS // _PLACES


@dataclass(frozen=True)
class Piece:
    """What to read of a file."""

    fragment: Any
    #: Rows around which to read; None for the whole file.
    places: tuple[int, ...] | None = None

    def groups(self) -> Iterator[tuple[Any, int]]:
        """Yield each row group that has some of the places, and how many; or the file itself if it is read whole."""
        known = self.fragment
        # A fragment keeps its footer once it is read, and footers of full packets take a megabyte.
        fresh = known.format.make_fragment(known.path, known.filesystem, known.partition_expression)
        if self.places is None:
            yield fresh, 0
            return
        ends = np.cumsum([group.num_rows for group in fresh.row_groups])
        for index, count in sorted(Counter(np.searchsorted(ends, self.places, side="right").tolist()).items()):
            if index < len(ends):
                yield fresh.subset(row_group_ids=[index]), count


@dataclass(frozen=True)
class Sample:
    """Some rows, and what they stand for."""

    #: The columns that were asked for.
    table: pa.Table
    #: How many alerts of the dataset each row stands for.
    weights: Floats
    #: Rows of the dataset.
    of: int
    #: Files that could not be read, such as those removed in the meantime.
    unread: int = 0

    def numbers(self, name: str) -> Floats:
        """Return a column as numbers; NaN for null."""
        return np.asarray(pc.fill_null(self.table[name].cast(pa.float64()), np.nan).to_numpy(), dtype=np.float64)

    def counts(self, values: pa.ChunkedArray) -> dict[Any, float]:
        """Estimate how many alerts have each value of a column."""
        encoded = values.combine_chunks().dictionary_encode(null_encoding="encode")
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.combine_chunks()
        codes = encoded.indices.to_numpy(zero_copy_only=False)
        sums = np.bincount(codes, self.weights, len(encoded.dictionary))
        return dict(zip(encoded.dictionary.to_pylist(), sums.tolist(), strict=True))


def choose_pieces(dataset: ds.Dataset, rows_of: Mapping[str, int]) -> list[Piece]:
    """Choose what to read: equidistant places, with files in the order of their names, so that each key has some.

    `rows_of`: rows of each of its files, by path.
    """
    fragments = sorted(dataset.get_fragments(), key=lambda fragment: str(fragment.path))
    fragments = [fragment for fragment in fragments if rows_of.get(fragment.path)]
    ends = np.cumsum([rows_of[fragment.path] for fragment in fragments], dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    if total <= SAMPLE_ROWS and len(fragments) <= _WHOLE_FILES:
        return [Piece(fragment) for fragment in fragments]
    places = ((np.arange(_PLACES) + 0.5) * total / _PLACES).astype(np.int64)
    by_file: dict[int, list[int]] = {}
    for place, index in zip(places.tolist(), np.searchsorted(ends, places, side="right").tolist(), strict=True):
        by_file.setdefault(index, []).append(place - int(ends[index]) + rows_of[fragments[index].path])
    return [Piece(fragments[index], tuple(inside)) for index, inside in by_file.items()]


def read_sample(outdir: Path, dataset: ds.Dataset, pieces: list[Piece], paths: Mapping[str, str], of: int) -> Sample:
    """Read columns of the pieces; files that can't be read are left out, and counted.

    `paths`: the columns by name, as dotted paths.
    """
    columns = {name: expression(path) for name, path in paths.items()}
    tables: list[pa.Table] = []
    weights, unread = [np.empty(0)], 0

    def read(piece: Piece) -> list[tuple[pa.Table, int]] | None:
        try:
            found = [(group.to_table(dataset.schema, columns=columns), count) for group, count in piece.groups()]
        except (OSError, pa.ArrowException):
            return None
        # Rows are in the order of offsets: take as many as are wanted, equidistant.
        return [(_thinned(table, count * _ROWS_OF_PLACE) if count else table, count) for table, count in found]

    for _, read_tables in store_of(outdir).for_each(read, pieces):
        unread += read_tables is None
        for table, count in read_tables or []:
            tables.append(table)
            weights.append(np.full(table.num_rows, count / max(table.num_rows, 1) if count else 1.0))
    if not tables:
        kinds = [(name, field_type(dataset.schema, path)) for name, path in paths.items()]
        tables.append(pa.schema(kinds).empty_table())
    weight = np.concatenate(weights)
    return Sample(pa.concat_tables(tables), weight * (of / max(weight.sum(), 1e-9)), of, unread)


def _thinned(table: pa.Table, rows: int) -> pa.Table:
    if table.num_rows <= rows:
        return table
    return table.take(pa.array(np.linspace(0, table.num_rows - 1, rows).astype(np.int64)))
