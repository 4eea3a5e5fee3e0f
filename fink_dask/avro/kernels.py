"""The loops that numba compiles, which nothing else imports, and how they are compiled: once, where a user can be told.

Pass 1 of the columnar decoder judges the bytes of every record, and counts what pass 2 needs; pass 2 lays the values of
sound records out as Arrow does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba.core import cgutils, types
from numba.extending import intrinsic

from fink_dask.avro.operations import (
    BLOCKS,
    BOOLEAN,
    BRANCHES,
    BYTES,
    CHOICE,
    CODE,
    COLUMN,
    DATA,
    DECIMAL,
    DOUBLE,
    ENDS,
    ENUM,
    FIXED,
    FLOAT,
    GOTO,
    INT,
    JUMP,
    LIMIT_BYTES,
    LONG,
    MARK,
    NEXT,
    NULL,
    NULL_BYTE,
    RANGED,
    REPEAT,
    SKIP_BYTES,
    SKIP_FIXED,
    SKIP_NUMBER,
    STOP,
    STRING,
    TEXT,
    VALID,
    A,
    B,
    allowed_cells,
)  # fmt: skip  # fmt: skip

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

#: Files whose contents end up in compiled code.
_SOURCES = ("kernels.py", "operations.py")

_HIGH_BITS = -0x7F7F7F7F7F7F7F80
_WITHOUT_SIGN = 0x7FFFFFFFFFFFFFFF


def compiled(function: Callable[..., Any]) -> Any:
    """Let numba compile a function, once for all processes of a user.

    It releases Python's lock. It can't allocate memory either, so that it counts no references: that took longer than
    all the rest.

    Parameters
    ----------
    function : callable
        The function.

    Returns
    -------
    callable
        The same, to be compiled when it is called.
    """
    # Whoever debugs a program of his own with NUMBA_DISABLE_JIT does not mean these: in Python they take hours.
    before, numba.config.DISABLE_JIT = numba.config.DISABLE_JIT, 0
    try:
        dispatcher = numba.njit(nogil=True, cache=True, _nrt=False)(function)
    except RuntimeError:
        # There is no directory that numba may write to: compile in every process rather than fail.
        return numba.njit(nogil=True, _nrt=False)(function)
    finally:
        numba.config.DISABLE_JIT = before
    with suppress(AttributeError, OSError):
        # numba looks only at the file of the function itself to see whether its cache is out of date.
        stats = [(Path(__file__).parent / name).stat() for name in _SOURCES]
        dispatcher._cache._cache_file._source_stamp = [(stat.st_mtime, stat.st_size) for stat in stats]
    return dispatcher


def is_cached(function: Any, arguments: tuple[Any, ...]) -> bool:
    """Tell whether a call needs no compiler.

    Parameters
    ----------
    function : callable
        What `compiled` returned.
    arguments : tuple
        Arguments of the types that it will be called with.

    Returns
    -------
    bool
        Whether it is compiled in this process, or was kept on disk by another one.
    """
    signature = tuple(map(numba.typeof, arguments))
    if signature in function.overloads:
        return True
    try:
        # numba has no public API for this; should it change, a first run is announced once too often.
        key = function._cache._index_key(signature, function.targetctx.codegen())
        return key in function._cache._cache_file._load_index()
    except (AttributeError, OSError, TypeError):
        return False


def is_kept(function: Any) -> bool:
    """Tell whether other processes will find a compiled function: numba may have no place to write it to."""
    # As above, no public API; in doubt, yes.
    return type(getattr(function, "_cache", None)).__name__ != "NullCache"


@intrinsic  # type: ignore[untyped-decorator]
def _load(typing_context: Any, array: Any, at: Any, like: Any) -> Any:
    """Read an integer of the type of `like` at any byte."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        pointer = builder.gep(data, [args[1]])
        load = builder.load(builder.bitcast(pointer, context.get_value_type(signature.return_type).as_pointer()))
        load.align = 1
        return load

    return like(array, types.int64, like), generate


@intrinsic  # type: ignore[untyped-decorator]
def _move(typing_context: Any, into: Any, start: Any, array: Any, at: Any, size: Any) -> Any:
    """Copy bytes with memcpy."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target = context.make_array(signature.args[0])(context, builder, args[0]).data
        source = context.make_array(signature.args[2])(context, builder, args[2]).data
        cgutils.raw_memcpy(builder, builder.gep(target, [args[1]]), builder.gep(source, [args[3]]), args[4], 1)
        return context.get_dummy_value()

    return types.void(into, types.int64, array, types.int64, types.int64), generate


@compiled
def load_int64(buffer: Bytes, at: int) -> Any:
    """Read eight bytes as they are."""
    # The compiler drops this line, unless numba's bounds checking is on: then it is what checks the read.
    buffer[at] | buffer[at + 7]
    return _load(buffer, at, np.int64(0))


@compiled
def load_int32(buffer: Bytes, at: int) -> Any:
    """Read four bytes as they are."""
    buffer[at] | buffer[at + 3]
    return _load(buffer, at, np.int32(0))


@compiled
def copy(into: Bytes, start: int, buffer: Bytes, at: int, size: int) -> None:
    """Copy bytes, few or many."""
    if size < 16:
        for index in range(size):
            into[start + index] = buffer[at + index]
    else:
        into[start] | into[start + size - 1] | buffer[at] | buffer[at + size - 1]
        _move(into, start, buffer, at, size)


@compiled
def read_long(buffer: Bytes, at: int, end: int) -> tuple[int, int]:
    """Read a zigzag varint of at most 64 bits; returns it and where it ends, or -1 as its end where it is none."""
    result: Any = 0
    shift = 0
    while at < end:
        byte = np.int64(buffer[at])
        at += 1
        if shift == 63 and byte > 1:
            break
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return ((result >> 1) & _WITHOUT_SIGN) ^ -(result & 1), at
        shift += 7
    return 0, -1


@compiled
def read_size(buffer: Bytes, at: int, end: int) -> tuple[int, int]:
    """Read the length of what follows; returns it and where that begins, or -1 where it does not fit."""
    size, at = read_long(buffer, at, end)
    return size, (at if at >= 0 and 0 <= size <= end - at else -1)


@compiled
def is_utf8(buffer: Bytes, at: int, end: int) -> bool:
    """Tell whether bytes are UTF-8, and soon where they are ASCII."""
    seen = np.int64(0)
    if end - at >= 8:
        for start in range(at, end - 8, 8):
            seen |= load_int64(buffer, start)
        seen = (seen | load_int64(buffer, end - 8)) & _HIGH_BITS
    else:
        for start in range(at, end):
            seen |= np.int64(buffer[start]) & 0x80
    if seen == 0:
        return True
    while at < end:
        byte = np.int64(buffer[at])
        at += 1
        if byte < 0x80:
            continue
        # What Python takes: no overlong form, no surrogate, nothing beyond U+10FFFF.
        more = 1 if byte < 0xE0 else 2 if byte < 0xF0 else 3
        if byte < 0xC2 or byte > 0xF4 or more > end - at:
            return False
        low = 0xA0 if byte == 0xE0 else 0x90 if byte == 0xF0 else 0x80
        high = 0x9F if byte == 0xED else 0x8F if byte == 0xF4 else 0xBF
        for _ in range(more):
            if buffer[at] < low or buffer[at] > high:
                return False
            low, high = 0x80, 0xBF
            at += 1
    return True


@compiled
def is_decimal(buffer: Bytes, at: int, size: int, limits: Bytes, row: int) -> Any:
    """Compare a big-endian number with the greatest (in `row`) and the least (in the next) of its digits."""
    if size == 0:
        return False
    sign = 255 if buffer[at] >= 128 else 0
    extra = size - LIMIT_BYTES
    for index in range(extra):
        if buffer[at + index] != sign:
            return False
    if extra > 0 and (buffer[at + extra] >= 128) != (sign == 255):
        return False
    for index in range(LIMIT_BYTES):
        byte = np.int64(buffer[at + extra + index]) if extra + index >= 0 else sign
        limit = np.int64(limits[row + (sign & 1), index])
        if byte != limit:
            # Two numbers of one sign compare as their bytes do.
            return byte > limit if sign else byte < limit
    return True


_allowed_cells = compiled(allowed_cells)


@compiled
def _walk_record(  # noqa: PLR0911, PLR0912, PLR0915 - one loop over one table
    buffer: Bytes, at: int, end: int, ops: Ints, limits: Bytes, symbols: Ints, budget: int,
    sign: int, entries: Ints, sizes: Ints, marks: Ints, left: Ints, block_ends: Ints,
) -> int:  # fmt: skip
    """Walk one record; returns where it ends, or -1 minus the place where it is damaged.

    What it counts is added `sign` times: walking a bad record again with -1 takes back what was counted.
    """
    pc = 0
    depth = -1
    while True:
        code = ops[pc, CODE]
        branches = ops[pc, BRANCHES]
        null_byte = ops[pc, NULL_BYTE]
        low = ops[pc, A]
        high = ops[pc, B]
        next_pc = pc + 1
        for column in range(ops[pc, COLUMN], ops[pc, COLUMN] + ops[pc, REPEAT]):
            branch = 0
            if branches:
                branch, after = read_long(buffer, at, end)
                if after < 0 or branch < 0 or branch >= branches:
                    return -1 - at
                at = after
                if 2 * branch == null_byte:
                    if code < NULL:
                        next_pc = ops[pc, JUMP]
                    continue
            if code == SKIP_FIXED:
                at += low
                if at > end:
                    return -1 - end
            elif code == LONG:
                # Its value does not matter: find the last byte; of ten bytes, the last may hold one bit only.
                last = min(at + 9, end - 1)
                first = at
                while at < last and buffer[at] >= 0x80:
                    at += 1
                if at > last or buffer[at] >= 0x80 or (at - first == 9 and buffer[at] > 1):
                    return -1 - first
                at += 1
            elif code == RANGED:
                value, after = read_long(buffer, at, end)
                if after < 0 or value < low or value > high:
                    return -1 - at
                at = after
            elif code == ENUM:
                value, after = read_long(buffer, at, end)
                if after < 0 or value < 0 or value >= high:
                    return -1 - at
                sizes[column] += sign * (symbols[low + value + 1] - symbols[low + value])
                at = after
            elif code in (BYTES, STRING):
                size, after = read_size(buffer, at, end)
                if after < 0 or (code == STRING and not is_utf8(buffer, after, after + size)):
                    return -1 - at
                sizes[column] += sign * size
                at = after + size
            elif code == BOOLEAN:
                if at >= end or buffer[at] > 1:
                    return -1 - at
                at += 1
            elif code == DECIMAL:
                size, after = high, at
                if size == 0:
                    size, after = read_size(buffer, at, end)
                if after < 0 or size > end - after or not is_decimal(buffer, after, size, limits, low):
                    return -1 - at
                at = after + size
            elif code == BLOCKS:
                # As if the only item of a block without a size had just ended.
                depth += 1
                left[depth] = 1
                block_ends[depth] = -1
                next_pc = ops[pc, JUMP] - 1
            elif code == NEXT:
                left[depth] -= 1
                if left[depth] > 0:
                    next_pc = ops[pc, JUMP]
                    continue
                if block_ends[depth] >= 0 and at != block_ends[depth]:
                    return -1 - at
                count, after = read_long(buffer, at, end)
                if after < 0:
                    return -1 - at
                at = after
                if count == 0:
                    depth -= 1
                    continue
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
                entries[low] += sign * count
                left[depth] = count
                next_pc = ops[pc, JUMP]
            elif code == CHOICE:
                next_pc += branch
            elif code == GOTO:
                next_pc = ops[pc, JUMP]
            elif code == MARK:
                marks[low] = at
            elif code == STOP:
                return at if at == end else -1 - at
        pc = next_pc


@compiled
def walk(
    buffer: Bytes, starts: Ints, ops: Ints, limits: Bytes, symbols: Ints, cells: int,
    entries: Ints, sizes: Ints, marks: Ints, failed: Ints, left: Ints, block_ends: Ints,
) -> None:  # fmt: skip
    """Pass 1: walk every record that has not failed yet, and count what the sound ones need."""
    for record in range(starts.size - 1):
        start, end = starts[record], starts[record + 1]
        sign = 0 if failed[record] >= 0 else 1
        while sign != 0:
            stop = _walk_record(
                buffer, start, end, ops, limits, symbols, cells + _allowed_cells(end - start),
                sign, entries, sizes, marks[record], left, block_ends,
            )  # fmt: skip
            if stop < 0 < sign:
                failed[record] = -1 - stop - start
                sign = -1
            else:
                sign = 0


@compiled
def fill(  # noqa: PLR0912, PLR0915 - one loop over one table
    buffer: Bytes, records: Ints, marks: Ints, segments: Ints, ops: Ints, nulled: Ints,
    symbols: Ints, letters: Bytes, places: Ints, used: Ints, nulls: Ints,
    bytes_: Bytes, int32s: npt.NDArray[np.int32], int64s: Ints, left: Ints, rows: Ints,
) -> None:  # fmt: skip
    """Pass 2: fill the arena from sound records, in the order of `records`."""
    end = buffer.size
    columns = nulls.size
    for step in range(records.size * segments.shape[0]):
        segment = step % segments.shape[0]
        row = step // segments.shape[0]
        at = marks[records[row], segments[segment, 0]]
        pc = segments[segment, 1]
        depth = -1
        while ops[pc, CODE] != STOP:
            code = ops[pc, CODE]
            branches = ops[pc, BRANCHES]
            null_byte = ops[pc, NULL_BYTE]
            low = ops[pc, A]
            high = ops[pc, B]
            next_pc = pc + 1
            for column in range(ops[pc, COLUMN], ops[pc, COLUMN] + ops[pc, REPEAT]):
                branch = 0
                if branches:
                    branch, at = read_long(buffer, at, end)
                    if 2 * branch == null_byte:
                        if column < columns:
                            bytes_[places[column, VALID] + (row >> 3)] &= ~(1 << (row & 7))
                            nulls[column] += 1
                        if code < NULL:
                            for each in range(low, high):
                                int32s[places[nulled[each], ENDS] + row + 1] = used[nulled[each]]
                            next_pc = ops[pc, JUMP]
                        elif code in (BYTES, ENUM):
                            int32s[places[column, ENDS] + row + 1] = used[column]
                        continue
                if code == FLOAT:
                    int32s[places[column, DATA] + row] = load_int32(buffer, at)
                    at += 4
                elif code == DOUBLE:
                    int64s[places[column, DATA] + row] = load_int64(buffer, at)
                    at += 8
                elif code == INT:
                    value, at = read_long(buffer, at, end)
                    int32s[places[column, DATA] + row] = value
                elif code == LONG:
                    value, at = read_long(buffer, at, end)
                    int64s[places[column, DATA] + row] = value
                elif code == BYTES:
                    size, at = read_long(buffer, at, end)
                    copy(bytes_, places[column, TEXT] + used[column], buffer, at, size)
                    used[column] += size
                    int32s[places[column, ENDS] + row + 1] = used[column]
                    at += size
                elif code == SKIP_FIXED:
                    at += low
                elif code == SKIP_NUMBER:
                    _, at = read_long(buffer, at, end)
                elif code == SKIP_BYTES:
                    size, at = read_long(buffer, at, end)
                    at += size
                elif code == BOOLEAN:
                    bytes_[places[column, DATA] + (row >> 3)] |= buffer[at] << (row & 7)
                    at += 1
                elif code == FIXED:
                    copy(bytes_, places[column, DATA] + row * low, buffer, at, low)
                    at += low
                elif code == ENUM:
                    value, at = read_long(buffer, at, end)
                    start = symbols[low + value]
                    size = symbols[low + value + 1] - start
                    copy(bytes_, places[column, TEXT] + used[column], letters, start, size)
                    used[column] += size
                    int32s[places[column, ENDS] + row + 1] = used[column]
                elif code == DECIMAL:
                    size = high
                    if size == 0:
                        size, at = read_long(buffer, at, end)
                    # Avro's most significant byte comes first, Arrow's last.
                    sign = 255 if buffer[at] >= 128 else 0
                    for index in range(low):
                        byte = np.int64(buffer[at + size - 1 - index]) if index < size else sign
                        bytes_[places[column, DATA] + row * low + index] = byte
                    at += size
                elif code == BLOCKS:
                    depth += 1
                    left[depth] = 1
                    rows[depth] = row
                    row = used[column] - 1
                    next_pc = ops[pc, JUMP] - 1
                elif code == NEXT:
                    left[depth] -= 1
                    row += 1
                    if left[depth] > 0:
                        next_pc = ops[pc, JUMP]
                        continue
                    count, at = read_long(buffer, at, end)
                    if count == 0:
                        row = rows[depth]
                        depth -= 1
                        if column < columns:
                            int32s[places[column, ENDS] + row + 1] = used[column]
                        continue
                    if count < 0:
                        _, at = read_long(buffer, at, end)
                    left[depth] = abs(count)
                    used[column] += abs(count)
                    next_pc = ops[pc, JUMP]
                elif code == CHOICE:
                    # Of all members, as if none were taken: the one that is will write its own over it.
                    for each in range(low, high):
                        int32s[places[nulled[each], ENDS] + row + 1] = used[nulled[each]]
                    for each in range(branches):
                        member = ops[next_pc + each, COLUMN]
                        if each != branch and member < columns:
                            bytes_[places[member, VALID] + (row >> 3)] &= ~(1 << (row & 7))
                            nulls[member] += 1
                    next_pc += branch
                elif code == GOTO:
                    next_pc = ops[pc, JUMP]
            pc = next_pc


def _examples() -> tuple[tuple[Any, tuple[Any, ...]], ...]:
    """Return what is compiled, with arguments of the only types that it is ever called with."""
    read_only = np.zeros(1, np.uint8)
    read_only.flags.writeable = False
    ints, table = np.zeros(0, np.int64), np.zeros((0, 8), np.int64)
    limits = np.zeros((0, LIMIT_BYTES), np.uint8)
    letters, int32s = np.zeros(0, np.uint8), np.zeros(0, np.int32)
    return (
        (walk, (read_only, ints, table, limits, ints, 0, ints, ints, table, ints, ints, ints)),
        (
            fill,
            (
                read_only,
                ints,
                table,
                table,
                table,
                ints,
                ints,
                letters,
                table,
                ints,
                ints,
                letters,
                int32s,
                ints,
                ints,
                ints,
            ),
        ),
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
