"""The loops that numba compiles, once, where a user can be told.

`decode` judges the bytes of every record and writes its values as it goes, laid out as Arrow does but for texts,
of which it notes where they are; what it wrote of a bad record is undone. `fink_dask.avro.appending` takes rows out.
"""

# ruff: noqa: PLR1714, SIM109 - numba compiles a comparison, but searches a tuple

from __future__ import annotations

import time
from typing import Any

import numpy as np

from fink_dask.avro import appending
from fink_dask.avro.appending import Bytes, Ints, place
from fink_dask.avro.operations import (
    BITS,
    BLOCKS,
    BOOLEAN,
    CHOICE,
    CODE,
    COLUMN,
    DATA,
    DECIMAL,
    DOUBLE,
    ENDS,
    FIXED,
    FLOAT,
    GOTO,
    INT,
    ITEMS,
    JUMP,
    LIMIT_BYTES,
    LONG,
    NEXT,
    NO_UNION,
    NULL,
    NULL_BYTE,
    PIECES,
    PLACES,
    RECORD,
    REPEAT,
    SKIP_BOOLEAN,
    SKIP_DECIMAL,
    SKIP_FIXED,
    SKIP_NUMBER,
    SKIP_TEXT,
    SYMBOL,
    SYMBOLS,
    TEXT,
    VALID,
    VALUE_BYTE,
    A,
    B,
    allowed_cells,
)
from fink_dask.compiling import (
    compiled,
    inlined,
    inner,
    is_cached,
    is_kept,
    load_byte,
    load_int32,
    load_int64,
    move,
    peek_byte,
    peek_int32,
    poke_byte,
    poke_int32,
    poke_int64,
    span,
)

_HIGH_BITS = -0x7F7F7F7F7F7F7F80
_WITHOUT_SIGN = 0x7FFFFFFFFFFFFFFF
#: What `_read` returns where a record does not fit in the columns.
_FULL = -(2**62)
#: Numbers of an operation.
_FIELDS = B + 1


@inlined
def read_long(buffer: Bytes, at: int, end: int) -> Any:
    """Read a zigzag varint of at most 64 bits; returns it and where it ends, or -1 as its end where it is none."""
    if at < end:
        first = load_byte(buffer, at)
        if first < 0x80:
            return (first >> 1) ^ -(first & 1), at + 1
    return _read_longer(buffer, at, end)


@inner
def _read_longer(buffer: Bytes, at: int, end: int) -> tuple[int, int]:
    result: Any = 0
    shift = 0
    while at < end:
        byte = load_byte(buffer, at)
        at += 1
        if shift == 63 and byte > 1:
            break
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return ((result >> 1) & _WITHOUT_SIGN) ^ -(result & 1), at
        shift += 7
    return 0, -1


@inlined
def read_size(buffer: Bytes, at: int, end: int) -> tuple[int, int]:
    """Read the length of what follows; returns it and where that begins, or -1 where it does not fit."""
    size, at = read_long(buffer, at, end)
    return size, (at if at >= 0 and 0 <= size <= end - at else -1)


@inlined
def read_branch(buffer: Bytes, at: int, end: int, value_byte: int, null_byte: int) -> tuple[int, int]:
    """Read the branch of a union; returns its end, and before it whether it is null, or -1 where there is no such."""
    if at < end:
        byte = load_byte(buffer, at)
        if byte == value_byte:
            return 0, at + 1
        if byte == null_byte:
            return 1, at + 1
    branch, after = _read_longer(buffer, at, end)
    if after < 0 or branch < 0 or branch > 1 or (2 * branch != value_byte and 2 * branch != null_byte):
        return -1, at
    return (1 if 2 * branch == null_byte else 0), after


@inlined
def is_utf8(buffer: Bytes, at: int, size: int) -> Any:
    """Tell whether bytes are UTF-8, and soon where they are ASCII."""
    seen = np.int64(0)
    if size >= 8:
        last = at + size - 8
        for start in range(at, last, 8):
            seen |= load_int64(buffer, start)
        seen |= load_int64(buffer, last)
    elif size > 0 and at + 8 <= buffer.size:
        seen = load_int64(buffer, at) << (8 * (8 - size))
    else:
        for start in range(at, at + size):
            seen |= load_byte(buffer, start)
    return (seen & _HIGH_BITS) == 0 or _is_longer_utf8(buffer, at, at + size)


@inner
def _is_longer_utf8(buffer: Bytes, at: int, end: int) -> bool:
    more, low, high = 0, 0x80, 0xBF
    while at < end:
        byte = load_byte(buffer, at)
        at += 1
        if more > 0:
            # What Python takes: no overlong form, no surrogate, nothing beyond U+10FFFF.
            if byte < low or byte > high:
                return False
            more, low, high = more - 1, 0x80, 0xBF
        elif byte >= 0x80:
            if byte < 0xC2 or byte > 0xF4:
                return False
            more = 1 if byte < 0xE0 else 2 if byte < 0xF0 else 3
            low = 0xA0 if byte == 0xE0 else 0x90 if byte == 0xF0 else 0x80
            high = 0x9F if byte == 0xED else 0x8F if byte == 0xF4 else 0xBF
    return more == 0


@inner
def is_decimal(buffer: Bytes, at: int, size: int, limits: Bytes, row: int) -> Any:
    """Compare a big-endian number with the greatest (in `row`) and the least (in the next) of its digits."""
    if size == 0:
        return False
    sign = 255 if load_byte(buffer, at) >= 128 else 0
    extra = size - LIMIT_BYTES
    for index in range(extra):
        if load_byte(buffer, at + index) != sign:
            return False
    if extra > 0 and (load_byte(buffer, at + extra) >= 128) != (sign == 255):
        return False
    for index in range(LIMIT_BYTES):
        byte = load_byte(buffer, at + extra + index) if extra + index >= 0 else sign
        limit = load_byte(limits, LIMIT_BYTES * (row + (sign & 1)) + index)
        if byte != limit:
            # Two numbers of one sign compare as their bytes do.
            return byte > limit if sign else byte < limit
    return True


_allowed_cells = inner(allowed_cells)


@inlined
def _mark_null(table: Ints, holes: Bytes, column: int, row: int) -> None:
    byte = place(table, column, VALID, row >> 3, 1)
    poke_byte(byte, peek_byte(byte) & ~(1 << (row & 7)))
    holes[column] = 1


@inner
def _leave_empty(table: Ints, forms: Ints, column: int, row: int) -> None:
    """Write what lies beneath a null."""
    form = load_int64(forms, column)
    if form == 8 or form == PIECES:
        poke_int64(place(table, column, DATA, 8 * row, 8), 0)
    elif form == 4 or form == SYMBOLS:
        poke_int32(place(table, column, DATA, 4 * row, 4), 0)
    elif form > 0:
        for index in range(form):
            poke_byte(place(table, column, DATA, form * row + index, 1), 0)
    elif form == ITEMS:
        ends = place(table, column, ENDS, 4 * row, 8)
        poke_int32(ends + 4, peek_int32(ends))


@inner
def _read(  # noqa: PLR0911, PLR0912, PLR0915 - one loop over one table
    buffer: Bytes, at: int, end: int, row: int, ops: Ints, nulled: Ints, limits: Bytes, forms: Ints,
    table: Ints, room: Ints, used: Ints, holes: Bytes, budget: int, left: Ints, rows: Ints, block_ends: Ints,
    needed: Ints,
) -> Any:  # fmt: skip
    """Read one record into a row; returns where it ends, `_FULL`, or -1 minus the place where it is damaged."""
    pc = 0
    depth = -1
    # A record that does not fit is read to its end, so that everything that it needs is known at once: its items share
    # the row behind those that there is room for.
    is_full = False
    while True:
        code = load_int64(ops, _FIELDS * pc + CODE)
        value_byte = load_int64(ops, _FIELDS * pc + VALUE_BYTE)
        null_byte = load_int64(ops, _FIELDS * pc + NULL_BYTE)
        first = load_int64(ops, _FIELDS * pc + COLUMN)
        stop = first + load_int64(ops, _FIELDS * pc + REPEAT)
        low = load_int64(ops, _FIELDS * pc + A)
        high = load_int64(ops, _FIELDS * pc + B)
        next_pc = pc + 1
        is_null = np.int64(0)
        if code == DOUBLE:
            for column in range(first, stop):
                into = place(table, column, DATA, 8 * row, 8)
                if value_byte >= 0:
                    is_null, at = read_branch(buffer, at, end, value_byte, null_byte)
                    if is_null != 0:
                        if is_null < 0:
                            return -1 - at
                        _mark_null(table, holes, column, row)
                        poke_int64(into, 0)
                        continue
                if end - at < 8:
                    return -1 - end
                poke_int64(into, load_int64(buffer, at))
                at += 8
        elif code == FLOAT:
            for column in range(first, stop):
                into = place(table, column, DATA, 4 * row, 4)
                if value_byte >= 0:
                    is_null, at = read_branch(buffer, at, end, value_byte, null_byte)
                    if is_null != 0:
                        if is_null < 0:
                            return -1 - at
                        _mark_null(table, holes, column, row)
                        poke_int32(into, 0)
                        continue
                if end - at < 4:
                    return -1 - end
                poke_int32(into, load_int32(buffer, at))
                at += 4
        elif code == TEXT:
            for column in range(first, stop):
                into = place(table, column, DATA, 8 * row, 8)
                if value_byte >= 0:
                    is_null, at = read_branch(buffer, at, end, value_byte, null_byte)
                    if is_null != 0:
                        if is_null < 0:
                            return -1 - at
                        _mark_null(table, holes, column, row)
                        poke_int64(into, 0)
                        continue
                size, after = read_size(buffer, at, end)
                if after < 0 or (low and not is_utf8(buffer, after, size)):
                    return -1 - at
                poke_int32(into, after)
                poke_int32(into + 4, size)
                at = after + size
        elif code == INT or code == LONG or code == SYMBOL:
            for column in range(first, stop):
                if value_byte >= 0:
                    is_null, at = read_branch(buffer, at, end, value_byte, null_byte)
                    if is_null != 0:
                        if is_null < 0:
                            return -1 - at
                        _mark_null(table, holes, column, row)
                        if code == LONG:
                            poke_int64(place(table, column, DATA, 8 * row, 8), 0)
                        else:
                            poke_int32(place(table, column, DATA, 4 * row, 4), 0)
                        continue
                value, after = read_long(buffer, at, end)
                if after < 0:
                    return -1 - at
                if code == SYMBOL:
                    if value < 0 or value >= high:
                        return -1 - at
                    value += low
                elif value < low or value > high:
                    return -1 - at
                if code == LONG:
                    poke_int64(place(table, column, DATA, 8 * row, 8), value)
                else:
                    poke_int32(place(table, column, DATA, 4 * row, 4), value)
                at = after
        elif code == RECORD or code == BLOCKS:
            if value_byte != NO_UNION:
                is_null, at = read_branch(buffer, at, end, value_byte, null_byte)
                if is_null < 0:
                    return -1 - at
            if is_null != 0:
                next_pc = load_int64(ops, _FIELDS * pc + JUMP)
                if first >= 0:
                    _mark_null(table, holes, first, row)
                    _leave_empty(table, forms, first, row)
                if code == RECORD:
                    for each in range(low, high):
                        _leave_empty(table, forms, nulled[each], row)
            elif code == BLOCKS:
                # As if the only item of a block without a size had just ended.
                depth += 1
                left[depth] = 1
                block_ends[depth] = -1
                rows[depth] = row
                if first >= 0:
                    row = used[low] - 1
                next_pc = load_int64(ops, _FIELDS * pc + JUMP) - 1
        elif code == NEXT:
            left[depth] -= 1
            row += 1
            if is_full and first >= 0:
                row = min(row, room[low])
            if left[depth] > 0:
                pc = load_int64(ops, _FIELDS * pc + JUMP)
                continue
            if block_ends[depth] >= 0 and at != block_ends[depth]:
                return -1 - at
            count, after = read_long(buffer, at, end)
            if after < 0:
                return -1 - at
            at = after
            if count == 0:
                row = rows[depth]
                depth -= 1
                if first >= 0:
                    poke_int32(place(table, first, ENDS, 4 * row + 4, 4), used[low])
            else:
                block_ends[depth] = -1
                if count < 0:
                    size, after = read_size(buffer, at, end)
                    if after < 0:
                        return -1 - at
                    count, at = -count, after
                    block_ends[depth] = at + size
                # Minus -2^63 is negative still. An item takes a byte at least, so this bounds the loop.
                if count < 0 or count > end - at:
                    return -1 - at
                budget -= count * high
                if budget < 0:
                    return -1 - at
                if first >= 0:
                    used[low] += count
                    if used[low] > room[low]:
                        needed[low] = used[low]
                        row, is_full = min(row, room[low]), True
                left[depth] = count
                next_pc = load_int64(ops, _FIELDS * pc + JUMP)
        elif code == CHOICE:
            branch, after = read_long(buffer, at, end)
            if after < 0 or branch < 0 or branch >= value_byte:
                return -1 - at
            at = after
            # All members, as if none were taken: the one that is will write its own over it.
            for each in range(low, high):
                _leave_empty(table, forms, nulled[each], row)
            if 2 * branch == null_byte:
                if first >= 0:
                    _mark_null(table, holes, first, row)
                next_pc = load_int64(ops, _FIELDS * pc + JUMP)
            else:
                for each in range(value_byte):
                    member = load_int64(ops, _FIELDS * (next_pc + each) + COLUMN)
                    if each != branch and member >= 0:
                        _mark_null(table, holes, member, row)
                next_pc += branch
        elif code == GOTO:
            next_pc = load_int64(ops, _FIELDS * pc + JUMP)
        elif code >= NULL:
            for column in range(first, stop):
                if value_byte != NO_UNION:
                    is_null, at = read_branch(buffer, at, end, value_byte, null_byte)
                    if is_null < 0:
                        return -1 - at
                    if is_null != 0:
                        if code == BOOLEAN or code == FIXED or code == DECIMAL:
                            _mark_null(table, holes, column, row)
                            _leave_empty(table, forms, column, row)
                        continue
                if code == SKIP_FIXED or code == FIXED:
                    if end - at < low:
                        return -1 - end
                    if code == FIXED:
                        move(place(table, column, DATA, low * row, low), span(buffer, at, low), low)
                    at += low
                elif code == SKIP_NUMBER:
                    value, after = read_long(buffer, at, end)
                    if after < 0 or value < low or value > high:
                        return -1 - at
                    at = after
                elif code == SKIP_TEXT:
                    size, after = read_size(buffer, at, end)
                    if after < 0 or (low and not is_utf8(buffer, after, size)):
                        return -1 - at
                    at = after + size
                elif code == BOOLEAN or code == SKIP_BOOLEAN:
                    if at >= end or load_byte(buffer, at) > 1:
                        return -1 - at
                    if code == BOOLEAN:
                        byte = place(table, column, DATA, row >> 3, 1)
                        poke_byte(byte, peek_byte(byte) | (load_byte(buffer, at) << (row & 7)))
                    at += 1
                elif code == DECIMAL or code == SKIP_DECIMAL:
                    size, after = high, at
                    if size == 0:
                        size, after = read_size(buffer, at, end)
                    if after < 0 or size > end - after or not is_decimal(buffer, after, size, limits, low):
                        return -1 - at
                    if code == DECIMAL:
                        # Avro's most significant byte comes first, Arrow's last.
                        width = forms[column]
                        sign = 255 if load_byte(buffer, after) >= 128 else 0
                        for index in range(width):
                            byte = load_byte(buffer, after + size - 1 - index) if index < size else sign
                            poke_byte(place(table, column, DATA, width * row + index, 1), byte)
                    at = after + size
        elif at != end:
            return -1 - at
        else:
            return _FULL if is_full else at
        pc = next_pc


@inner
def _undo(table: Ints, forms: Ints, scopes: Ints, lists: Ints, room: Ints, used: Ints, before: Ints) -> None:
    """Forget what was written of a record: its bits are as at first, and the rest will be written over."""
    for scope in range(used.size):
        before[scope] = used[0]
        if scope > 0:
            before[scope] = peek_int32(place(table, lists[scope, 0], ENDS, 4 * before[lists[scope, 1]], 4))
    for column in range(forms.size):
        scope = scopes[column]
        stop = min(used[scope], room[scope]) + 1
        for part, first in ((VALID, 255), (DATA, 0)):
            if table[PLACES * column + part] == 0 or (part == DATA and forms[column] != BITS):
                continue
            for row in range(before[scope], stop):
                byte, bit = place(table, column, part, row >> 3, 1), 1 << (row & 7)
                poke_byte(byte, (peek_byte(byte) & ~bit) | (first & bit))
    for scope in range(used.size):
        used[scope] = before[scope]


@compiled
def decode(
    buffer: Bytes, begins: Ints, ends: Ints, record: int, failed: Ints, cells: int, ops: Ints, nulled: Ints,
    limits: Bytes, forms: Ints, scopes: Ints, lists: Ints, table: Ints, room: Ints, used: Ints, before: Ints,
    holes: Bytes, left: Ints, rows: Ints, block_ends: Ints, needed: Ints,
) -> int:  # fmt: skip
    """Read records from `record` on that have not failed; returns the one that does not fit, or how many there are."""
    for each in range(record, begins.size):
        if failed[each] >= 0:
            continue
        begin, end = begins[each], ends[each]
        found = _read(
            buffer, begin, end, used[0], ops, nulled, limits, forms, table, room, used, holes,
            cells + _allowed_cells(end - begin), left, rows, block_ends, needed,
        )  # fmt: skip
        if found >= 0:
            used[0] += 1
            continue
        _undo(table, forms, scopes, lists, room, used, before)
        if found == _FULL:
            return each
        failed[each] = -1 - found - begin
        for index in range(needed.size):
            needed[index] = 0
    return begins.size


def _examples() -> tuple[tuple[Any, tuple[Any, ...]], ...]:
    """Return what is compiled, with arguments of the only types that it is ever called with."""
    read_only = np.zeros(1, np.uint8)
    read_only.flags.writeable = False
    ints, table, letters = np.zeros(0, np.int64), np.zeros((0, 8), np.int64), np.zeros(0, np.uint8)
    tables = (ints, ints, letters, ints, ints, table)
    return (
        (decode, (read_only, ints, ints, 0, ints, 0, *tables, *4 * (ints,), letters, *4 * (ints,))),
        *appending.examples(),
    )


def warm_up() -> float:
    """Compile everything, or load it from numba's cache, once for this process.

    Returns
    -------
    float
        Seconds it took.
    """
    start = time.perf_counter()
    for function, arguments in _examples():
        function(*arguments)
    return time.perf_counter() - start


def is_compiled() -> bool:
    """Tell whether `warm_up` needs no compiler.

    Returns
    -------
    bool
        Whether everything is compiled in this process, or kept on disk for it.
    """
    return all(is_cached(function, arguments) for function, arguments in _examples())


def is_kept_on_disk() -> bool:
    """Tell whether what `warm_up` compiles is kept for the next process as well.

    Returns
    -------
    bool
        False where numba may write neither beside the code nor to the user's cache directory.
    """
    return all(is_kept(function) for function, _ in _examples())
