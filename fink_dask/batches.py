"""The records of a batch, before anything is decoded, and memory that is used again and again."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

#: Bytes of a value below which Python's own join is faster than one into memory that is reused.
_FEW_BYTES = 4096


def _with_huge_pages(size: int) -> npt.NDArray[np.uint8]:
    """Return memory for batches, which differ a little in size; numpy asks for huge pages where it is large."""
    return np.empty(size + size // 8, np.uint8)


class Memory:
    """Pieces of memory; a piece is free again when the last array in it is gone.

    Asked for anew, all its pages would be cleared and mapped again, which takes as long as filling them.

    `new`: makes a piece of at least so many bytes.
    `kept`: how many pieces that are free are kept.

    It may be shared by threads: every step is one operation on a dictionary.
    """

    def __init__(self, new: Callable[[int], npt.NDArray[np.uint8]] = _with_huge_pages, kept: int = 2) -> None:
        self._new, self._kept = new, kept
        self._spare: dict[int, npt.NDArray[np.uint8]] = {}

    def take(self, size: int) -> npt.NDArray[np.uint8]:
        """Return memory of any content.

        Returns: the memory, which is in use as long as this lives, or anything that numpy or Arrow makes of it.
        """
        piece = self._find(size)
        view = piece[:size]
        weakref.finalize(view, self._give_back, piece).atexit = False
        # A slice of an array refers to the array that has the memory, and would not keep the view.
        return np.frombuffer(pa.py_buffer(view), np.uint8)

    def _find(self, size: int) -> npt.NDArray[np.uint8]:
        # A list of pairs is not made at once: each pair may have Python collect garbage, and that gives pieces back.
        for number, piece in self._spare.copy().items():
            # One that is far too large is left to larger ones; another thread may have taken it meanwhile.
            if size <= len(piece) <= 4 * size + 2**20 and self._spare.pop(number, None) is not None:
                return piece
        return self._new(size)

    def _give_back(self, piece: npt.NDArray[np.uint8]) -> None:
        self._spare[id(piece)] = piece
        for number in list(self._spare)[: -self._kept]:
            self._spare.pop(number, None)


@dataclass(frozen=True, eq=False)
class RawBatch:
    """Records of one partition, in offset order, their values joined."""

    #: Offset of each record.
    offsets: npt.NDArray[np.int64]
    #: Kafka timestamp of each record in milliseconds since 1970-01-01 UTC, -1 where the broker has none.
    timestamps_ms: npt.NDArray[np.int64]
    #: The untouched values, one after another.
    data: bytes | npt.NDArray[np.uint8]
    #: Where each value begins in `data`, and where the last one ends.
    starts: npt.NDArray[np.int64]
    #: Which records have no value at all, which is Kafka's tombstone; None where all have one.
    missing: npt.NDArray[np.bool_] | None
    #: The untouched key of each record.
    keys: Sequence[bytes | None]

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def raw_bytes(self) -> int:
        """Bytes of all values."""
        return int(self.starts[-1])

    def values(self) -> pa.BinaryArray:
        """Return all values without copying them; a missing one is empty."""
        starts = pa.py_buffer(self.starts.astype(np.int32))
        return pa.Array.from_buffers(pa.binary(), len(self), [None, starts, pa.py_buffer(self.data)])

    def value(self, index: int) -> bytes | None:
        """Return the untouched value of a record; None for a tombstone."""
        if self.missing is not None and self.missing[index]:
            return None
        return bytes(self.data[self.starts[index] : self.starts[index + 1]])


def join_records(
    offsets: Sequence[int],
    timestamps_ms: Sequence[int],
    values: Sequence[bytes | None],
    keys: Sequence[bytes | None],
    memory: Memory,
) -> RawBatch:
    """Make a batch of records.

    `offsets, timestamps_ms, values, keys`: what the batch holds of each record.
    """
    data, starts, missing = join_values(values, memory)
    return RawBatch(np.array(offsets, np.int64), np.array(timestamps_ms, np.int64), data, starts, missing, keys)


def join_values(
    values: Sequence[bytes | None], memory: Memory
) -> tuple[bytes | npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.bool_] | None]:
    """Join values; returns `data`, `starts` and `missing` of a `RawBatch`."""
    present = [value or b"" for value in values]
    starts = np.zeros(len(present) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, present), np.int64, len(present)), out=starts[1:])
    size = int(starts[-1])
    data: bytes | npt.NDArray[np.uint8]
    if size < _FEW_BYTES * len(present):
        data = b"".join(present)
    else:
        data = memory.take(size)
        into = memoryview(data)  # type: ignore[arg-type]  # Arrays have the buffer protocol from Python 3.12 only.
        for value, start in zip(present, starts.tolist(), strict=False):
            into[start : start + len(value)] = value
    return data, starts, np.array([value is None for value in values]) if None in values else None


def without_heads(
    data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], heads: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Leave out a few bytes at the beginning of each value; returns `data` and `starts`, as a copy.

    `starts`: where each begins, and where the last one ends.
    `heads`: how many bytes, no more than a value has.
    """
    kept = np.ones(int(starts[-1] - starts[0]), np.bool_)
    for place in range(int(heads.max(initial=0))):
        kept[starts[:-1][heads > place] - starts[0] + place] = False
    shifts = np.concatenate([[0], np.cumsum(heads)])
    shorter = np.ascontiguousarray(data[starts[0] : starts[-1]][kept])
    shorter.flags.writeable = False
    return shorter, np.ascontiguousarray(starts - starts[0] - shifts, np.int64)
