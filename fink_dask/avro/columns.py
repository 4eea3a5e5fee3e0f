"""The memory of columns: what a batch is decoded into, and what its rows are taken into."""

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
from fink_dask.batches import Memory
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
#: The parts of a column that are buffers of Arrow, after its validity.
_BUFFERS = {BITS: (DATA,), ITEMS: (ENDS,), BYTES: (ENDS, TEXTS), SYMBOLS: (ENDS, TEXTS)}

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
    """Takes rows out of what was decoded, into columns of Arrow that own their memory.

    `built`: the columns of Arrow that are made of them.
    """

    def __init__(self, shape: Shape, built: Sequence[Built], schema: pa.Schema) -> None:
        self.schema = schema
        self._shape, self._built, self._memory = shape, built, Memory()
        self._wanted = np.array(sorted({column for each in built for column in each.columns()}), np.int64)
        self._numbers = {column: number for number, column in enumerate(self._wanted.tolist())}

    def take(self, scratch: Scratch, rows: _Ints | None) -> pa.RecordBatch:
        """Return rows in the order of their numbers; None is all of them.

        Raises FinkDaskError if a column is too large for its 32-bit offsets.
        """
        shape, wanted = self._shape, self._wanted
        spans = _spans(rows, int(scratch.used[0]), len(shape.lists))
        counts, sizes = np.zeros(len(shape.lists), np.int64), np.zeros(len(wanted), np.int64)
        table = scratch.table.reshape(-1)
        columns = (shape.forms, shape.scopes)
        measure(table, *columns, shape.lists, wanted, shape.symbols, spans, counts, sizes)
        if max(counts.max(), sizes.max(initial=0)) > MAX_OFFSET:
            raise FinkDaskError(
                f"the records do not fit in one Arrow record batch: a column of over {MAX_OFFSET:,} bytes"
            )
        forms = shape.forms[wanted]
        # What are symbols where they were decoded are texts from here on.
        forms = np.where(forms == SYMBOLS, BYTES, forms)
        lengths = _lengths(forms, counts[shape.scopes[wanted]], scratch.holes[wanted] > 0)
        lengths[TEXTS] = np.where(forms == BYTES, sizes + SLACK, 0)
        spaces = _spaces(lengths)
        stops = np.cumsum(spaces).reshape(spaces.shape)
        starts = stops - spaces
        memory = self._memory.take(int(stops[-1, -1]) if stops.size else 0)
        memory[: int(stops[VALID, -1]) if stops.size else 0] = 0
        for number in np.flatnonzero(forms == BITS).tolist():
            memory[starts[DATA, number] : stops[DATA, number]] = 0
        for number in np.flatnonzero(lengths[ENDS]).tolist():
            memory[starts[ENDS, number] : starts[ENDS, number] + 4] = 0
        into = np.concatenate([starts + memory.ctypes.data, lengths]).T.ravel()
        nulls = np.zeros(len(wanted), np.int64)
        filled = np.zeros(len(shape.lists), np.int64)
        gather(table, *columns, scratch.holes, wanted, shape.symbols, shape.letters, spans, into, filled, nulls)
        texts = lengths[ENDS] > 0
        last = memory.view(np.int32)[(starts[ENDS] + lengths[ENDS])[texts] // 4 - 1]
        for scope, column in enumerate(shape.lists[1:, 0].tolist(), 1):
            if column in self._numbers:
                sizes[self._numbers[column]] = counts[scope]
        if not np.array_equal(last, sizes[texts]):
            # What is written is not what was measured: a mistake of this package.
            raise FinkDaskError("the decoder disagrees with itself on the bytes of a batch: please report this")
        lengths[TEXTS] = sizes
        taken = _Taken(pa.py_buffer(memory), starts.tolist(), lengths.tolist(), nulls.tolist(), counts.tolist())
        return pa.RecordBatch.from_arrays([self._array(taken, built) for built in self._built], schema=self.schema)

    def _array(self, taken: _Taken, built: Built) -> pa.Array:
        # Not a nested function that calls itself: its reference cycle would keep the memory until it is collected.
        rows, null_count = taken.counts[built.scope], 0
        if pa.types.is_null(built.arrow):
            return pa.nulls(rows)
        buffers = [None]
        if built.column >= 0:
            number, form = self._numbers[built.column], int(self._shape.forms[built.column])
            null_count = taken.nulls[number]
            if null_count:
                buffers = [taken.buffer(VALID, number)]
            buffers += [taken.buffer(part, number) for part in _BUFFERS.get(form, (DATA,) if form else ())]
        if pa.types.is_boolean(built.arrow) and len(buffers) == 1:
            # A record without fields, which says only that it is there.
            buffers.append(pa.py_buffer(np.full((rows + 7) // 8, 255, np.uint8)))
        children = [self._array(taken, child) for child in built.children] or None
        return pa.Array.from_buffers(built.arrow, rows, buffers, null_count, 0, children)


@dataclass(frozen=True, eq=False)
class _Taken:
    """What was taken: its memory, where the parts of the columns are in it, nulls of columns and rows of scopes."""

    memory: pa.Buffer
    starts: list[list[int]]
    lengths: list[list[int]]
    nulls: list[int]
    counts: list[int]

    def buffer(self, part: int, number: int) -> pa.Buffer:
        """Return a part of a column; it keeps all of the memory."""
        return self.memory.slice(self.starts[part][number], self.lengths[part][number])


def _spans(rows: _Ints | None, count: int, scopes: int) -> _Ints:
    """Return where stretches of rows begin, then where they end, and room for the same of the items of each list."""
    begins, ends = np.zeros(1, np.int64), np.array([count])
    if rows is not None:
        if len(rows) and not 0 <= rows.min() <= rows.max() < count:
            raise ValueError("rows that are not there")
        is_first = np.ones(len(rows), np.bool_)
        np.not_equal(np.diff(rows), 1, out=is_first[1:])
        begins, ends = rows[is_first], rows[np.roll(is_first, -1)] + 1
    spans = np.zeros((scopes, 2, len(begins)), np.int64)
    spans[0] = begins, ends
    return spans.ravel()
