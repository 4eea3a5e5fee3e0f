"""Where the rows of files come from: compare the partition and offset of each with what a marker accounts for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fink_dask.dataset.data_format import Offsets
from fink_dask.dataset.formats import format_of
from fink_dask.kafka.offsets import Interval, Range
from fink_dask.ledger.records import Marker


def intervals_of(offsets: Offsets) -> list[Interval]:
    """Join offsets, given in order, into intervals."""
    cuts = np.flatnonzero(np.diff(offsets) != 1) + 1
    starts = offsets[np.concatenate([[0], cuts])].tolist() if offsets.size else []
    ends = (offsets[np.concatenate([cuts - 1, [offsets.size - 1]])] + 1).tolist() if offsets.size else []
    return list(zip(starts, ends, strict=True))


class SharedPlaces:
    """The offsets in files of many ranges; each file is read once."""

    def __init__(self) -> None:
        self._sorted: dict[Path, dict[int, Offsets]] = {}

    def by_partition(self, path: Path) -> dict[int, Offsets]:
        """Return the offsets of each partition in a file, in order."""
        if path not in self._sorted:
            partitions, offsets = format_of(path).read_places(path)
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
    offsets = np.sort(np.concatenate(seen)) if seen else np.empty(0, np.int64)
    repeated = offsets[1:][np.diff(offsets) == 0]
    if repeated.size:
        return [f"{marker.range}: offset {repeated[0]} is there twice"]
    for absent, why in (
        (marker.lost + marker.holes, "that Kafka had none"),
        (marker.duplicates, "that it was left out"),
    ):
        for start, end in absent:
            first, last = np.searchsorted(offsets, (start, end))
            if last > first:
                return [f"{marker.range}: offset {offsets[first]} is there, but its marker says {why}"]
    return []
