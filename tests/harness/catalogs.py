"""What is in a HATS catalog that was exported, read file by file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from hats import read_hats

Content = dict[tuple[str, str], pa.Table]


def content_of(catalog: Path) -> Content:
    """Read the version that readers find: each file of rows, margin and indexes, by its kind and its pixel."""
    collection = read_hats(catalog)
    said = collection.collection_properties
    main = said.hats_primary_table_url
    found: Content = {}
    for name in (main, *said.all_margins, *(said.all_indexes or {}).values()):
        directory = catalog / name
        for path in sorted((directory / "dataset").rglob("*.parquet")):
            table = pq.read_table(path, partitioning=None)
            found[name.removeprefix(main), str(path.relative_to(directory))] = table
    return found


def same_rows(one: Path, other: Path) -> bool:
    """Tell whether two catalogs have the same pixels, with the same rows in the same order, margins and indexes."""
    contents = [content_of(catalog) for catalog in (one, other)]
    return contents[0].keys() == contents[1].keys() and all(
        _is_same(table, contents[1][key]) for key, table in contents[0].items()
    )


def _is_same(one: pa.Table, other: pa.Table) -> bool:
    """Compare values; NaN is NaN."""
    if one.schema != other.schema or one.num_rows != other.num_rows:
        return False
    pairs = zip(one.combine_chunks().columns, other.combine_chunks().columns, strict=True)
    return all(_is_same_array(*(pa.concat_arrays(column.chunks) for column in pair)) for pair in pairs)


def _is_same_array(one: pa.Array, other: pa.Array) -> bool:
    if not one.is_valid().equals(other.is_valid()):
        return False
    if pa.types.is_struct(one.type):
        return all(_is_same_array(*pair) for pair in zip(one.flatten(), other.flatten(), strict=True))
    if pa.types.is_list(one.type):
        is_long = pc.list_value_length(one).equals(pc.list_value_length(other))
        return bool(is_long and _is_same_array(one.flatten(), other.flatten()))
    if pa.types.is_floating(one.type):
        return np.array_equal(one.to_numpy(zero_copy_only=False), other.to_numpy(zero_copy_only=False), equal_nan=True)
    return bool(one.equals(other))
