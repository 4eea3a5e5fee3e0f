"""The loop that copies records from librdkafka's memory into a batch, without a Python object for each.

It calls librdkafka by the addresses of its functions. An event of a partition's queue is a record, or it is something
else, which ends the loop: Python looks at that. One event at a time is held, so that whatever ends the loop, there is
at most one that is not destroyed, and it is known.

https://github.com/confluentinc/librdkafka/blob/master/src/rdkafka.h has the layout of a message.
"""

# ruff: noqa: PLR0911, PLR0912, PLR0915 - a call of a function takes longer than the rest of what is done for a record

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fink_dask.compiling import (
    call_for_nothing,
    call_with_one,
    call_with_two,
    compiled,
    inlined,
    inner,
    move,
    peek_byte,
    peek_int32,
    peek_int64,
    span,
)
from fink_dask.kafka.records import is_complete

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

#: The numbers of `calls`: the queue, and what is called.
QUEUE, POLL, MESSAGE_OF, TIMESTAMP, DESTROY = range(5)
#: The numbers of `state`: the event that is held and its message; the next offset, where the range ends, and which
#: partition it is; records of the batch, and bytes of its values, and of values and keys; records and holes of this
#: call; how many different keys there are one after the other, and their bytes; the bytes that there was no room for.
HELD, MESSAGE, POSITION, END, PARTITION, RECORDS, USED, SIZE, TAKEN, HOLES, KEYS, KEY_BYTES, NEEDED, NUMBERS = range(14)
#: Why the loop has ended: nothing is there; something that is no record is held; the range is over; the batch is; there
#: is no room for the value, or the key, that is held; it has taken as much as it may at once; what is held is no record
#: of this partition.
EMPTY, EVENT, OVER, COMPLETE, NO_ROOM, NO_KEY_ROOM, ENOUGH, FOREIGN = range(8)

#: Where a message has what is known of a record: `rd_kafka_message_t`, where pointers have 64 bits.
_ERROR, _PARTITION, _VALUE, _VALUE_SIZE, _KEY, _KEY_SIZE, _OFFSET = 0, 16, 24, 32, 40, 48, 56
#: No value or key is larger: Kafka's own sizes have 32 bits.
_MOST_BYTES = 2**31

_is_complete = inlined(is_complete)


@inner
def _is_same(first: int, second: int, size: int) -> bool:
    """Tell whether the bytes at two addresses are the same."""
    at = 0
    while at + 8 <= size:
        if peek_int64(first + at) != peek_int64(second + at):
            return False
        at += 8
    while at < size:
        if peek_byte(first + at) != peek_byte(second + at):
            return False
        at += 1
    return True


@compiled
def copy_records(
    calls: Ints,
    state: Ints,
    bounds: Ints,
    offsets: Ints,
    timestamps_ms: Ints,
    ends: Ints,
    missing: npt.NDArray[np.bool_],
    data: Bytes,
    keys: Ints,
    key_data: Bytes,
    holes: Ints,
) -> int:
    """Copy records until something ends it; returns what.

    `calls`, `state`: see the numbers above.
    `bounds`: those of a batch.
    `offsets`, `timestamps_ms`, `ends`, `missing`, `data`: the batch, of a `RecordAccumulator`.
    `keys`: rows of two numbers, for each key that is not the one before it: how many records have it, and its bytes, -1
    for none. Its length is how many records a call takes.
    `key_data`: these keys.
    `holes`: rows of two offsets, where nothing was between them.
    """
    queue, most = calls[QUEUE], keys.shape[0]
    state[TAKEN] = state[HOLES] = state[KEYS] = state[KEY_BYTES] = 0
    while state[TAKEN] < most:
        event = state[HELD]
        if event == 0:
            event = call_with_two(calls[POLL], queue, 0)
            if event == 0:
                return EMPTY
            state[HELD] = event
            state[MESSAGE] = 0
        message = state[MESSAGE]
        if message == 0:
            message = call_with_one(calls[MESSAGE_OF], event)
            if message == 0:
                return EVENT
            state[MESSAGE] = message
        offset, size, key_size = (
            peek_int64(message + _OFFSET),
            peek_int64(message + _VALUE_SIZE),
            peek_int64(message + _KEY_SIZE),
        )
        if (
            peek_int32(message + _ERROR) != 0
            or peek_int32(message + _PARTITION) != state[PARTITION]
            or not 0 <= size < _MOST_BYTES
            or not 0 <= key_size < _MOST_BYTES
            or offset < 0
        ):
            return FOREIGN
        position = state[POSITION]
        if offset > position:
            if state[HOLES] == holes.shape[0]:
                return ENOUGH
            reached = min(offset, state[END])
            holes[state[HOLES], 0], holes[state[HOLES], 1] = position, reached
            state[HOLES] += 1
            state[POSITION] = position = reached
        if position == state[END] or offset < position:
            state[HELD] = 0
            call_for_nothing(calls[DESTROY], event)
            if position == state[END]:
                return OVER
            continue
        value, key = peek_int64(message + _VALUE), peek_int64(message + _KEY)
        if value == 0:
            size = 0
        if key == 0:
            key_size = 0
        records, used = state[RECORDS], state[USED]
        if _is_complete(bounds, records, state[SIZE], size + key_size):
            return COMPLETE
        if used + size > data.size:
            state[NEEDED] = size
            return NO_ROOM
        last, kept = state[KEYS] - 1, -1 if key == 0 else key_size
        if (
            last < 0
            or keys[last, 1] != kept
            or not _is_same(key, span(key_data, state[KEY_BYTES] - key_size, key_size), key_size)
        ):
            if state[KEY_BYTES] + key_size > key_data.size:
                state[NEEDED] = key_size
                return NO_KEY_ROOM
            move(span(key_data, state[KEY_BYTES], key_size), key, key_size)
            state[KEY_BYTES] += key_size
            last += 1
            keys[last, 0], keys[last, 1] = 0, kept
            state[KEYS] += 1
        keys[last, 0] += 1
        move(span(data, used, size), value, size)
        offsets[records] = offset
        timestamps_ms[records] = call_with_two(calls[TIMESTAMP], message, 0)
        ends[records] = used + size
        missing[records] = value == 0
        state[HELD] = 0
        call_for_nothing(calls[DESTROY], event)
        state[RECORDS], state[USED], state[SIZE] = records + 1, used + size, state[SIZE] + size + key_size
        state[TAKEN] += 1
        state[POSITION] = offset + 1
        if offset + 1 == state[END]:
            return OVER
    return ENOUGH


def load() -> None:
    """Compile the loop, or load it from numba's cache: for the processes that are forked from this one."""
    ints, letters = np.zeros(NUMBERS, np.int64), np.zeros(0, np.uint8)
    pairs = np.zeros((0, 2), np.int64)
    copy_records(ints, ints, *4 * (ints,), np.zeros(0, np.bool_), letters, pairs, letters, pairs)
