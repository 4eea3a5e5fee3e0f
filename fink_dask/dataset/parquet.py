"""Parquet files in the making: how each column is encoded, and what is worth compressing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

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
#: Of small writes, that each of them does not cost a call of Python.
_BUFFER_BYTES = 2**14


class ParquetFileWriter:
    """A Parquet file in the making; the same tables make the same bytes."""

    def __init__(self, path: Path, schema: pa.Schema, compression: str, footer: Mapping[str, str]) -> None:
        self.file = NewFile(path)
        self._sink = pa.BufferedOutputStream(pa.PythonFile(self.file, "w"), _BUFFER_BYTES)
        self._schema = schema
        # Codec of all columns but those of bytes that it makes hardly smaller, as cutouts of ZTF, which are compressed
        # already. The first table shows which these are.
        self._compression = compression
        # What the file says of itself.
        self._footer = footer
        self._writer: pq.ParquetWriter | None = None

    def write_table(self, table: pa.Table) -> None:
        """Add rows, as a row group."""
        if self._writer is None:
            self._writer = self._begin(frozenset(_incompressible(table, self._compression)))
        self._writer.write_table(table, row_group_size=max(table.num_rows, 1))

    def complete(self) -> None:
        """Write the footer."""
        if self._writer is None:
            self._writer = self._begin(frozenset())
        self._writer.close()
        self._sink.flush()

    def close(self) -> None:
        """Close the file, complete or not."""
        if self._writer is not None:
            self._writer.is_open = False  # else it is closed once more when it is collected, and prints an error
        self.file.close()

    def _begin(self, bare: frozenset[str]) -> pq.ParquetWriter:
        options = write_options(self._schema, self._compression, bare)
        writer = pq.ParquetWriter(self._sink, for_pandas(self._schema), **options)
        writer.add_key_value_metadata(self._footer)
        return writer


@lru_cache(maxsize=16)
def for_pandas(schema: pa.Schema) -> pa.Schema:
    """Say in a schema that integers which may be null are pandas' nullable ones; else it makes floats of them.

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
    return schema.with_metadata({"pandas": json.dumps(said)})


def _is_nullable_id(field: pa.Field) -> bool:
    return bool(field.nullable and pa.types.is_int64(field.type))


@lru_cache(maxsize=64)
def write_options(schema: pa.Schema, compression: str, bare: frozenset[str]) -> Mapping[str, Any]:
    """Choose Parquet's encodings column by column; once per process, as all ranges of a plan have the same columns.

    Dictionaries pay off for strings only; floats compress better with their bytes split; offsets count upwards. Minimum
    and maximum of a row group's strings, bytes and most floats tell a reader nothing, as a range holds alerts of all
    kinds, and take time to find.

    `bare`: paths of the columns that are not compressed.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    columns = pq.read_metadata(pa.BufferReader(sink.getvalue())).schema
    leaves = [columns.column(index) for index in range(len(columns))]
    floats = [leaf.path for leaf in leaves if leaf.physical_type in {"FLOAT", "DOUBLE"}]
    vain = {leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"} | {
        path for path in floats if path.rpartition(".")[2] not in _SOUGHT or ".list." in path
    }
    return {
        "compression": {leaf.path: "none" if leaf.path in bare else compression for leaf in leaves},
        "use_dictionary": [leaf.path for leaf in leaves if leaf.logical_type.type == "STRING"],
        "column_encoding": dict.fromkeys(floats, "BYTE_STREAM_SPLIT") | {"kafka_offset": "DELTA_BINARY_PACKED"},
        "write_statistics": [leaf.path for leaf in leaves if leaf.path not in vain],
    }


def _incompressible(table: pa.Table, compression: str) -> Iterator[str]:
    """Find the columns of bytes whose first values a codec makes hardly smaller; they are named as Parquet does."""
    if compression == "none" or not table.num_rows:
        return
    codec = pa.Codec(compression)
    for name, column in zip(table.column_names, table.columns, strict=True):
        for path, values in _binary(name, column.chunk(0)):
            first = _first(values)
            if len(first) and codec.compress(first).size > _WORTH * len(first):
                yield path


def _binary(path: str, values: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    """Walk to the arrays of bytes that a column consists of."""
    kind = values.type
    if pa.types.is_binary(kind):
        yield path, values
    elif pa.types.is_struct(kind):
        for index, field in enumerate(kind):
            yield from _binary(f"{path}.{field.name}", values.field(index))
    elif pa.types.is_map(kind):
        yield from _binary(f"{path}.key_value.key", values.keys)
        yield from _binary(f"{path}.key_value.value", values.items)
    elif pa.types.is_list(kind):
        yield from _binary(f"{path}.list.element", values.values)


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
