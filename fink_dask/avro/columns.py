"""The memory of columns: what a batch is decoded into, and what its rows are appended to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fink_dask.avro.kernels import gather, measure
from fink_dask.avro.operations import BITS, BYTES, DATA, ENDS, ITEMS, PLACES, SIZES, SLACK, SYMBOLS, TEXTS, VALID
from fink_dask.avro.program import Built, Program
from fink_dask.errors import FinkDaskError

#: The greatest offset of Arrow that 32 bits hold.
MAX_OFFSET = 2**31 - 1
_ALIGNMENT = 64
#: Bytes of a text and items of a list that there is room for at first, for each record.
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
#: The parts of a column that are buffers of Arrow, after its validity.
_BUFFERS = {BITS: (DATA,), ITEMS: (ENDS,), BYTES: (ENDS, TEXTS)}

_Ints = npt.NDArray[np.int64]


class Shape:
    """What is the same for all memory of a program's columns: of each, in order, its form, scope and validity."""

    def __init__(self, program: Program) -> None:
        self.forms = np.array([column.form for column in program.columns], np.int64)
        self.scopes = np.array([column.scope for column in program.columns], np.int64)
        self.nullable = np.array([column.nullable for column in program.columns], bool)
        self.lists = np.array(program.lists, np.int64)
        self.symbols, self.letters = program.symbols, program.letters


def _lengths(forms: _Ints, rows: _Ints, nullable: npt.NDArray[np.bool_]) -> _Ints:
    """Return the bytes of each part of columns with so many rows, without their texts, whose length varies."""
    bits = (rows + 7) // 8
    values = np.where(forms > 0, forms, 0) * rows + bits * (forms == BITS) + 4 * rows * (forms == SYMBOLS)
    ends = 4 * (rows + 1) * ((forms == ITEMS) | (forms == BYTES))
    return np.array([bits * nullable, values, ends, np.zeros_like(rows)])


def _spaces(lengths: _Ints) -> _Ints:
    """Return the bytes that parts take with what may be read and written beyond them; an empty part is none."""
    # One line of the cache more than needed: else all columns would begin in the same few places of it.
    return np.where(lengths > 0, (lengths + SLACK + 2 * _ALIGNMENT - 1) & -_ALIGNMENT, 0)


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
        #: Of a record that did not fit: the bytes of each column, then the rows of each scope, that are too few.
        self.needed = np.zeros(len(shape.forms) + len(shape.lists), np.int64)
        self._columns = [np.flatnonzero(shape.scopes == scope) for scope in range(len(shape.lists))]
        self._slabs = [np.empty(0, np.uint8) for _ in self._columns]
        #: Bytes of each slab, at its beginning, that are the validity of columns.
        self._ones = [0 for _ in self._columns]
        self._texts = {int(column): np.empty(0, np.uint8) for column in np.flatnonzero(shape.forms == BYTES)}

    @property
    def nbytes(self) -> int:
        """Bytes of all of it."""
        return sum(map(len, self._slabs)) + sum(map(len, self._texts.values()))

    def begin(self, records: int) -> None:
        """Make it empty, with room for so many records."""
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
        for column, text in self._texts.items():
            if not len(text):
                self._make_text(column, _FEW * records + SLACK)

    def grow(self, done: int, records: int) -> None:
        """Make room for a record that did not fit and, by what `done` of the records took, for those that follow."""
        shape, columns = self._shape, np.array(list(self._texts), np.int64)
        ratio = _MARGIN * records / max(1, done) if self.nbytes < _GUESSED_BYTES else 0.0
        spans = _spans(None, int(self.used[0]), len(shape.lists))
        counts, sizes = np.zeros(len(shape.lists), np.int64), np.zeros(len(columns), np.int64)
        measure(
            self.table.reshape(-1), shape.forms, shape.scopes, shape.lists, columns, shape.symbols, spans, counts, sizes
        )
        rows = _enough(ratio * counts, self.room, self.needed[len(shape.forms) :])
        # There is always room for the records.
        for scope in (np.flatnonzero(rows[1:] > self.room[1:]) + 1).tolist():
            self._make_scope(scope, int(rows[scope]))
        room = self.table[columns, SIZES + TEXTS]
        sizes = _enough(ratio * sizes, room, self.needed[columns])
        for number in np.flatnonzero(sizes > room).tolist():
            self._make_text(int(columns[number]), int(sizes[number]))
        self.needed[:] = 0

    def _make_text(self, column: int, size: int) -> None:
        old, new = self._texts[column], np.empty(size, np.uint8)
        new[: len(old)] = old
        self._texts[column] = new
        self.table[column, TEXTS], self.table[column, SIZES + TEXTS] = new.ctypes.data, size

    def _make_scope(self, scope: int, rows: int) -> None:
        """Give the columns of a scope more room, and keep what they hold."""
        columns, old, before = self._columns[scope], self._slabs[scope], self.table.copy()
        forms, nullable = self._shape.forms[columns], self._shape.nullable[columns]
        # One row more than asked for, for the items of a record that does not fit.
        lengths = _lengths(forms, np.full(len(columns), rows + 1), nullable)
        stops = np.cumsum(_spaces(lengths)).reshape(lengths.shape)
        starts = stops - _spaces(lengths)
        new = self._slabs[scope] = np.empty(int(stops[-1, -1]) if stops.size else 0, np.uint8)
        self._ones[scope] = int(stops[VALID, -1]) if stops.size else 0
        begin, begin_old = new.ctypes.data, old.ctypes.data
        for index, column in enumerate(columns.tolist()):
            for part in (VALID, DATA, ENDS):
                length, start = int(lengths[part, index]), int(starts[part, index])
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
        # What are symbols where they were decoded are texts from here on.
        forms = shape.forms[self.wanted]
        self.forms = np.where(forms == SYMBOLS, BYTES, forms)
        self.scopes, self.nullable = shape.scopes[self.wanted], shape.nullable[self.wanted]
        #: Numbers of the columns with offsets, and for those of items the scope of these, else 0.
        self.ended = np.flatnonzero((self.forms == BYTES) | (self.forms == ITEMS))
        self.items = np.zeros(len(self.wanted), np.int64)
        for scope, column in enumerate(shape.lists[1:, 0].tolist(), 1):
            if column in self.numbers:
                self.items[self.numbers[column]] = scope
        #: How many parts the columns have, with one for their table, and what a row of each scope takes in them without
        #: its texts.
        lengths = _lengths(self.forms, np.full(len(self.wanted), 8), self.nullable)
        self.parts = 1 + int((lengths > 0).sum()) + int((self.forms == BYTES).sum())
        self.widths = np.bincount(self.scopes, lengths.sum(0) / 8, len(shape.lists))

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
        self._room, self._text_room = np.zeros(scopes, np.int64), np.zeros(columns, np.int64)
        self._memory, self._starts = np.empty(0, np.uint8), np.zeros((PLACES // 2, columns), np.int64)
        self._into = np.zeros((columns, PLACES), np.int64)
        #: Bytes that it takes, but for the room that is left.
        self.nbytes = 0

    def append(self, scratch: Scratch, rows: _Ints | None, most: float = 0, share: float = 1) -> None:
        """Add rows in the order of their numbers; None is all of them.

        `most`: bytes that will be held, of which this is about a `share`.
        Raises FinkDaskError if a column is too large for its 32-bit offsets.
        """
        taker, shape = self.taker, self.taker.shape
        spans = _spans(rows, int(scratch.used[0]), len(shape.lists))
        counts, sizes = np.zeros(len(self._rows), np.int64), np.zeros(len(self._sizes), np.int64)
        table, columns = scratch.table.reshape(-1), (shape.forms, shape.scopes)
        measure(table, *columns, shape.lists, taker.wanted, shape.symbols, spans, counts, sizes)
        counts, sizes = self._rows + counts, self._sizes + sizes
        self._make_room(counts, sizes, most, share)
        self._gather((table, *columns, scratch.holes, taker.wanted), spans)
        self._rows, self._sizes = counts, sizes
        last = self._memory.view(np.int32)[(self._starts[ENDS] // 4 + counts[taker.scopes])[taker.ended]]
        if not np.array_equal(last, np.where(taker.items > 0, counts[taker.items], sizes)[taker.ended]):
            # What is written is not what was measured: a mistake of this package.
            raise FinkDaskError("the decoder disagrees with itself on the bytes of a batch: please report this")

    def batch(self) -> pa.RecordBatch:
        """Return the rows; they keep the memory, and nothing may be appended as long as they are there."""
        taker = self.taker
        lengths = _lengths(taker.forms, self._rows[taker.scopes], self._nulls > 0)
        lengths[TEXTS] = self._sizes
        taken = _Taken(
            taker, pa.py_buffer(self._memory), self._starts.tolist(), lengths.tolist(), self._nulls.tolist(),
            self._rows.tolist(),
        )  # fmt: skip
        return pa.RecordBatch.from_arrays([taken.array(built) for built in taker.built], schema=taker.schema)

    def extend(self, other: Columns, most: float) -> None:
        """Add the rows of other columns of the same taker; `most` bytes will be held.

        Raises FinkDaskError if a column is too large for its 32-bit offsets.
        """
        counts, sizes = self._rows + other._rows, self._sizes + other._sizes
        self._make_room(counts, sizes, most, 1)
        self._gather(*other._source())
        self._rows, self._sizes = counts, sizes

    def pack(self) -> pa.Buffer:
        """Return the memory without what room is left; the rows are gone until it is given back."""
        self._move(self._rows, self._sizes)
        packed, self._memory = pa.py_buffer(self._memory), np.empty(0, np.uint8)
        return packed

    def unpack(self, packed: bytes) -> None:
        """Take the memory back; it is only read."""
        self._memory = np.frombuffer(packed, np.uint8)
        self._into[:, : PLACES // 2] = self._starts.T + self._memory.ctypes.data
        self._room = np.zeros_like(self._rows)

    def _source(self) -> tuple[tuple[npt.NDArray[Any], ...], _Ints]:
        """Return what all rows are gathered from."""
        taker, spans = self.taker, np.zeros((len(self._rows), 2), np.int64)
        spans[:, 1] = self._rows
        holes, everything = (self._nulls > 0).astype(np.uint8), np.arange(len(taker.wanted))
        return (self._into.reshape(-1), taker.forms, taker.scopes, holes, everything), spans.ravel()

    def _gather(self, source: tuple[npt.NDArray[Any], ...], spans: _Ints) -> None:
        shape = self.taker.shape
        gather(*source, shape.symbols, shape.letters, spans, self._into.reshape(-1), self._rows, self._nulls)

    def _make_room(self, rows: _Ints, sizes: _Ints, most: float, share: float) -> None:
        """Make room for so many rows and bytes and, where there is too little, for those to come."""
        if max(rows.max(), sizes.max(initial=0)) > MAX_OFFSET:
            raise FinkDaskError(
                f"the records do not fit in one Arrow record batch: a column of over {MAX_OFFSET:,} bytes"
            )
        taker = self.taker
        self.nbytes = int(taker.widths @ rows) + int(sizes.sum()) + _PART_BYTES * taker.parts
        if len(self._memory) and (rows <= self._room).all() and (sizes <= self._text_room).all():
            return
        room, text_room = rows.astype(np.float64), sizes.astype(np.float64)
        # Memory that is not written to takes none, but whole pages: of a few rows, room for all that may come would
        # take many times as much as they do.
        if most > self.nbytes >= _PAGE * taker.parts:
            more = max(1.0, min(_SWING * share, 1) * _MARGIN * most / self.nbytes)
            room *= more
            # Of lists and of rare texts, the first rows tell less.
            room[1:] *= _MARGIN
            text_room += (more - 1) * text_room + most / _SPARE
        else:
            room, text_room = (each * max(1.0, min(2.0, most / self.nbytes)) for each in (room, text_room))
        self._move(np.ceil(room).astype(np.int64), np.ceil(text_room).astype(np.int64))

    def _move(self, room: _Ints, text_room: _Ints) -> None:
        """Move to memory with so much room."""
        taker = self.taker
        source, spans = self._source()
        lengths = _lengths(taker.forms, room[taker.scopes], taker.nullable)
        lengths[TEXTS] = np.where(taker.forms == BYTES, text_room + SLACK, 0)
        spaces = _spaces(lengths)
        stops = np.cumsum(spaces).reshape(spaces.shape)
        kept, self._starts, self._room, self._text_room = self._memory, stops - spaces, room, text_room
        # Arrow's allocator asks for no huge pages, of which what is not written to would take as much as the rest.
        self._memory = memory = np.frombuffer(pa.allocate_buffer(int(stops[-1, -1]) if stops.size else 0), np.uint8)
        memory[: int(stops[VALID, -1]) if stops.size else 0] = 255
        memory.view(np.int32)[self._starts[ENDS][taker.ended] // 4] = 0
        self._into = np.ascontiguousarray(np.concatenate([self._starts + memory.ctypes.data, lengths]).T)
        if len(kept):
            rows, nulls = self._rows, self._nulls
            self._rows, self._nulls = np.zeros_like(rows), np.zeros_like(nulls)
            self._gather(source, spans)
            self._rows = rows


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


def _spans(rows: _Ints | None, count: int, scopes: int) -> _Ints:
    """Return where stretches of rows begin, then where they end, and room for the same of the items of each list."""
    begins, ends = np.zeros(1, np.int64), np.array([count])
    if rows is not None:
        breaks = np.flatnonzero(rows[1:] - rows[:-1] != 1)
        begins, ends = rows[:1], rows[-1:] + 1
        if len(breaks):
            begins, ends = np.concatenate([begins, rows[breaks + 1]]), np.concatenate([rows[breaks] + 1, ends])
        if len(rows) and not 0 <= begins.min() < ends.max() <= count:
            raise ValueError("rows that are not there")
    spans = np.zeros((scopes, 2, len(begins)), np.int64)
    spans[0] = begins, ends
    return spans.ravel()
