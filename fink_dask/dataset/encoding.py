"""Parquet files in the making: how each column is encoded, and what is worth compressing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fink_dask.store.newfile import NewFile

#: The pandas that footers are written for: the oldest that the documentation reads with.
_PANDAS = "2.2.0"
#: Numbers that readers look for alerts by: of all others, a row group has about all values that there are.
_SOUGHT = {"jd", "midpointMjdTai", "ra", "dec"}
#: Bytes of a column that are compressed to see whether that pays off, and the share that must be left at most.
_PROBE_BYTES = 2**18
_WORTH = 0.9
#: The level of zstd for bytes, which are pictures: with level 1, those of LSST take hardly less, and twice as long.
_BYTES_LEVEL = -2
#: Numbers and texts of a column that are looked at to see how they are best laid out; of fewer, it hardly matters.
_PROBE_ROWS = 256
#: Rows of which a column has 256 bytes of numbers: of fewer, a codec makes more rather than less, and each call of one
#: costs as much as all else that is done with them.
_FEW_ROWS = 32
#: Of small writes, that each of them does not cost a call of Python.
_BUFFER_BYTES = 2**14


@dataclass(frozen=True)
class Findings:
    """What the first values of a file's columns tell; a column is named as Parquet does."""

    #: Bytes that a codec makes hardly smaller.
    bare: frozenset[str] = frozenset()
    #: Floats that take less where their bytes stay together, as those that are often alike.
    whole: frozenset[str] = frozenset()
    #: Strings that are mostly different: a dictionary of them is as large as they are.
    unlike: frozenset[str] = frozenset()
    #: Whether there are too few rows for a codec to make their numbers smaller, or for a dictionary of their texts.
    few: bool = False


class Looks:
    """What was found of the columns of files that differ in their partition key, and in little else."""

    def __init__(self) -> None:
        self._found: Findings | None = None

    def at(self, table: pa.Table, compression: str) -> Findings:
        """Look at a file's first table, unless that of another file has had rows enough to tell."""
        found = self._found or _look_at(table, compression)
        if table.num_rows >= _PROBE_ROWS:
            self._found = found
        return replace(found, few=table.num_rows < _FEW_ROWS)


class ParquetFileWriter:
    """A Parquet file in the making; the same tables make the same bytes.

    `looks`: what the files that it belongs to have in common.
    """

    def __init__(
        self, path: Path, schema: pa.Schema, compression: str, footer: Mapping[str, str], looks: Looks | None = None
    ) -> None:
        self.file = NewFile(path)
        self._sink = pa.BufferedOutputStream(pa.PythonFile(self.file, "w"), _BUFFER_BYTES)
        self._schema = schema
        # Codec of all columns but those of bytes that it makes hardly smaller, as cutouts of ZTF, which are compressed
        # already. The first table shows which these are.
        self._compression = compression
        # What the file says of itself.
        self._footer = footer
        self._looks = looks or Looks()
        self._writer: pq.ParquetWriter | None = None

    def write_table(self, table: pa.Table) -> None:
        """Add rows, as a row group."""
        if self._writer is None:
            self._writer = self._begin(self._looks.at(table, self._compression))
        self._writer.write_table(table, row_group_size=max(table.num_rows, 1))

    def complete(self) -> None:
        """Write the footer."""
        if self._writer is None:
            self._writer = self._begin(Findings())
        self._writer.close()
        self._writer = None  # it has all that the footer says, a kilobyte for each column of a row group
        self._sink.flush()

    def close(self) -> None:
        """Close the file, complete or not."""
        if self._writer is not None:
            self._writer.is_open = False  # else it is closed once more when it is collected, and prints an error
        self.file.close()

    def _begin(self, found: Findings) -> pq.ParquetWriter:
        options = write_options(self._schema, self._compression, found)
        writer = pq.ParquetWriter(self._sink, self._schema, **options)
        writer.add_key_value_metadata({**for_pandas(self._schema), **self._footer})
        return writer


@lru_cache(maxsize=16)
def for_pandas(schema: pa.Schema) -> Mapping[str, str]:
    """Say beside a schema that integers which may be null are pandas' nullable ones; else it makes floats of them.

    A float has 53 bits: of an id of 64, the last digits would be lost without a word. All columns are named, as Dask
    takes those that are for all that there are.
    https://pandas.pydata.org/docs/development/developer.html#storing-pandas-dataframe-objects-in-apache-parquet-format
    """
    columns = [
        {
            "name": field.name,
            "field_name": field.name,
            "pandas_type": "int64" if _is_nullable_id(field) else "object",
            "numpy_type": "Int64" if _is_nullable_id(field) else "object",
            "metadata": None,
        }
        for field in schema
    ]
    said = {"index_columns": [], "column_indexes": [], "columns": columns, "pandas_version": _PANDAS}
    return {"pandas": json.dumps(said, separators=(",", ":"))}


def _is_nullable_id(field: pa.Field) -> bool:
    return bool(field.nullable and pa.types.is_int64(field.type))


@lru_cache(maxsize=64)
def write_options(schema: pa.Schema, compression: str, found: Findings) -> Mapping[str, Any]:
    """Choose Parquet's encodings column by column; once per process, as all ranges of a plan have the same columns.

    Dictionaries pay off for strings only; most floats compress better with their bytes split; offsets count upwards.
    Minimum and maximum of a row group's strings, bytes and most floats tell a reader nothing, as a range holds alerts
    of all kinds, and take time to find.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink, store_schema=False)
    columns = pq.read_metadata(pa.BufferReader(sink.getvalue())).schema
    leaves = [columns.column(index) for index in range(len(columns))]
    floats = [leaf.path for leaf in leaves if leaf.physical_type in {"FLOAT", "DOUBLE"}]
    texts = [leaf.path for leaf in leaves if leaf.logical_type.type == "STRING"]
    strings = {leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"}
    vain = strings | {path for path in floats if path.rpartition(".")[2] not in _SOUGHT or ".list." in path}
    bare = found.bare | ({leaf.path for leaf in leaves if _is_one_number(leaf)} if found.few else set())
    pictures = strings - found.bare - set(texts) if compression == "zstd" else ()
    split = [] if compression == "none" else [path for path in floats if path not in found.whole | bare]
    return {
        "compression": {leaf.path: compression for leaf in leaves if leaf.path not in bare},
        "compression_level": dict.fromkeys(sorted(pictures), _BYTES_LEVEL),
        "use_dictionary": [] if found.few else [path for path in texts if path not in found.unlike],
        "column_encoding": dict.fromkeys(split, "BYTE_STREAM_SPLIT") | {"kafka_offset": "DELTA_BINARY_PACKED"},
        "write_statistics": [leaf.path for leaf in leaves if leaf.path not in vain],
        "store_schema": not columns.to_arrow_schema().equals(schema) or any(map(_has_notes, schema)),
    }


def _has_notes(field: pa.Field) -> bool:
    """Tell whether something is said of a column, such as its unit, which Parquet's own schema has no place for."""
    return bool(field.metadata) or any(map(_has_notes, (field.type.field(at) for at in range(field.type.num_fields))))


def _is_one_number(leaf: pq.ColumnSchema) -> bool:
    return bool(leaf.physical_type != "BYTE_ARRAY" and leaf.max_repetition_level == 0)


def _look_at(table: pa.Table, compression: str) -> Findings:
    """Find out from a file's first table how its columns are best laid out."""
    bare, whole, unlike = set(), set(), set()
    codec = None if compression == "none" else pa.Codec(compression)
    # Of few rows, only bytes tell something; and this is done for each file.
    names = [field.name for field in table.schema if table.num_rows >= _PROBE_ROWS or _has_bytes(field.type)]
    chunks = [(name, table[name].chunk(0)) for name in names if table.num_rows]
    for path, values in (leaf for name, chunk in chunks for leaf in _leaves(name, chunk)):
        if pa.types.is_binary(values.type):
            if codec is not None and _is_incompressible(_first(values), codec):
                bare.add(path)
        elif table.num_rows >= _PROBE_ROWS and (seen := values[: 4 * _PROBE_ROWS].drop_null()[:_PROBE_ROWS]):
            if pa.types.is_string(values.type):
                if 2 * len(seen.unique()) > len(seen):
                    unlike.add(path)
            elif codec is not None and pa.types.is_floating(values.type) and _is_better_whole(seen.to_numpy(), codec):
                whole.add(path)
    return Findings(frozenset(bare), frozenset(whole), frozenset(unlike))


def _has_bytes(kind: pa.DataType) -> bool:
    if not kind.num_fields:
        return bool(pa.types.is_binary(kind))
    return any(_has_bytes(kind.field(index).type) for index in range(kind.num_fields))


def _is_incompressible(first: bytes, codec: pa.Codec) -> bool:
    return len(first) > 0 and codec.compress(first).size > _WORTH * len(first)


def _is_better_whole(numbers: npt.NDArray[Any], codec: pa.Codec) -> bool:
    """Tell whether floats take clearly less as they are than split by bytes."""
    split = numbers.view(np.uint8).reshape(len(numbers), -1).T
    return bool(codec.compress(numbers.tobytes()).size < _WORTH * codec.compress(split.tobytes()).size)


def _leaves(path: str, values: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    """Walk to the arrays that a column of Parquet holds, which are named as it does."""
    kind = values.type
    if pa.types.is_struct(kind):
        for index, field in enumerate(kind):
            yield from _leaves(f"{path}.{field.name}", values.field(index))
    elif pa.types.is_map(kind):
        yield from _leaves(f"{path}.key_value.key", values.keys)
        yield from _leaves(f"{path}.key_value.value", values.items)
    elif pa.types.is_list(kind):
        yield from _leaves(f"{path}.list.element", values.values)
    else:
        yield path, values


def _first(values: pa.Array) -> bytes:
    """Join the first values."""
    found, left = [], _PROBE_BYTES
    for value in values:
        if left <= 0:
            break
        if value.is_valid:
            found.append(value.as_buffer().to_pybytes()[:left])
            left -= len(found[-1])
    return b"".join(found)
