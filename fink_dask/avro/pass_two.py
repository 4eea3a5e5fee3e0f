"""Pass 2 of the columnar decoder: lay the values of sound records out as Arrow does."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fink_dask.avro.kernels import Bytes, Ints, compiled, copy, load_int32, load_int64, read_long
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
    LONG,
    NEXT,
    NULL,
    NULL_BYTE,
    REPEAT,
    SKIP_BYTES,
    SKIP_FIXED,
    SKIP_NUMBER,
    STOP,
    TEXT,
    VALID,
    A,
    B,
)  # fmt: skip


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
