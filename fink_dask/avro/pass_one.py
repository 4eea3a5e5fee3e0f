"""Pass 1 of the columnar decoder: judge the bytes of every record, and count what pass 2 needs."""

from __future__ import annotations

from fink_dask.avro.kernels import Bytes, Ints, compiled, is_decimal, is_utf8, read_long, read_size
from fink_dask.avro.operations import (
    BLOCKS,
    BOOLEAN,
    BRANCHES,
    BYTES,
    CHOICE,
    CODE,
    COLUMN,
    DECIMAL,
    ENUM,
    GOTO,
    JUMP,
    LONG,
    MARK,
    NEXT,
    NULL,
    NULL_BYTE,
    RANGED,
    REPEAT,
    SKIP_FIXED,
    STOP,
    STRING,
    A,
    B,
    allowed_cells,
)  # fmt: skip

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
