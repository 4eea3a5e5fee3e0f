"""The memory of columns: what a batch is decoded into, and what its rows are appended to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fink_dask.avro.appending import append, begin, lay_out
from fink_dask.avro.operations import (
    BITS,
    BYTES,
    DATA,
    ENDS,
    ITEMS,
    PIECES,
    PLACES,
    SIZES,
    SYMBOLS,
    TEXTS,
    VALID,
)
from fink_dask.avro.program import Built, Program
from fink_dask.batches import Memory
from fink_dask.errors import FinkDaskError

#: The greatest offset of Arrow that 32 bits hold.
MAX_OFFSET = 2**31 - 1
#: Items of a list that there is room for at first, for each record.
_FEW = 16
#: How much more room a batch is given than what its records so far take.
_MARGIN = 1.25
#: How many times as much as before a guess may be, and the bytes of all memory from which on nothing is guessed: what
#: one record takes says little of the others where somebody means harm.
_MOST, _GUESSED_BYTES = 4, 2**26
#: How much more than its share a key may come to hold before it is written, as others are written before it; and which
#: part of what is held there is always room for in a text.
_SWING, _SPARE = 1.65, 1024
#: Bytes that the system gives at once, and those that a part takes beside what is in it.
_PAGE, _PART_BYTES = 4096, 128
#: Bytes of memory that is used again, as far as row groups are filled one after the other; less is soon made anew.
_REUSED_BYTES = 2**20
#: The parts of a column that are buffers of Arrow, after its validity.
_BUFFERS = {BITS: (DATA,), ITEMS: (ENDS,), BYTES: (ENDS, TEXTS)}

#: What is written is not what was measured: a mistake of this package.
_DISAGREES = "the decoder disagrees with itself on the bytes of a batch: please report this"

_Ints = npt.NDArray[np.int64]
_Bytes = npt.NDArray[np.uint8]
_NONE: _Bytes = np.frombuffer(b"", np.uint8)
_NO_ROWS = np.zeros(0, np.int64)


def _new(size: int) -> _Bytes:
    """Return memory from Arrow's allocator.

    It asks for no huge pages, of which what is not written to would take as much as the rest.
    """
    return np.frombuffer(pa.allocate_buffer(size), np.uint8)


#: That of the row groups of this process: as many pieces as its threads are likely to need at once.
_memory = Memory(_new, kept=4)


class Shape:
    """What is the same for all memory of a program's columns: of each, in order, its form, scope and validity."""

    def __init__(self, program: Program) -> None:
        self.forms = np.array([column.form for column in program.columns], np.int64)
        self.scopes = np.array([column.scope for column in program.columns], np.int64)
        self.may_be_null = np.array([column.nullable for column in program.columns], np.uint8)
        self.lists = np.array(program.lists, np.int64)
        self.symbols, self.letters = program.symbols, program.letters


def _place(forms: _Ints, scopes: _Ints, may_be_null: _Bytes, rows: _Ints, text_room: _Ints) -> tuple[_Ints, int]:
    """Return where the parts of columns are, from 0 on, and their bytes, for so many rows of scopes; and all bytes."""
    into = np.empty((len(forms), PLACES), np.int64)
    return into, lay_out(forms, scopes, may_be_null, rows, text_room, into.reshape(-1))


def _enough(guess: npt.NDArray[np.floating[Any]], room: _Ints, needed: _Ints) -> _Ints:
    """Return how much room to make: by a guess, but not many times what there is, as the next record may be another."""
    least = np.where(needed > 0, np.maximum(needed, 2 * room), 0)
    most: _Ints = np.minimum(guess, _MOST * room).astype(np.int64)
    return np.maximum(least, most)


class Scratch:
    """Memory that one batch after the other is decoded into; it grows with them."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        #: table, room, used, before: where the parts of the columns are; rows of each scope that there is room for,
        #: that there are, and that there were before a record.
        self.table = np.zeros((len(shape.forms), PLACES), np.int64)
        self.room, self.used, self.before = (np.zeros(len(shape.lists), np.int64) for _ in range(3))
        #: Whether a column has a null.
        self.holes = np.zeros(len(shape.forms), np.uint8)
        #: Of a record that did not fit, the rows of each scope that are too few.
        self.needed = np.zeros(len(shape.lists), np.int64)
        #: The batch, of which the columns have pieces.
        self.batch = _NONE
        self._columns = [np.flatnonzero(shape.scopes == scope) for scope in range(len(shape.lists))]
        self._slabs = [np.empty(0, np.uint8) for _ in self._columns]
        #: Bytes of each slab, at its beginning, that are the validity of columns.
        self._ones = [0 for _ in self._columns]

    @property
    def nbytes(self) -> int:
        """Bytes of all of it."""
        return sum(map(len, self._slabs))

    def begin(self, batch: _Bytes, records: int) -> None:
        """Make it empty, with room for so many records of a batch, which it keeps."""
        self.batch = batch
        self.used[:] = 0
        self.holes[:] = 0
        for scope, room in enumerate(self.room.tolist()):
            least = records if scope == 0 else min(records, _FEW)
            if room < max(1, least):
                self._make_scope(scope, max(1, least))
        for slab, ones in zip(self._slabs, self._ones, strict=True):
            slab[:ones] = 255
        for column in np.flatnonzero(self._shape.forms == BITS).tolist():
            slab = self._slabs[self._shape.scopes[column]]
            start = int(self.table[column, DATA]) - slab.ctypes.data
            slab[start : start + int(self.table[column, SIZES + DATA])] = 0

    def end(self) -> None:
        """Let go of the batch."""
        self.batch = _NONE

    def grow(self, done: int, records: int) -> None:
        """Make room for a record that did not fit and, by what `done` of the records took, for those that follow."""
        ratio = _MARGIN * records / max(1, done) if self.nbytes < _GUESSED_BYTES else 0.0
        rows = _enough(ratio * self.used, self.room, self.needed)
        # There is always room for the records.
        for scope in (np.flatnonzero(rows[1:] > self.room[1:]) + 1).tolist():
            self._make_scope(scope, int(rows[scope]))
        self.needed[:] = 0

    def _make_scope(self, scope: int, rows: int) -> None:
        """Give the columns of a scope more room, and keep what they hold."""
        columns, old, before = self._columns[scope], self._slabs[scope], self.table.copy()
        forms, zeros = self._shape.forms[columns], np.zeros(len(columns), np.int64)
        # One row more than asked for, for the items of a record that does not fit.
        into, size = _place(forms, zeros, self._shape.may_be_null[columns], np.array([rows + 1]), zeros)
        new = self._slabs[scope] = np.empty(size, np.uint8)
        self._ones[scope] = int(into[0, DATA]) if len(columns) else 0
        begin, begin_old = new.ctypes.data, old.ctypes.data
        for index, column in enumerate(columns.tolist()):
            for part in (VALID, DATA, ENDS):
                start, length = int(into[index, part]), int(into[index, SIZES + part])
                if not length:
                    continue
                kept, source = int(before[column, SIZES + part]), int(before[column, part]) - begin_old
                is_bits = part == VALID or (part == DATA and forms[index] == BITS)
                new[start : start + kept] = old[source : source + kept] if kept else 0
                if is_bits:
                    new[start + kept : start + length] = 255 if part == VALID else 0
                elif part == ENDS and not kept:
                    new[start : start + 4] = 0
                self.table[column, part], self.table[column, SIZES + part] = begin + start, length
        self.room[scope] = rows


class Taker:
    """Says which of the decoded columns rows are taken out of, and what columns of Arrow are made of them.

    `built`: the columns of Arrow.
    """

    def __init__(self, shape: Shape, built: Sequence[Built], schema: pa.Schema) -> None:
        self.schema, self.shape, self.built = schema, shape, built
        self.wanted = np.array(sorted({column for each in built for column in each.columns()}), np.int64)
        self.numbers = {column: number for number, column in enumerate(self.wanted.tolist())}
        # What becomes bytes where it is taken.
        forms = shape.forms[self.wanted]
        self.forms = np.where((forms == SYMBOLS) | (forms == PIECES), BYTES, forms)
        self.scopes, self.may_be_null = shape.scopes[self.wanted], shape.may_be_null[self.wanted]
        #: For columns of items the scope of these, else 0.
        self.items = np.zeros(len(self.wanted), np.int64)
        #: Of each scope, the column whose items it has and the scope of that, among those that were decoded, and among
        #: these; -1 where it is not wanted.
        self.lists, self.own_lists = shape.lists.copy(), shape.lists.copy()
        for scope, column in enumerate(shape.lists[:, 0].tolist()):
            number = self.own_lists[scope, 0] = self.numbers.get(column, -1)
            if number >= 0:
                self.items[number] = scope
            else:
                self.lists[scope, 0] = -1
        self.everything = np.arange(len(self.wanted))
        #: How many parts the columns have, with one for their table, and what a row of each scope takes in them without
        #: its texts.
        eight, no_texts = np.full(len(shape.lists), 8), np.zeros(len(self.wanted), np.int64)
        lengths = self.lengths(self.may_be_null, eight, no_texts)
        self.parts = 1 + int((lengths > 0).sum()) + int((self.forms == BYTES).sum())
        self.widths = np.bincount(self.scopes, lengths.sum(0) / 8, len(shape.lists))

    def lengths(self, may_be_null: _Bytes, rows: _Ints, sizes: _Ints) -> _Ints:
        """Return the bytes of each part of the columns with so many rows of each scope, and texts of so many bytes."""
        into, _ = _place(self.forms, self.scopes, may_be_null, rows, sizes)
        lengths = into[:, SIZES:].T
        lengths[TEXTS] = sizes
        return lengths

    def take(self, scratch: Scratch, rows: _Ints | None) -> pa.RecordBatch:
        """Return rows in the order of their numbers; None is all of them.

        Raises FinkDaskError if a column is too large for its 32-bit offsets.
        """
        columns = Columns(self)
        columns.append(scratch, rows)
        return columns.batch()


class Columns:
    """Rows of one decoded batch after the other, in memory that is laid out as Arrow's and grows with them."""

    def __init__(self, taker: Taker) -> None:
        self.taker = taker
        scopes, columns = len(taker.shape.lists), len(taker.wanted)
        #: rows, sizes, nulls: rows of each scope, bytes of each column's text, and its nulls.
        self._rows, self._sizes, self._nulls = (np.zeros(each, np.int64) for each in (scopes, columns, columns))
        # What there is room for, and what was needed last.
        self._room, self._text_room = np.full(scopes, -1), np.full(columns, -1)
        self._needed, self._needed_sizes = np.zeros(scopes, np.int64), np.zeros(columns, np.int64)
        self._memory = _NONE
        # Where the parts of the columns are, and their bytes; and where the memory was when that was written.
        self._into, self._address = np.zeros((columns, PLACES), np.int64), 0
        #: Bytes that it takes, but for the room that is left.
        self.nbytes = 0

    def append(self, scratch: Scratch, rows: _Ints | None, most: float = 0, share: float = 1) -> None:
        """Add rows in the order of their numbers; None is all of them.

        `most`: bytes that will be held, of which this is about a `share`.
        Raises FinkDaskError if a column is too large for its 32-bit offsets.
        """
        taker, shape = self.taker, self.taker.shape
        source = scratch.batch, scratch.table.reshape(-1), shape.forms, shape.scopes, scratch.holes, taker.lists
        self._add((*source, taker.wanted, int(scratch.used[0])), rows, most, share)

    def batch(self) -> pa.RecordBatch:
        """Return the rows; they keep the memory, and nothing may be appended as long as they are there."""
        taker = self.taker
        lengths = taker.lengths((self._nulls > 0).astype(np.uint8), self._rows, self._sizes)
        starts = (self._into[:, :SIZES] - self._address).T
        taken = _Taken(
            taker, pa.py_buffer(self._memory), starts.tolist(), lengths.tolist(), self._nulls.tolist(),
            self._rows.tolist(),
        )  # fmt: skip
        return pa.RecordBatch.from_arrays([taken.array(built) for built in taker.built], schema=taker.schema)

    def extend(self, other: Columns, most: float) -> None:
        """Add the rows of other columns of the same taker; `most` bytes will be held.

        Raises FinkDaskError if a column is too large for its 32-bit offsets.
        """
        self._add(other._source(), None, most, 1)

    def pack(self) -> pa.Buffer:
        """Return the memory without what room is left; the rows are gone until it is given back."""
        self._move(self._rows.copy(), self._sizes.copy())
        packed, self._memory = pa.py_buffer(self._memory), _NONE
        return packed

    def unpack(self, packed: bytes) -> None:
        """Take the memory back; it is only read."""
        self._memory = np.frombuffer(packed, np.uint8)
        self._into[:, :SIZES] += self._memory.ctypes.data - self._address
        self._address = self._memory.ctypes.data
        self._room = np.zeros_like(self._rows)

    def _source(self) -> tuple[Any, ...]:
        """Return what its rows are appended from, to other columns."""
        taker, holes = self.taker, (self._nulls > 0).astype(np.uint8)
        columns = self._into.reshape(-1), taker.forms, taker.scopes, holes, taker.own_lists, taker.everything
        return (_NONE, *columns, int(self._rows[0]))

    def _add(self, source: tuple[Any, ...], rows: _Ints | None, most: float, share: float) -> None:
        """Append rows of a source, or all of them, where there is room for them; else make room first."""
        while not self._append(source, rows):
            self._make_room(most, share)
        self.nbytes = self._bytes(self._rows, self._sizes)

    def _append(self, source: tuple[Any, ...], rows: _Ints | None) -> bool:
        taker, shape = self.taker, self.taker.shape
        spans = np.empty(2 * len(self._rows) * (1 if rows is None else max(1, len(rows))), np.int64)
        done = append(
            *source, _NO_ROWS if rows is None else rows, int(rows is None), spans, shape.symbols, shape.letters,
            taker.items, self._into.reshape(-1), self._room, self._text_room, self._rows, self._sizes, self._nulls,
            self._needed, self._needed_sizes,
        )  # fmt: skip
        if done == -1:
            raise ValueError("rows that are not there")
        if done < 0:
            raise FinkDaskError(_DISAGREES)
        return bool(done)

    def _bytes(self, rows: _Ints, sizes: _Ints) -> int:
        return int(self.taker.widths @ rows) + int(sizes.sum()) + _PART_BYTES * self.taker.parts

    def _make_room(self, most: float, share: float) -> None:
        """Make room for what is needed, and for what is to come."""
        taker, rows, sizes = self.taker, self._needed, self._needed_sizes
        if max(rows.max(), sizes.max(initial=0)) > MAX_OFFSET:
            raise FinkDaskError(
                f"the records do not fit in one Arrow record batch: a column of over {MAX_OFFSET:,} bytes"
            )
        nbytes = self._bytes(rows, sizes)
        room, text_room = rows.astype(np.float64), sizes.astype(np.float64)
        # Memory that is not written to takes none, but whole pages: of a few rows, room for all that may come would
        # take many times as much as they do.
        if most > nbytes >= _PAGE * taker.parts:
            more = max(1.0, min(_SWING * share, 1) * _MARGIN * most / nbytes)
            room *= more
            # Of lists and of rare texts, the first rows tell less.
            room[1:] *= _MARGIN
            text_room += (more - 1) * text_room + most / _SPARE
        else:
            room, text_room = (each * max(1.0, min(2.0, most / nbytes)) for each in (room, text_room))
        self._move(*(np.minimum(np.ceil(each), MAX_OFFSET).astype(np.int64) for each in (room, text_room)))

    def _move(self, room: _Ints, text_room: _Ints) -> None:
        """Move to memory with so much room."""
        taker, source, kept = self.taker, self._source(), self._memory
        self._room, self._text_room = room, text_room
        self._into, size = _place(taker.forms, taker.scopes, taker.may_be_null, room, text_room)
        self._memory = _memory.take(size) if size >= _REUSED_BYTES else _new(size)
        self._address = self._memory.ctypes.data
        begin(taker.forms, self._into.reshape(-1), self._address)
        if len(kept):
            for each in (self._rows, self._sizes, self._nulls):
                each[:] = 0
            if not self._append(source, None):
                raise FinkDaskError(_DISAGREES)


@dataclass(frozen=True, eq=False)
class _Taken:
    """What columns of Arrow are made of: memory, where the parts of columns are in it, nulls, and rows of scopes."""

    taker: Taker
    memory: pa.Buffer
    starts: list[list[int]]
    lengths: list[list[int]]
    nulls: list[int]
    rows: list[int]

    def array(self, built: Built) -> pa.Array:
        """Return a column; it keeps all of the memory."""
        # Not a nested function that calls itself: its reference cycle would keep the memory until it is collected.
        rows, null_count = self.rows[built.scope], 0
        if pa.types.is_null(built.arrow):
            return pa.nulls(rows)
        buffers = [None]
        if built.column >= 0:
            number = self.taker.numbers[built.column]
            form = int(self.taker.forms[number])
            null_count = self.nulls[number]
            if null_count:
                buffers = [self._buffer(VALID, number)]
            buffers += [self._buffer(part, number) for part in _BUFFERS.get(form, (DATA,) if form else ())]
        if pa.types.is_boolean(built.arrow) and len(buffers) == 1:
            # A record without fields, which says only that it is there.
            buffers.append(pa.py_buffer(np.full((rows + 7) // 8, 255, np.uint8)))
        children = [self.array(child) for child in built.children] or None
        return pa.Array.from_buffers(built.arrow, rows, buffers, null_count, 0, children)

    def _buffer(self, part: int, number: int) -> pa.Buffer:
        return self.memory.slice(self.starts[part][number], self.lengths[part][number])
