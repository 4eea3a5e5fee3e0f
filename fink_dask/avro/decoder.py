"""Decode batches of Avro records into Arrow, with every bad record set aside and named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Protocol

import fastavro
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fink_dask.avro.projection import project, project_array
from fink_dask.avro.schema import AvroSchema
from fink_dask.avro.storage import from_storage, storage_schema, storage_type
from fink_dask.avro.walk import RecordError, compile_walk
from fink_dask.errors import FinkDaskError

#: Bytes of all values of a batch. Arrow's offsets have 32 bits, and a column may hold all of them.
MAX_BATCH_BYTES = 2**31 - 1
#: Characters of a reason.
MAX_REASON_CHARS = 200
#: Why a record without a value is no row.
TOMBSTONE = "there is no value, which is Kafka's tombstone"

_Row = dict[str, object]


@dataclass(frozen=True)
class BadRecord:
    """A record that can't be decoded.

    Parameters
    ----------
    index : int
        Its place in the batch, from 0.
    reason : str
        What is wrong with it: one line of at most `MAX_REASON_CHARS` characters.
    """

    index: int
    reason: str


@dataclass(frozen=True, eq=False)
class DecodedBatch:
    """What became of the values of a batch: each is a row, or a bad record, and never both.

    Parameters
    ----------
    rows : pyarrow.RecordBatch
        The decoded records in their order, with exactly the Arrow schema of the decoder's schema.
    positions : numpy.ndarray of int64, shape (rows,)
        Where each row was: ``rows[i]`` is decoded from ``values[positions[i]]``.
    bad : tuple of BadRecord
        The records that can't be decoded, by index.
    """

    rows: pa.RecordBatch
    positions: npt.NDArray[np.int64]
    bad: tuple[BadRecord, ...]


def bad_record(index: int, reason: str) -> BadRecord:
    """Make a `BadRecord` of a reason that may be long or have many lines.

    Parameters
    ----------
    index : int
        Its place in the batch.
    reason : str
        What is wrong with it.

    Returns
    -------
    BadRecord
        The record with the beginning of the reason.
    """
    line = " ".join(reason.split())
    return BadRecord(index, line if len(line) <= MAX_REASON_CHARS else f"{line[: MAX_REASON_CHARS - 3]}...")


def check_size(total: int) -> None:
    """Refuse a batch that Arrow's offsets can't reach.

    Parameters
    ----------
    total : int
        Bytes of all values of the batch.

    Raises
    ------
    FinkDaskError
        If it is larger than `MAX_BATCH_BYTES`.
    """
    if total > MAX_BATCH_BYTES:
        raise FinkDaskError(f"a batch of {total:,} bytes; Arrow holds at most {MAX_BATCH_BYTES:,}")


class Decoder(Protocol):
    """Decodes the records of one schema. It may be shared by threads, and it pickles."""

    @property
    def schema(self) -> AvroSchema:
        """The schema that the records were written with."""

    @property
    def arrow(self) -> pa.Schema:
        """The Arrow schema of the rows: that of `schema`, or of the columns of it that are decoded."""

    def decode(self, values: Sequence[bytes | None]) -> DecodedBatch:
        """Decode a batch.

        Parameters
        ----------
        values : sequence of bytes or None
            One schemaless Avro datum each, as it came from Kafka; None is Kafka's tombstone. At most `MAX_BATCH_BYTES`
            together.

        Returns
        -------
        DecodedBatch
            The rows and the bad records. Hostile bytes make a record bad; they never raise.

        Raises
        ------
        FinkDaskError
            If the batch is too large for one Arrow record batch.
        """


def make_decoder(schema: AvroSchema, columns: Sequence[str] | None = None) -> Decoder:
    """Make the decoder for a schema.

    Parameters
    ----------
    schema : AvroSchema
        The schema that the records were written with.
    columns : sequence of str or None
        The columns, such as ``objectId``, or fields of structs, such as ``candidate.jd``, that are decoded; None is
        all of them. A record that is bad is bad whatever columns are asked for.

    Returns
    -------
    Decoder
        A decoder, to be made once and used for many batches.

    Raises
    ------
    SettingsError
        If the schema has no such column.
    """
    # Late, because numba takes a third of a second to import.
    from fink_dask.avro.columnar import ColumnarDecoder

    return ColumnarDecoder(schema, columns)


class FastavroDecoder:
    """Decode record by record with fastavro, behind a walk that lets only sound bytes through.

    Parameters
    ----------
    schema : AvroSchema
        The schema that the records were written with.
    columns : sequence of str or None
        The columns that are decoded; see `make_decoder`.
    """

    def __init__(self, schema: AvroSchema, columns: Sequence[str] | None = None) -> None:
        self._schema = schema
        self._columns = columns
        self._kept = project(schema.parsed, columns)
        self._walk = compile_walk(schema.parsed)
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
                # Symbols of an enum are longer than their bytes, so the sum of the values is no bound for them.
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
