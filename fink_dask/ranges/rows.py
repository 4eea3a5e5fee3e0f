"""Alerts on their way into a row group: those of a batch with one partition key, and those of many batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fink_dask.avro.columns import Columns, Taker
from fink_dask.avro.decoder import Decoding
from fink_dask.dataset.writer import Held, WholeBatch

_Ints = npt.NDArray[np.int64]

#: Makes rows as they are in files of those that were decoded, and their offsets.
Finish = Callable[[pa.RecordBatch, _Ints], pa.RecordBatch]


@dataclass(frozen=True, eq=False)
class Part:
    """The alerts of a batch that belong in one directory, in offset order; nothing of them is copied yet."""

    #: Their numbers among those that were decoded, the offset of each, and about which share of the batch they are.
    numbers: _Ints
    offsets: _Ints
    share: float
    #: Takes rows by their numbers.
    take: Callable[[_Ints], pa.RecordBatch]
    finish: Finish
    #: What can append them to columns, where there are these.
    decoding: Decoding | None = None

    @property
    def num_rows(self) -> int:
        """How many alerts there are."""
        return len(self.numbers)

    def filter(self, wanted: npt.NDArray[np.bool_]) -> Part:
        """Keep some of them."""
        return replace(self, numbers=self.numbers[wanted], offsets=self.offsets[wanted])

    def batch(self) -> pa.RecordBatch:
        """Return their rows, as they are in files."""
        return self.finish(self.take(self.numbers), self.offsets)

    def append_to(self, last: Held | None, most: int) -> Held:
        """Append them to what is held back of their key; see `fink_dask.dataset.writer.Rows`."""
        if self.decoding is None:
            return WholeBatch(self.batch())
        if not isinstance(last, RowGroupColumns) or last.rows.taker is not self.decoding.taker:
            last = RowGroupColumns(self.decoding.taker, self.finish)
        self.decoding.append(last.rows, self.numbers, most, self.share)
        last.offsets.append(self.offsets)
        return last


class RowGroupColumns:
    """Alerts of many batches with one partition key, in the columns of their row group."""

    def __init__(self, taker: Taker, finish: Finish) -> None:
        self.rows, self.offsets, self._finish = Columns(taker), list[_Ints](), finish

    @property
    def nbytes(self) -> int:
        """Bytes that they take."""
        return self.rows.nbytes

    def batch(self) -> pa.RecordBatch:
        """Return them as they are in files."""
        return self._finish(self.rows.batch(), np.concatenate(self.offsets))

    def extend(self, other: Held, most: int) -> bool:
        """Add others of the same columns."""
        if not isinstance(other, RowGroupColumns) or other.rows.taker is not self.rows.taker:
            return False
        self.rows.extend(other.rows, most)
        self.offsets += other.offsets
        return True

    def pack(self) -> pa.Buffer:
        """Return their memory, but for the offsets."""
        return self.rows.pack()

    def unpack(self, packed: bytes) -> None:
        """Take it back."""
        self.rows.unpack(packed)
