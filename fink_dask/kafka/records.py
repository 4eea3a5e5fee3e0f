"""Records of one partition on their way into batches: each value is copied once, into the memory of its batch.

Where a batch ends depends on the records alone, so that two attempts at a range write the same files, however the
records came: as Python's objects, which `RecordAccumulator.extend` takes, or straight from librdkafka's memory, which
`fink_dask.kafka.copying` copies.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby

import numpy as np

from fink_dask.batches import Memory, RawBatch
from fink_dask.kafka.confluent import Message

#: The most records of any batch: each costs memory beside its bytes, however small it is.
MAX_BATCH_RECORDS = 100_000

#: Bytes that a batch has room for before more are asked for; what is larger grows by copying.
_ROOM_BYTES = 8 * 2**20
#: A batch that fills a smaller part of its memory gets a copy of its own, and leaves the memory to the next one.
_FILLED = 1 / 4
#: Bytes of a value below which Python's own join is faster than to copy each by itself.
_FEW_BYTES = 4096
#: The numbers of `RecordAccumulator.bounds`.
BATCHSIZE, BATCH_BYTES, MIN_BYTES, MAX_RECORDS = range(4)


def is_complete(bounds: Sequence[int], records: int, size: int, following: int) -> bool:
    """Tell whether a batch of so many records and bytes ends before a record of so many bytes.

    numba compiles this as well: Python's loop and the compiled one follow one rule.
    """
    return records > 0 and (
        size + following > bounds[BATCH_BYTES]
        or records >= bounds[MAX_RECORDS]
        or (records >= bounds[BATCHSIZE] and size >= bounds[MIN_BYTES])
    )


class RecordAccumulator:
    """Records of one partition, in offset order, that wait to become batches.

    `batchsize`: the most records of a batch that has `min_bytes`.
    `batch_bytes`: the most bytes of a batch's values and keys, unless a single record is larger.
    `min_bytes`: a batch has at least this many bytes, unless it has `max_records`.
    `max_records`: the most records of any batch.
    """

    def __init__(self, batchsize: int, batch_bytes: int, min_bytes: int, max_records: int) -> None:
        most = min(max_records, MAX_BATCH_RECORDS)
        #: What a batch is bounded by, in the order of the numbers above.
        self.bounds = np.array([batchsize, batch_bytes, min_bytes, most], np.int64)
        self._memory = Memory()
        #: What the batch has of each of its records: offset, timestamp, where its value ends in `data`, whether it has
        #: none, which is Kafka's tombstone. Whoever copies records writes here, and says so to `add`.
        self.offsets, self.timestamps_ms, self.ends = (np.empty(most, np.int64) for _ in range(3))
        self.missing = np.empty(most, np.bool_)
        self.data = np.empty(0, np.uint8)
        #: How many records it has, and bytes of values, and of values and keys.
        self.records = self.used = self.size = 0
        # Keys, and how many records in a row have each: most topics have one and the same, or none.
        self._keys: list[tuple[bytes | None, int]] = []
        self._full: list[RawBatch] = []
        #: Time spent on copying values.
        self.join_seconds = 0.0

    def extend(self, messages: Sequence[Message]) -> int:
        """Take records; return their bytes."""
        began = time.perf_counter()
        values, keys = [message.value() for message in messages], [message.key() for message in messages]
        lengths = [len(value or b"") for value in values]
        sizes = [length + len(key or b"") for length, key in zip(lengths, keys, strict=True)]
        first = 0
        while first < len(messages):
            last = first + self._fitting(sizes[first:])
            if last == first:
                self.finish()
                continue
            some = slice(first, last)
            rows = slice(self.records, self.records + last - first)
            self.offsets[rows] = [message.offset() for message in messages[some]]
            self.timestamps_ms[rows] = [message.timestamp()[1] for message in messages[some]]
            self.ends[rows] = list(accumulate(lengths[some], initial=self.used))[1:]
            self.missing[rows] = [value is None for value in values[some]]
            self._copy(values[some], sum(lengths[some]))
            found = [(key, len([*same])) for key, same in groupby(keys[some])]
            self.add(last - first, sum(lengths[some]), sum(sizes[some]), found)
            first = last
        self.join_seconds += time.perf_counter() - began
        return sum(sizes)

    def add(self, records: int, used: int, size: int, keys: Sequence[tuple[bytes | None, int]]) -> None:
        """Take note of records whose columns and values are written.

        `used`, `size`: bytes of their values, and of values and keys.
        `keys`: the keys, and how many records in a row have each.
        """
        self.records, self.used, self.size = self.records + records, self.used + used, self.size + size
        for key, count in keys:
            if self._keys and self._keys[-1][0] == key:
                self._keys[-1] = key, self._keys[-1][1] + count
            else:
                self._keys.append((key, count))

    def make_room(self, size: int) -> None:
        """Make room for the values of the batch and so many bytes more."""
        if self.used + size > len(self.data):
            usual = min(int(self.bounds[BATCH_BYTES]), max(_ROOM_BYTES, 2 * len(self.data)))
            larger = self._memory.take(max(self.used + size, usual))
            larger[: self.used] = self.data[: self.used]
            self.data = larger

    def finish(self) -> None:
        """Make a batch of the records that there are; the next record begins another one."""
        count, used = self.records, self.used
        starts = np.zeros(count + 1, np.int64)
        starts[1:] = self.ends[:count]
        data = self.data[:used]
        if used < _FILLED * len(self.data):
            data = data.copy()
        else:
            self.data = np.empty(0, np.uint8)
        missing = self.missing[:count].copy() if self.missing[:count].any() else None
        keys = [key for key, times in self._keys for _ in range(times)]
        self._full.append(
            RawBatch(self.offsets[:count].copy(), self.timestamps_ms[:count].copy(), data, starts, missing, keys)
        )
        self.records = self.used = self.size = 0
        self._keys = []

    def full(self) -> Iterator[RawBatch]:
        """Yield the batches that no later record can become part of."""
        while self._full:
            yield self._full.pop(0)

    def rest(self) -> Iterator[RawBatch]:
        """Yield what is left at the end."""
        if self.records:
            self.finish()
        yield from self.full()

    def _fitting(self, sizes: Sequence[int]) -> int:
        """Return how many records of these sizes the batch takes; where it is complete, it is before all later ones."""
        before = [*accumulate(sizes, initial=self.size)]
        bounds: list[int] = self.bounds.tolist()

        def ends_before(number: int) -> bool:
            return is_complete(bounds, self.records + number, before[number], sizes[number])

        count = len(sizes)
        return bisect_left(range(count), True, key=ends_before) if ends_before(count - 1) else count

    def _copy(self, values: Sequence[bytes | None], size: int) -> None:
        self.make_room(size)
        present = [value for value in values if value]
        if size < _FEW_BYTES * len(present):
            present = [b"".join(present)]
        into, at = memoryview(self.data), self.used  # type: ignore[arg-type]  # as arrays are from Python 3.12 on
        for value in present:
            into[at : at + len(value)] = value
            at += len(value)
