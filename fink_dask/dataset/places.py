"""Where the rows of files come from: the partition and offset that each carries, against what a marker accounts for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from fink_dask.dataset.records import Marker
from fink_dask.dataset.writer import KAFKA_FIELDS
from fink_dask.kafka.offsets import Range

Offsets = npt.NDArray[np.int64]


def read_places(path: Path) -> tuple[npt.NDArray[np.int32], Offsets]:
    """Read partition and offset of each row of a file."""
    table = pq.read_table(path, columns=[field.name for field in KAFKA_FIELDS], partitioning=None)
    partitions, offsets = (table[field.name].to_numpy() for field in KAFKA_FIELDS)
    return partitions, offsets


class SharedPlaces:
    """The offsets in files of many ranges, of which each is read once."""

    def __init__(self) -> None:
        self._sorted: dict[Path, dict[int, Offsets]] = {}

    def by_partition(self, path: Path) -> dict[int, Offsets]:
        """Return the offsets of each partition in a file, in order."""
        if path not in self._sorted:
            partitions, offsets = read_places(path)
            self._sorted[path] = {
                int(partition): np.sort(offsets[partitions == partition]) for partition in np.unique(partitions)
            }
        return self._sorted[path]

    def of_range(self, path: Path, range_: Range) -> Offsets:
        """Return the offsets of a range that are in a file, in order."""
        offsets = self.by_partition(path).get(range_.partition, np.empty(0, np.int64))
        first, last = np.searchsorted(offsets, (range_.start, range_.end))
        return offsets[first:last]


def check_offsets(marker: Marker, seen: Sequence[Offsets]) -> list[str]:
    """Compare the offsets of a range's rows, as several files have them, with what its marker accounts for."""
    name = f"partition {marker.range.partition} [{marker.range.start}, {marker.range.end})"
    offsets = np.sort(np.concatenate(seen)) if seen else np.empty(0, np.int64)
    repeated = offsets[1:][np.diff(offsets) == 0]
    if repeated.size:
        return [f"{name}: offset {repeated[0]} is there twice"]
    for start, end in (*marker.lost, *marker.holes):
        first, last = np.searchsorted(offsets, (start, end))
        if last > first:
            return [f"{name}: offset {offsets[first]} is there, but its marker says that Kafka had none"]
    return []
