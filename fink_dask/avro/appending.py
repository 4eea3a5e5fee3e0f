"""The loops that put rows that are wanted into memory of their own, which numba compiles.

What was decoded of a batch is the one source, and columns that were filled before are the other.
"""

# ruff: noqa: PLR1714, SIM109, SIM110 - numba compiles a comparison and a loop, and these allocate no memory

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fink_dask.avro.operations import (
    ALIGNMENT,
    BITS,
    BYTES,
    DATA,
    ENDS,
    ITEMS,
    NOTHING,
    PIECES,
    PLACES,
    SIZES,
    SLACK,
    SYMBOLS,
    TEXTS,
    VALID,
)
from fink_dask.compiling import (
    compiled,
    inlined,
    inner,
    load_int64,
    move,
    ones,
    peek_int32,
    peek_int64,
    places,
    poke_int32,
    poke_int64,
    span,
)

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

place = places(PLACES, SIZES)
#: Bits that are moved at once: with seven more before them they fit in eight bytes.
_MOVED_BITS = 56


@inlined
def copy(into: int, buffer: Bytes, at: int, size: int) -> None:
    """Copy bytes to an address behind which there is `SLACK`."""
    if size <= SLACK and at + SLACK <= buffer.size:
        poke_int64(into, load_int64(buffer, at))
        poke_int64(into + 8, load_int64(buffer, at + 8))
    else:
        move(into, span(buffer, at, size), size)


@inner
def space(size: int) -> Any:
    """Return the bytes that a part takes with what may be read and written beyond it; an empty part is none."""
    # One line of the cache more than needed: else all columns would begin in the same few places of it.
    return (size + SLACK + 2 * ALIGNMENT - 1) & -ALIGNMENT if size > 0 else 0


@inner
def _find_spans(rows: Ints, everything: int, records: int, spans: Ints) -> int:
    """Note where stretches of rows begin, and behind all of them where they end; returns how many, or -1 for a mistake.

    `rows`: the numbers of rows, of `records`, in order; nothing where `everything` is wanted.
    """
    if everything:
        spans[0], spans[1] = 0, records
        return min(records, 1)
    many = 0
    for index in range(rows.size):
        row = load_int64(rows, index)
        if row < 0 or row >= records:
            return -1
        many += 1 if index == 0 or row != load_int64(rows, index - 1) + 1 else 0
    at = -1
    for index in range(rows.size):
        row = load_int64(rows, index)
        if index == 0 or row != load_int64(rows, index - 1) + 1:
            at += 1
            spans[at] = row
        spans[many + at] = row + 1
    return many


@inner
def _assign(into: Ints, numbers: Ints) -> None:
    for index in range(into.size):
        into[index] = numbers[index]


@inner
def _fits(needed: Ints, room: Ints) -> bool:
    for index in range(needed.size):
        if needed[index] > room[index]:
            return False
    return True


@inner
def _measure(
    table: Ints, forms: Ints, scopes: Ints, lists: Ints, wanted: Ints, symbols: Ints, spans: Ints, many: int,
    counts: Ints, sizes: Ints,
) -> None:  # fmt: skip
    """Follow spans of records into the lists; count the rows of each scope, and the bytes of each wanted column."""
    for scope in range(counts.size):
        column, outer = lists[scope, 0], 2 * many * lists[scope, 1]
        for index in range(2 * many):
            if scope > 0:
                row = load_int64(spans, outer + index)
                end = peek_int32(place(table, column, ENDS, 4 * row, 4)) if column >= 0 else 0
                spans[2 * many * scope + index] = end
            row = load_int64(spans, 2 * many * scope + index)
            counts[scope] += row if index >= many else -row
    for number in range(wanted.size):
        column = wanted[number]
        first = 2 * many * scopes[column]
        for index in range(first, first + many):
            low, high = load_int64(spans, index), load_int64(spans, index + many)
            if forms[column] == BYTES:
                ends = place(table, column, ENDS, 4 * low, 4 * (high - low) + 4)
                sizes[number] += peek_int32(ends + 4 * (high - low)) - peek_int32(ends)
            elif forms[column] == SYMBOLS:
                for row in range(low, high):
                    symbol = peek_int32(place(table, column, DATA, 4 * row, 4))
                    sizes[number] += symbols[symbol + 1] - symbols[symbol]
            elif forms[column] == PIECES:
                for row in range(low, high):
                    sizes[number] += peek_int32(place(table, column, DATA, 8 * row, 8) + 4)


@inner
def _gather_bits(table: Ints, column: int, part: int, low: int, into: Ints, number: int, at: int, count: int) -> Any:
    """Copy bits; returns how many of them are 0."""
    source = place(table, column, part, low >> 3, ((low & 7) + count + 7) >> 3) - (low >> 3)
    target = place(into, number, part, at >> 3, ((at & 7) + count + 7) >> 3) - (at >> 3)
    zeros = count
    while count > 0:
        size = min(count, _MOVED_BITS)
        mask = (1 << size) - 1
        bits = (peek_int64(source + (low >> 3)) >> (low & 7)) & mask
        byte = target + (at >> 3)
        poke_int64(byte, (peek_int64(byte) & ~(mask << (at & 7))) | (bits << (at & 7)))
        zeros -= ones(bits)
        low, at, count = low + size, at + size, count - size
    return zeros


@inner
def _gather(  # noqa: PLR0912 - one loop over the columns
    batch: Bytes, table: Ints, forms: Ints, scopes: Ints, holes: Bytes, wanted: Ints, symbols: Ints, letters: Bytes,
    spans: Ints, many: int, into: Ints, filled: Ints, nulls: Ints,
) -> None:  # fmt: skip
    """Append spans of rows to the wanted columns in other memory, which have `filled` rows of each scope."""
    for number in range(wanted.size):
        column = wanted[number]
        form, has_holes, at = forms[column], holes[column] != 0, filled[scopes[column]]
        first = 2 * many * scopes[column]
        for index in range(first, first + many):
            low = load_int64(spans, index)
            count = load_int64(spans, index + many) - low
            if has_holes:
                nulls[number] += _gather_bits(table, column, VALID, low, into, number, at, count)
            if form > 0:
                source = place(table, column, DATA, form * low, form * count)
                target = place(into, number, DATA, form * at, form * count)
                if form * count == 8:
                    poke_int64(target, peek_int64(source))
                elif form * count == 4:
                    poke_int32(target, peek_int32(source))
                else:
                    move(target, source, form * count)
            elif form == BITS:
                _gather_bits(table, column, DATA, low, into, number, at, count)
            elif form == PIECES:
                end = peek_int32(place(into, number, ENDS, 4 * at, 4))
                for row in range(count):
                    piece = place(table, column, DATA, 8 * (low + row), 8)
                    size = peek_int32(piece + 4)
                    copy(place(into, number, TEXTS, end, size + SLACK), batch, peek_int32(piece), size)
                    end += size
                    poke_int32(place(into, number, ENDS, 4 * (at + row + 1), 4), end)
            elif form == SYMBOLS:
                end = peek_int32(place(into, number, ENDS, 4 * at, 4))
                for row in range(count):
                    symbol = peek_int32(place(table, column, DATA, 4 * (low + row), 4))
                    size = symbols[symbol + 1] - symbols[symbol]
                    move(place(into, number, TEXTS, end, size), span(letters, symbols[symbol], size), size)
                    end += size
                    poke_int32(place(into, number, ENDS, 4 * (at + row + 1), 4), end)
            elif form != NOTHING:
                source = place(table, column, ENDS, 4 * low, 4 * count + 4)
                target = place(into, number, ENDS, 4 * at, 4 * count + 4)
                begin, end = peek_int32(source), peek_int32(target)
                for row in range(4, 4 * count + 4, 4):
                    poke_int32(target + row, peek_int32(source + row) + end - begin)
                if form == BYTES:
                    size = peek_int32(source + 4 * count) - begin
                    source, target = place(table, column, TEXTS, begin, size), place(into, number, TEXTS, end, size)
                    if size <= SLACK:
                        poke_int64(target, peek_int64(source))
                        poke_int64(target + 8, peek_int64(source + 8))
                    else:
                        move(target, source, size)
            at += count


@compiled
def lay_out(forms: Ints, scopes: Ints, may_be_null: Bytes, room: Ints, text_room: Ints, into: Ints) -> Any:
    """Place the parts of columns one after the other, from 0 on, validity first; returns how many bytes they take."""
    at: Any = 0
    for part in range(SIZES):
        for column in range(forms.size):
            form, rows = forms[column], room[scopes[column]]
            size: Any = 0
            if part == VALID:
                size = (rows + 7) >> 3 if may_be_null[column] != 0 else 0
            elif part == DATA:
                if form == BITS:
                    size = (rows + 7) >> 3
                else:
                    size = rows * (form if form > 0 else 4 if form == SYMBOLS else 8 if form == PIECES else 0)
            elif form == BYTES or form == ITEMS:
                size = 4 * rows + 4 if part == ENDS else text_room[column] + SLACK if form == BYTES else 0
            into[PLACES * column + part] = at
            into[PLACES * column + SIZES + part] = size
            at += space(size)
    return at


@compiled
def begin(forms: Ints, into: Ints, address: int) -> None:
    """Let columns be without rows, in memory where they were placed."""
    for column in range(forms.size):
        for part in range(SIZES):
            into[PLACES * column + part] += address
        for at in range(0, into[PLACES * column + SIZES + VALID], 8):
            poke_int64(into[PLACES * column + VALID] + at, -1)
        if forms[column] == BYTES or forms[column] == ITEMS:
            poke_int32(place(into, column, ENDS, 0, 4), 0)


@compiled
def append(
    batch: Bytes, table: Ints, forms: Ints, scopes: Ints, holes: Bytes, lists: Ints, wanted: Ints, records: int,
    rows: Ints, everything: int, spans: Ints, symbols: Ints, letters: Bytes, items: Ints, into: Ints, room: Ints,
    text_room: Ints, filled: Ints, sizes: Ints, nulls: Ints, needed: Ints, needed_sizes: Ints,
) -> int:  # fmt: skip
    """Append rows to the wanted columns in other memory.

    These have `filled` rows of each scope and texts of `sizes` bytes, and room for more; `needed` is what they need.
    Returns 1; 0 where there is too little room, and -1 where rows are not there: then nothing was done; and -2 where
    what was written is not what was measured.
    """
    many = _find_spans(rows, everything, records, spans)
    if many < 0:
        return -1
    _assign(needed, filled)
    _assign(needed_sizes, sizes)
    _measure(table, forms, scopes, lists, wanted, symbols, spans, many, needed, needed_sizes)
    if not _fits(needed, room) or not _fits(needed_sizes, text_room):
        return 0
    _gather(batch, table, forms, scopes, holes, wanted, symbols, letters, spans, many, into, filled, nulls)
    for number in range(wanted.size):
        form, row = forms[wanted[number]], needed[scopes[wanted[number]]]
        if form < BITS:
            end = peek_int32(place(into, number, ENDS, 4 * row, 4))
            if end != (needed[items[number]] if form == ITEMS else needed_sizes[number]):
                return -2
    _assign(filled, needed)
    _assign(sizes, needed_sizes)
    return 1


def examples() -> tuple[tuple[Any, tuple[Any, ...]], ...]:
    """Return what is compiled, with arguments of the only types that it is ever called with."""
    read_only = np.zeros(1, np.uint8)
    read_only.flags.writeable = False
    ints, table, letters = np.zeros(0, np.int64), np.zeros((0, 8), np.int64), np.zeros(0, np.uint8)
    rows = (ints, 1, np.zeros(2, np.int64))
    return (
        (lay_out, (ints, ints, letters, ints, ints, ints)),
        (begin, (ints, ints, 0)),
        (append, (read_only, ints, ints, ints, letters, table, ints, 0, *rows, ints, letters, *9 * (ints,))),
    )
