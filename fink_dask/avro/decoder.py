"""Decode a batch at once, in two calls: one judges the records and writes their values, one takes rows out of these.

What comes out is the same whichever decoder is used: rows, and every bad record set aside with its reason.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fink_dask.avro.columns import Columns, Scratch, Shape, Taker
from fink_dask.avro.evolution import project
from fink_dask.avro.kernels import decode
from fink_dask.avro.operations import MAX_LOOPS
from fink_dask.avro.program import Program
from fink_dask.avro.reasons import RecordError, body_of, make_walk
from fink_dask.avro.schema import MAX_CELLS, AvroSchema
from fink_dask.avro.types import lazy_property
from fink_dask.batches import Memory, join_values
from fink_dask.errors import FinkDaskError

#: Bytes of all values of a batch. Arrow's offsets have 32 bits, and a column may hold all of them.
MAX_BATCH_BYTES = 2**31 - 1
#: Characters of a reason.
MAX_REASON_CHARS = 200
#: Why a record without a value is not a row.
TOMBSTONE = "there is no value, which is Kafka's tombstone"

#: Scratch memory that is kept for the next batches, and the most bytes of it; what was larger was an exception.
_KEPT, _KEPT_BYTES = 2, 2**26

_Ints = npt.NDArray[np.int64]

_Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class BadRecord:
    """A record that can't be decoded."""

    #: Its place in the batch, from 0.
    index: int
    #: What is wrong with it: one line of at most `MAX_REASON_CHARS` characters.
    reason: str


@dataclass(frozen=True, eq=False)
class DecodedBatch:
    """What became of the values of a batch: each is a row or a bad record."""

    #: The decoded records in their order, with exactly the Arrow schema of the decoder's schema.
    rows: pa.RecordBatch
    #: Where each row was: ``rows[i]`` is decoded from ``values[positions[i]]``.
    positions: npt.NDArray[np.int64]
    #: The records that can't be decoded, in order of their index.
    bad: tuple[BadRecord, ...]


def bad_record(index: int, reason: str) -> BadRecord:
    """Make a `BadRecord` from a reason that may be long or have many lines.

    Returns: the record with the beginning of the reason.
    """
    line = " ".join(reason.split())
    return BadRecord(index, line if len(line) <= MAX_REASON_CHARS else f"{line[: MAX_REASON_CHARS - 3]}...")


def check_size(total: int) -> None:
    """Refuse a batch that Arrow's offsets can't reach.

    `total`: bytes of all values of the batch.
    Raises FinkDaskError if it is larger than `MAX_BATCH_BYTES`.
    """
    if total > MAX_BATCH_BYTES:
        raise FinkDaskError(f"a batch has {total:,} bytes, and Arrow holds at most {MAX_BATCH_BYTES:,}")


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

        `values`: one schemaless Avro datum each, as it came from Kafka; None is Kafka's tombstone. At most
        `MAX_BATCH_BYTES` together.
        Returns: the rows and the bad records. Hostile bytes make a record bad; they never raise.
        Raises FinkDaskError if the batch is too large for one Arrow record batch.
        """


class Decoding:
    """A batch that has been decoded, until its rows have been taken.

    It keeps the batch. `positions`: where each record that can be a row was in it.
    `bad`: the records that can't be decoded, in order of their index.
    """

    def __init__(self, scratch: Scratch, takers: tuple[Taker, Taker], positions: _Ints, bad: tuple[BadRecord, ...]):
        self._scratch, (self._rows, self._keys) = scratch, takers
        self.positions, self.bad = positions, bad

    def keys(self) -> pa.RecordBatch:
        """Return the key columns of the sound records."""
        return self._keys.take(self._scratch, None)

    def take(self, rows: _Ints | None = None) -> pa.RecordBatch:
        """Return sound records in the order of their numbers; None is all of them.

        Raises FinkDaskError if they are too large for one Arrow record batch.
        """
        return self._rows.take(self._scratch, rows)

    @property
    def taker(self) -> Taker:
        """What rows are taken by, and the columns are of that they are appended to."""
        return self._rows

    def append(self, columns: Columns, rows: _Ints, most: float, share: float) -> None:
        """Append sound records, in the order of their numbers, to columns; see `Columns.append`."""
        columns.append(self._scratch, rows, most, share)


class ColumnarDecoder:
    """Decode a batch at once, in one compiled pass over its bytes that releases Python's lock.

    All of a record is checked, whatever columns are asked for: which records are bad does not depend on them.

    `schema`: the schema that the records were written with.
    `columns`: the columns, or fields of structs with dots, that are decoded; None is all of them.
    """

    def __init__(
        self, schema: AvroSchema, columns: Sequence[str] | None = None, key_columns: Sequence[str] = ()
    ) -> None:
        self._schema, self._columns, self._key_columns = schema, columns, key_columns
        record = schema.parsed
        kept = project(record, columns)
        kept_keys = project(record, key_columns) if key_columns else kept
        program = Program(record, project(record, None if columns is None else (*columns, *key_columns)))
        shape = self._shape = Shape(program)
        self._tables = (program.ops, program.nulled, program.limits, shape.forms, shape.scopes, shape.lists)
        rows, keys = (Taker(shape, program.build(each), pa.schema(each.arrow_fields)) for each in (kept, kept_keys))
        self._takers = (rows, keys)
        self._joined = Memory()
        self._spare: list[Scratch] = []

    def __reduce__(self) -> tuple[type[ColumnarDecoder], tuple[AvroSchema, Sequence[str] | None, Sequence[str]]]:
        # The schema is smaller than what is compiled from it.
        return (ColumnarDecoder, (self._schema, self._columns, self._key_columns))

    @property
    def schema(self) -> AvroSchema:
        """The schema that the records were written with."""
        return self._schema

    @property
    def arrow(self) -> pa.Schema:
        """The Arrow schema of the rows."""
        return self._takers[0].schema

    def decode(self, values: Sequence[bytes | None]) -> DecodedBatch:
        """Decode a batch; see `fink_dask.avro.decoder.Decoder.decode`."""
        check_size(sum(map(len, filter(None, values))))
        decoding = self.decode_joined(*join_values(values, self._joined))
        return DecodedBatch(decoding.take(), decoding.positions, decoding.bad)

    def decode_joined(
        self, buffer: bytes | _Bytes, offsets: _Ints, missing: npt.NDArray[np.bool_] | None = None
    ) -> Decoding:
        """Decode a batch whose values are joined.

        `buffer`: the values; they must not change meanwhile.
        `offsets`: where each value begins, and where the last one ends.
        `missing`: which values are Kafka's tombstone, and not only empty.
        Returns: the bad records, and the rows to be taken. Hostile bytes make a record bad; they never raise.
        Raises FinkDaskError if the batch is too large for one Arrow record batch.
        """
        data = np.frombuffer(buffer, np.uint8).view()
        # The kernels are compiled for a buffer that is only read.
        data.flags.writeable = False
        # A copy: they are few, nobody else can change them, and kernels are compiled for what can be written to.
        offsets = np.array(offsets, np.int64)
        if not len(offsets) or offsets[0] < 0 or offsets[-1] > len(data) or (np.diff(offsets) < 0).any():
            raise ValueError("the offsets of the values do not fit their bytes")
        check_size(int(offsets[-1] - offsets[0]))
        data = data[offsets[0] : offsets[-1]]
        offsets -= offsets[0]
        begins, ends = offsets[:-1], offsets[1:]
        failed = np.full(len(begins), -1, np.int64)
        if missing is not None:
            failed[missing] = 0
        if self._schema.prefix:
            # The top level is a union: what begins with the number of the record's branch goes on as a record.
            is_there = begins < ends
            is_there[is_there] = data[begins[is_there]] == self._schema.prefix[0]
            failed[~is_there] = 0
            begins = begins + is_there
        scratch = self._read(data, begins, ends, failed)
        bad = []
        for index in np.flatnonzero(failed >= 0).tolist():
            value = data[offsets[index] : offsets[index + 1]].tobytes()
            is_missing = missing is not None and missing[index]
            bad.append(bad_record(index, TOMBSTONE if is_missing else self._reason(value, failed[index])))
        decoding = Decoding(scratch, self._takers, np.flatnonzero(failed < 0), tuple(bad))
        weakref.finalize(decoding, self._give_back, scratch).atexit = False
        return decoding

    def _read(self, data: _Bytes, begins: _Ints, ends: _Ints, failed: _Ints) -> Scratch:
        try:
            scratch = self._spare.pop()
        except IndexError:
            scratch = Scratch(self._shape)
        scratch.begin(data, len(begins))
        stacks = [np.empty(MAX_LOOPS, np.int64) for _ in range(3)]
        done = 0
        while True:
            done = decode(
                data, begins, ends, done, failed, MAX_CELLS, *self._tables,
                scratch.table.reshape(-1), scratch.room, scratch.used, scratch.before, scratch.holes, *stacks,
                scratch.needed,
            )  # fmt: skip
            if done == len(begins):
                return scratch
            scratch.grow(done, len(begins))

    def _give_back(self, scratch: Scratch) -> None:
        scratch.end()
        if len(self._spare) < _KEPT and scratch.nbytes <= _KEPT_BYTES:
            self._spare.append(scratch)

    def _reason(self, value: bytes, place: int) -> str:
        try:
            # The few bad records are walked once more, where there are words for everything.
            self._explain(body_of(value, self._schema.prefix))
        except RecordError as error:
            return str(error)
        return f"it is damaged at byte {place:,}"

    @lazy_property
    def _explain(self) -> Callable[[bytes], None]:
        return make_walk(self._schema.parsed)
