"""Decode record by record with fastavro: slow, plain, and what the columnar decoder is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import fastavro
import numpy as np
import pyarrow as pa

from fink_dask.avro.decoded import MAX_BATCH_BYTES, TOMBSTONE, BadRecord, DecodedBatch, bad_record, check_size
from fink_dask.avro.projection import project, project_array
from fink_dask.avro.schema import AvroSchema
from fink_dask.avro.storage import from_storage, storage_schema, storage_type
from fink_dask.avro.walk import RecordError, make_walk
from fink_dask.errors import FinkDaskError

_Row = dict[str, object]


class FastavroDecoder:
    """Decode record by record with fastavro, behind a walk that lets only sound bytes through.

    Parameters
    ----------
    schema : AvroSchema
        The schema that the records were written with.
    columns : sequence of str or None
        The columns that are decoded; see `fink_dask.avro.projection.project`.
    """

    def __init__(self, schema: AvroSchema, columns: Sequence[str] | None = None) -> None:
        self._schema = schema
        self._columns = columns
        self._kept = project(schema.parsed, columns)
        self._walk = make_walk(schema.parsed)
        self._storage_schema = storage_schema(schema.parsed)
        self._storage_types = [storage_type(child) for child in schema.parsed.children]

    def __reduce__(self) -> tuple[type[FastavroDecoder], tuple[AvroSchema, Sequence[str] | None]]:
        # The compiled walk is made of closures, which don't pickle.
        return (FastavroDecoder, (self._schema, self._columns))

    @property
    def schema(self) -> AvroSchema:
        """The schema that the records were written with."""
        return self._schema

    @property
    def arrow(self) -> pa.Schema:
        """The Arrow schema of the rows."""
        return pa.schema(self._kept.arrow_fields)

    def decode(self, values: Sequence[bytes | None]) -> DecodedBatch:
        """Decode a batch; see `Decoder.decode`."""
        check_size(sum(len(value) for value in values if value is not None))
        rows: list[_Row] = []
        positions: list[int] = []
        bad: list[BadRecord] = []
        for index, value in enumerate(values):
            try:
                rows.append(self._read(value))
            except RecordError as error:
                bad.append(bad_record(index, str(error)))
            else:
                positions.append(index)
        try:
            batch = self._to_arrow(rows)
        except _CONVERSION_ERRORS:
            batch, positions, unfit = self._convert_singly(rows, positions)
            bad = sorted(bad + unfit, key=lambda record: record.index)
        return DecodedBatch(batch, np.array(positions, dtype=np.int64), tuple(bad))

    def _read(self, value: bytes | None) -> _Row:
        if value is None:
            raise RecordError(TOMBSTONE)
        self._walk(value)
        stream = BytesIO(value)
        try:
            row: _Row = fastavro.schemaless_reader(stream, self._storage_schema, None)
        except (ArithmeticError, EOFError, LookupError, TypeError, ValueError) as error:
            raise RecordError(f"fastavro refuses it: {error!r}") from error
        if stream.tell() != len(value):
            raise RecordError(f"fastavro reads {stream.tell():,} of {len(value):,} bytes")
        return row

    def _to_arrow(self, rows: list[_Row]) -> pa.RecordBatch:
        record = self._schema.parsed
        columns = []
        for name, child, type_ in zip(record.names, record.children, self._storage_types, strict=True):
            column = pa.array([row[name] for row in rows], type_)
            if isinstance(column, pa.ChunkedArray):
                # Symbols of an enum are longer than their bytes, so the sum of the values does not bound them.
                raise pa.ArrowCapacityError(f"the column {name} takes more than {MAX_BATCH_BYTES:,} bytes")
            columns.append(from_storage(column, child))
        whole = pa.StructArray.from_arrays(columns, fields=record.arrow_fields)
        return pa.RecordBatch.from_struct_array(project_array(whole, record, self._kept))

    def _convert_singly(
        self, rows: list[_Row], positions: list[int]
    ) -> tuple[pa.RecordBatch, list[int], list[BadRecord]]:
        fit: list[int] = []
        bad: list[BadRecord] = []
        for row, position in enumerate(positions):
            try:
                self._to_arrow([rows[row]])
            except _CONVERSION_ERRORS as error:
                bad.append(bad_record(position, f"Arrow can't hold it: {error}"))
            else:
                fit.append(row)
        try:
            batch = self._to_arrow([rows[row] for row in fit])
        except _CONVERSION_ERRORS as error:
            raise FinkDaskError(f"{len(fit)} records do not fit in one Arrow record batch: {error}") from error
        return batch, [positions[row] for row in fit], bad


_CONVERSION_ERRORS = (pa.ArrowException, ArithmeticError, LookupError, TypeError, ValueError)
