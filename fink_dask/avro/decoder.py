"""Decode a batch at once: pass 1 judges and counts, pass 2 fills the columns of Arrow, in one piece of memory.

What comes out is the same whichever decoder is used: rows, and every bad record set aside with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fink_dask.avro.evolution import project
from fink_dask.avro.kernels import fill, walk
from fink_dask.avro.operations import DATA, ENDS, MAX_LOOPS, TEXT, VALID
from fink_dask.avro.program import Built, Constants, FillProgram, Numbering, compile_walk
from fink_dask.avro.schema import MAX_CELLS, AvroSchema
from fink_dask.avro.types import AvroType, lazy_property
from fink_dask.avro.walk import RecordError, body_of, make_walk
from fink_dask.batches import Memory, join_values, without_heads
from fink_dask.errors import FinkDaskError

#: Bytes of all values of a batch. Arrow's offsets have 32 bits, and a column may hold all of them.
MAX_BATCH_BYTES = 2**31 - 1
#: Characters of a reason.
MAX_REASON_CHARS = 200
#: Why a record without a value is not a row.
TOMBSTONE = "there is no value, which is Kafka's tombstone"

#: The greatest offset of Arrow that 32 bits hold.
MAX_OFFSET = 2**31 - 1
_ALIGNMENT = 64

_Ints = npt.NDArray[np.int64]

_Bytes = npt.NDArray[np.uint8]

#: Takes the rows of the key columns; returns the numbers of the rows that are wanted, in the order they are wanted in.
Order = Callable[[pa.RecordBatch], _Ints]


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
    """What became of the values of a batch: each is a row, a bad record, or left out on request.

    Parameters
    ----------
    rows : pyarrow.RecordBatch
        The decoded records in their order, with exactly the Arrow schema of the decoder's schema.
    positions : numpy.ndarray of int64, shape (rows,)
        Where each row was: ``rows[i]`` is decoded from ``values[positions[i]]``.
    bad : tuple of BadRecord
        The records that can't be decoded, in order of their index.
    left_out : numpy.ndarray of int64
        Where the sound records were that nobody wanted, in order.
    """

    rows: pa.RecordBatch
    positions: npt.NDArray[np.int64]
    bad: tuple[BadRecord, ...]
    left_out: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))


def bad_record(index: int, reason: str) -> BadRecord:
    """Make a `BadRecord` from a reason that may be long or have many lines.

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


class ArenaLayout:
    """What is the same for the arenas of all batches.

    Parameters
    ----------
    program : FillProgram
        Says which columns there are.

    Attributes
    ----------
    built : list of Built
        How columns of Arrow are put together.
    nullable, has_ends : numpy.ndarray of bool
        Whether a column has a validity and 32-bit offsets.
    bits, scopes, slots, units : numpy.ndarray of int64
        Of a column: bits of a value, the scope whose rows it has one entry for, where pass 1 counts its bytes, and the
        bytes of the unit in which pass 2 counts its values.
    """

    def __init__(self, program: FillProgram) -> None:
        columns = program.columns
        self.built = program.built
        self.nullable = np.array([column.node.nullable for column in columns], bool)
        self.has_ends = np.array([ENDS in column.parts for column in columns], bool)
        self.bits = np.array([column.bits for column in columns], np.int64)
        self.scopes = np.array([column.node.scope for column in columns], np.int64)
        self.slots = np.array([column.node.slot if TEXT in column.parts else -1 for column in columns], np.int64)
        self.units = np.array([column.unit for column in columns], np.int64)


class Arena:
    """The memory of one batch.

    Its parts are, in this order: every validity, which starts as ones; values of a fixed width and 32-bit offsets,
    which start as zeros; and bytes of any length, all of which pass 2 writes.

    Parameters
    ----------
    layout : ArenaLayout
        The columns.
    memory : Memory
        Where it is taken from.
    entries : numpy.ndarray of int64
        Rows of each scope.
    sizes : numpy.ndarray of int64
        Bytes of everything that has a length, and a last one that is 0.

    Attributes
    ----------
    used : numpy.ndarray of int64
        The last 32-bit offset of each column so far; the one after them belongs to none.
    nulls : numpy.ndarray of int64
        Nulls of each column so far.

    Raises
    ------
    FinkDaskError
        If a column is too large for its 32-bit offsets.
    """

    def __init__(
        self, layout: ArenaLayout, memory: Memory, entries: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]
    ) -> None:
        if max(sizes.max(), entries.max()) > MAX_OFFSET:
            raise FinkDaskError(
                f"the records do not fit in one Arrow record batch: a column of over {MAX_OFFSET:,} bytes"
            )
        self._layout = layout
        self._entries = entries
        rows = entries[layout.scopes]
        validity, values = (rows + 7) // 8 * layout.nullable, (rows * layout.bits + 7) // 8
        # One row a part, in the order of their numbers.
        self._lengths = np.array([validity, values, 4 * (rows + 1) * layout.has_ends, sizes[layout.slots]])
        stops = np.cumsum((self._lengths + _ALIGNMENT - 1) & -_ALIGNMENT)
        self._starts = np.concatenate([[0], stops[:-1]]).reshape(self._lengths.shape) if stops.size else self._lengths
        ones, zeros, everything = (int(stops[row * len(rows) - 1]) if stops.size else 0 for row in (1, 3, 4))
        self._bytes = memory.take(everything)
        self._memory = pa.py_buffer(self._bytes)
        self._begin, self._size = self._starts.tolist(), self._lengths.tolist()
        self._bytes[:ones] = 255
        self._bytes[ones:zeros] = 0
        self.nulls = np.zeros(len(rows), np.int64)
        self.used = np.zeros(len(rows) + 1, np.int64)

    @property
    def places(self) -> npt.NDArray[np.int64]:
        """Where the parts of each column begin, as pass 2 counts."""
        starts = self._starts
        return np.array([starts[VALID], starts[DATA] // self._layout.units, starts[ENDS] // 4, starts[TEXT]]).T.copy()

    @property
    def views(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """The memory as bytes, as int32 and as int64."""
        return self._bytes, self._bytes.view(np.int32), self._bytes.view(np.int64)

    def arrays(self) -> list[pa.Array]:
        """Return the columns of Arrow, none of them copied."""
        # Not by a nested function that calls itself: its reference cycle would keep the memory until it is collected.
        return [self._array(built) for built in self._layout.built]

    def _array(self, built: Built) -> pa.Array:
        rows, column = int(self._entries[built.scope]), built.column
        if pa.types.is_null(built.arrow):
            return pa.nulls(rows)
        null_count = int(self.nulls[column]) if column >= 0 else 0
        parts = (VALID, *built.parts) if null_count else built.parts
        buffers = [self._memory.slice(self._begin[part][column], self._size[part][column]) for part in parts]
        if not null_count:
            buffers.insert(0, None)
        if pa.types.is_boolean(built.arrow) and not built.parts:
            # A record without fields, which says only that it is there.
            buffers.append(pa.py_buffer(np.full((rows + 7) // 8, 255, np.uint8)))
        children = [self._array(child) for child in built.children] or None
        return pa.Array.from_buffers(built.arrow, rows, buffers, null_count, 0, children)


class ColumnarDecoder:
    """Decode a batch at once, in two compiled passes over its bytes that release Python's lock.

    All of a record is checked, whatever columns are asked for: which records are bad does not depend on them.

    Parameters
    ----------
    schema : AvroSchema
        The schema that the records were written with.
    columns : sequence of str or None
        The columns, or fields of structs with dots, that are decoded; None is all of them.
    key_columns : sequence of str
        The columns that `decode_joined` gives to its `order`.
    """

    def __init__(
        self, schema: AvroSchema, columns: Sequence[str] | None = None, key_columns: Sequence[str] = ()
    ) -> None:
        self._schema, self._columns, self._key_columns = schema, columns, key_columns
        numbering, constants = Numbering(), Constants()
        record = numbering.node(schema.parsed)
        kept = project(schema.parsed, columns)
        kept_keys = project(schema.parsed, key_columns) if key_columns else None
        rows = FillProgram(record, kept, constants)
        keys = FillProgram(record, kept_keys, constants) if kept_keys else None
        # Pass 1 notes where these fields begin, so that pass 2 reads nothing before them.
        marked = sorted({field for program in (rows, keys) if program for field, _ in program.starts})
        self._scopes, self._slots, self._marks = numbering.scopes, numbering.slots, len(marked)
        self._walk_ops = compile_walk(record, constants, marked)
        self._limits, self._symbols = constants.limits, constants.symbols
        self._joined = Memory()
        self._rows = _Filling(rows, kept, marked, constants)
        self._keys = _Filling(keys, kept_keys, marked, constants) if keys and kept_keys else None

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
        return self._rows.arrow

    def decode(self, values: Sequence[bytes | None]) -> DecodedBatch:
        """Decode a batch; see `fink_dask.avro.decoder.Decoder.decode`."""
        check_size(sum(map(len, filter(None, values))))
        return self.decode_joined(*join_values(values, self._joined))

    def decode_joined(
        self,
        buffer: bytes | _Bytes,
        offsets: _Ints,
        missing: npt.NDArray[np.bool_] | None = None,
        order: Order | None = None,
    ) -> DecodedBatch:
        """Decode a batch whose values are joined.

        Parameters
        ----------
        buffer : bytes or numpy.ndarray of uint8
            The values; they must not change meanwhile.
        offsets : numpy.ndarray of int64, shape (values + 1,)
            Where each value begins, and where the last one ends.
        missing : numpy.ndarray of bool, optional
            Which values are Kafka's tombstone, and not only empty.
        order : callable, optional
            Is given the sound rows with the key columns only, and returns the order in which the rows come out. Rows
            that it leaves out are not decoded any further.

        Returns
        -------
        DecodedBatch
            The rows and the bad records, each at its position in the batch. Hostile bytes make a record bad; they
            never raise.

        Raises
        ------
        FinkDaskError
            If the batch is too large for one Arrow record batch.
        """
        data = np.frombuffer(buffer, np.uint8).view()
        # The kernels are compiled for a buffer that is only read.
        data.flags.writeable = False
        offsets = np.ascontiguousarray(offsets, np.int64)
        if not len(offsets) or offsets[0] < 0 or offsets[-1] > len(data) or (np.diff(offsets) < 0).any():
            raise ValueError("the offsets of the values do not fit their bytes")
        check_size(int(offsets[-1] - offsets[0]))
        failed = np.full(len(offsets) - 1, -1, np.int64)
        if missing is not None:
            failed[missing] = 0
        whole, places = data, offsets
        if self._schema.prefix:
            # The top level is a union: what begins with the number of the record's branch goes on as a record.
            is_there = np.diff(offsets) > 0
            is_there[is_there] = data[offsets[:-1][is_there]] == self._schema.prefix[0]
            failed[~is_there] = 0
            data, offsets = without_heads(data, offsets, is_there.astype(np.int64))
        entries, sizes = np.zeros(self._scopes, np.int64), np.zeros(self._slots + 1, np.int64)
        marks = np.zeros((len(failed), self._marks), np.int64)
        tables = (self._walk_ops, self._limits, self._symbols)
        walk(data, offsets, *tables, MAX_CELLS, entries, sizes, marks, failed, *_stacks())
        positions = np.flatnonzero(failed < 0)
        entries[0] = len(positions)
        left_out = positions[:0]
        if order is not None:
            if self._keys is None:
                raise ValueError("an order without key columns")
            wanted = np.asarray(order(self._keys.fill(data, positions, marks, entries, sizes)), np.int64)
            # A row that came twice would take more memory than pass 1 has counted.
            times = np.bincount(wanted, minlength=len(positions))
            if len(times) > len(positions) or (times > 1).any():
                raise ValueError("an order that has a row twice")
            left_out = positions[times == 0]
            if left_out.size:
                # Pass 1 counts once more, of whichever are fewer: those that stay or those that don't.
                are_fewer = 2 * len(wanted) < len(positions)
                others = np.zeros(len(failed), np.int64)
                others[positions[times > 0] if are_fewer else left_out] = -1
                counts, bytes_ = np.zeros_like(entries), np.zeros_like(sizes)
                walk(data, offsets, *tables, MAX_CELLS, counts, bytes_, marks, others, *_stacks())
                entries, sizes = (counts, bytes_) if are_fewer else (entries - counts, sizes - bytes_)
                entries[0] = len(wanted)
            positions = positions[wanted]
        rows = self._rows.fill(data, positions, marks, entries, sizes)
        bad = []
        for index in np.flatnonzero(failed >= 0).tolist():
            value = whole[places[index] : places[index + 1]].tobytes()
            is_missing = missing is not None and missing[index]
            bad.append(bad_record(index, TOMBSTONE if is_missing else self._reason(value, failed[index])))
        return DecodedBatch(rows, positions, tuple(bad), left_out)

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


class _Filling:
    """Pass 2 of some columns."""

    def __init__(self, program: FillProgram, kept: AvroType, marked: list[int], constants: Constants) -> None:
        self.arrow = pa.schema(kept.arrow_fields)
        self._layout, self._memory = ArenaLayout(program), Memory()
        segments = np.array([(marked.index(field), pc) for field, pc in program.starts], np.int64)
        self._tables = (segments, program.ops, program.nulled, constants.symbols, constants.letters)

    def fill(self, data: _Bytes, positions: _Ints, marks: _Ints, entries: _Ints, sizes: _Ints) -> pa.RecordBatch:
        arena = Arena(self._layout, self._memory, entries, sizes)
        fill(data, positions, marks, *self._tables, arena.places, arena.used, arena.nulls, *arena.views, *_stacks())
        texts = self._layout.slots >= 0
        if not np.array_equal(arena.used[:-1][texts], sizes[self._layout.slots[texts]]):
            # Pass 2 writes without looking what pass 1 has counted; a difference is a mistake of this package.
            raise FinkDaskError("the decoder's passes disagree on the bytes of a batch: please report this")
        return pa.RecordBatch.from_arrays(arena.arrays(), schema=self.arrow)


def _stacks() -> tuple[_Ints, _Ints]:
    """Make room for the arrays and maps that a pass is inside of; compiled code can't allocate memory itself."""
    return np.empty(MAX_LOOPS, np.int64), np.empty(MAX_LOOPS, np.int64)
