"""Parquet files: how one is written, its encodings, and what one says of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fink_dask.avro.schema import AvroSchema
from fink_dask.config import COMPRESSION
from fink_dask.dataset.data_format import KAFKA_FIELDS, Contents, Layout, Offsets, Origin, Partitions
from fink_dask.errors import LedgerError
from fink_dask.store.location import parquet_source

#: Rows that are read at once where all of a file is.
_ROWS_AT_ONCE = 1000


class ParquetFormat:
    """Apache Parquet: a column for each of the layout's."""

    suffix = ".parquet"

    def create(self, path: Path, layout: Layout, origin: Origin) -> ParquetFileWriter:
        """Begin a file."""
        return ParquetFileWriter(path, layout.columns, layout.compression, origin.footer())

    def read_contents(self, path: Path) -> Contents:
        """Read what a file says of itself in its footer."""
        with pq.ParquetFile(parquet_source(path)) as parquet:
            metadata = parquet.metadata
        said = (metadata.metadata or {}).items()
        return Contents(
            metadata.num_rows, {key.decode(errors="replace"): text.decode(errors="replace") for key, text in said}
        )

    def read_places(self, path: Path) -> tuple[Partitions, Offsets]:
        """Read the columns of Kafka."""
        table = pq.read_table(parquet_source(path), columns=[field.name for field in KAFKA_FIELDS], partitioning=None)
        partitions, offsets = (table[field.name].to_numpy() for field in KAFKA_FIELDS)
        return partitions, offsets

    def read_alerts(self, path: Path, numbers: Sequence[int], records: AvroSchema) -> list[dict[str, Any]]:
        """Read the values of some rows."""
        found: list[dict[str, Any]] = []
        with pq.ParquetFile(parquet_source(path)) as parquet:
            before = 0
            for group in range(parquet.num_row_groups):  # no more of them than those that hold the rows
                rows = parquet.metadata.row_group(group).num_rows
                if here := [number - before for number in numbers if before <= number < before + rows]:
                    found += parquet.read_row_group(group).take(here).to_pylist()
                before += rows
        if len(found) != len(numbers):
            raise LedgerError(f"{path} has fewer rows than it had a moment ago")
        return found

    def read_through(self, path: Path) -> None:
        """Read all columns of all rows."""
        with pq.ParquetFile(parquet_source(path)) as parquet:
            for _ in parquet.iter_batches(batch_size=_ROWS_AT_ONCE):
                pass


class ParquetFileWriter:
    """A Parquet file in the making.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    schema : pyarrow.Schema
        Its columns.
    compression : str
        Codec; see `write_options`.
    footer : mapping of str to str
        What it says of itself.
    """

    def __init__(self, path: Path, schema: pa.Schema, compression: str, footer: Mapping[str, str]) -> None:
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pq.ParquetWriter(self._sink, schema, **write_options(schema, compression))
        self._writer.add_key_value_metadata(footer)

    def write_table(self, table: pa.Table) -> None:
        """Add rows, as a row group."""
        self._writer.write_table(table, row_group_size=max(table.num_rows, 1))

    def close(self) -> None:
        """Write the footer, and close the file even where that fails."""
        try:
            self._writer.close()
        finally:
            self._writer.is_open = False  # else it is closed once more when it is collected, and prints an error
            self._sink.close()


@lru_cache(maxsize=16)
def write_options(schema: pa.Schema, compression: str = COMPRESSION) -> Mapping[str, Any]:
    """Choose Parquet's encodings column by column; once per process, as all ranges of a plan have the same columns.

    Dictionaries pay off for strings only; floats compress better with their bytes split; cutouts are compressed
    already, so compressing them again is a waste of time; offsets count upwards. Minimum and maximum of the strings or
    cutouts of a row group tell a reader nothing, as a range holds alerts of all kinds.

    Parameters
    ----------
    schema : pyarrow.Schema
        The columns.
    compression : {"zstd", "snappy", "lz4", "gzip", "brotli", "none"}
        Codec of everything but binary columns.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    columns = pq.read_metadata(pa.BufferReader(sink.getvalue())).schema
    leaves = [columns.column(index) for index in range(len(columns))]
    strings = [leaf.path for leaf in leaves if leaf.logical_type.type == "STRING"]
    blobs = {leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"} - set(strings)
    encodings = {leaf.path: "BYTE_STREAM_SPLIT" for leaf in leaves if leaf.physical_type in {"FLOAT", "DOUBLE"}}
    encodings["kafka_offset"] = "DELTA_BINARY_PACKED"
    return {
        "compression": {leaf.path: "none" if leaf.path in blobs else compression for leaf in leaves},
        "use_dictionary": strings,
        "column_encoding": encodings,
        "write_statistics": [leaf.path for leaf in leaves if leaf.physical_type != "BYTE_ARRAY"],
    }
