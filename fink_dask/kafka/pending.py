"""Records that wait to become batches."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np

from fink_dask.kafka.client import Message
from fink_dask.kafka.memory import Memory
from fink_dask.kafka.records import RawBatch, join_records

#: The most records of any batch: each costs memory beside its bytes, however small it is.
MAX_BATCH_RECORDS = 100_000


class Pending:
    """Records of one partition, in offset order, that wait to become batches.

    Where a batch ends depends on the records alone.

    Parameters
    ----------
    batchsize : int
        The most records of a batch that has `min_bytes`.
    batch_bytes : int
        The most bytes of a batch's values and keys, unless a single record is larger.
    min_bytes : int
        A batch has at least this many bytes, unless it has `max_records`.
    max_records : int
        The most records of any batch.

    Attributes
    ----------
    join_seconds : float
        Time spent on joining values.
    """

    def __init__(self, batchsize: int, batch_bytes: int, min_bytes: int, max_records: int) -> None:
        self._batchsize = batchsize
        self._batch_bytes = batch_bytes
        self._min_bytes = min_bytes
        self._max_records = min(max_records, MAX_BATCH_RECORDS)
        self._memory = Memory()
        self._offsets: list[int] = []
        self._timestamps_ms: list[int] = []
        self._values: list[bytes | None] = []
        self._keys: list[bytes | None] = []
        self._sizes: list[int] = []
        self._size = 0
        self.join_seconds = 0.0

    def extend(self, messages: Sequence[Message]) -> int:
        """Take records; return their bytes."""
        values, keys = [message.value() for message in messages], [message.key() for message in messages]
        self._offsets += [message.offset() for message in messages]
        self._timestamps_ms += [message.timestamp()[1] for message in messages]
        self._values += values
        self._keys += keys
        sizes = [len(value or b"") + len(key or b"") for value, key in zip(values, keys, strict=True)]
        self._sizes += sizes
        added = sum(sizes)
        self._size += added
        return added

    def full(self) -> Iterator[RawBatch]:
        """Yield the batches that no later record can become part of."""
        while self._size > self._batch_bytes or len(self._sizes) > (
            min(self._batchsize, self._max_records) if self._size >= self._min_bytes else self._max_records
        ):
            stops = np.cumsum(self._sizes)
            fitting = int(np.searchsorted(stops, self._batch_bytes, "right"))
            enough = int(np.searchsorted(stops, self._min_bytes)) + 1
            count = max(1, min(fitting, self._max_records, max(self._batchsize, enough)))
            if count >= len(self._sizes):
                return
            yield self._cut(count)

    def rest(self) -> Iterator[RawBatch]:
        """Yield what is left at the end."""
        if self._values:
            yield self._cut(len(self._values))

    def _cut(self, count: int) -> RawBatch:
        began = time.perf_counter()
        batch = join_records(
            self._offsets[:count], self._timestamps_ms[:count], self._values[:count], self._keys[:count], self._memory
        )
        self._size -= sum(self._sizes[:count])
        for column in (self._offsets, self._timestamps_ms, self._values, self._keys, self._sizes):
            del column[:count]
        self.join_seconds += time.perf_counter() - began
        return batch
