"""What there is of a range, and what still has to be read: nothing and all of it, except in a repair. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fink_dask.kafka.offsets import Interval, OffsetRange, merge, subtract
from fink_dask.ledger.records import DataFile, Marker


@dataclass(frozen=True)
class Remainder:
    """What is left of a range, on which the next revision of its marker is built."""

    revision: int
    #: The offsets that are in none of the files, nor lost, nor a hole; in order, at least one.
    wanted: tuple[Interval, ...]
    #: The files that are as they were written.
    files: tuple[DataFile, ...] = ()
    #: The quarantine file, if it is as it was written.
    quarantine: DataFile | None = None
    #: lost, holes: what the range's marker said of them.
    lost: tuple[Interval, ...] = ()
    holes: tuple[Interval, ...] = ()
    #: When the loss was noticed.
    lost_at: str | None = None
    #: The files that the next revision replaces; see `Marker`.
    superseded: tuple[str, ...] = ()
    #: Whether no marker says if the wanted offsets ever held a record.
    is_rebuilt: bool = True
    #: Bytes of the values of the whole range, where its marker said so; otherwise 0.
    raw_bytes: int = 0
    #: Newest timestamp of the range's records, where its marker said so.
    newest_ms: int | None = None
    #: What a compaction has left out.
    duplicates: tuple[Interval, ...] = ()
    #: What was copied elsewhere.
    handed_over: tuple[Interval, ...] = ()
    #: Alerts that were filtered and are not wanted; a marker does not say which, so that a repair wants all of them.
    filtered: int = 0

    def span(self, offset_range: OffsetRange) -> OffsetRange:
        """Find what has to be read of the range: from the first wanted offset to the last."""
        return OffsetRange(offset_range.partition, self.wanted[0][0], self.wanted[-1][1])

    def is_wanted(self, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Tell of each offset whether it is wanted."""
        starts = np.array([start for start, _ in self.wanted], np.int64)
        ends = np.array([end for _, end in self.wanted], np.int64)
        before = np.searchsorted(starts, offsets, side="right") - 1
        return (before >= 0) & (offsets < ends[before])

    def absent(self, lost: Sequence[Interval], holes: Sequence[Interval]) -> tuple[list[Interval], list[Interval]]:
        """Tell loss and holes apart among the wanted offsets that Kafka has delivered nothing of.

        An offset that held a record, and of which nothing comes any more, is lost, whatever took it. Only where the
        marker could not be read is a hole taken to have been there always.
        """
        gone, empty = self._within(lost), self._within(holes)
        return (gone, empty) if self.is_rebuilt else (merge((*gone, *empty)), [])

    def marker(
        self,
        plan_id: str,
        offset_range: OffsetRange,
        attempt: str,
        files: Sequence[DataFile] = (),
        quarantine: DataFile | None = None,
        raw_bytes: int = 0,
        lost: Sequence[Interval] = (),
        holes: Sequence[Interval] = (),
        lost_at: str | None = None,
        newest_ms: int | None = None,
        filtered: int = 0,
    ) -> Marker:
        """Build the range's next marker: what was left of it, and what an attempt adds.

        A quarantine file that is added also holds what was in the one that was left, and takes its place.
        """
        whole = (*self.files, *files)
        quarantined = quarantine or self.quarantine
        replaced = (self.quarantine.path,) if quarantine is not None and self.quarantine is not None else ()
        return Marker(
            plan_id=plan_id,
            range=offset_range,
            attempt=attempt,
            rows=sum(file.rows for file in whole),
            raw_bytes=self.raw_bytes or raw_bytes,
            files=whole,
            quarantined=0 if quarantined is None else quarantined.rows,
            quarantine=quarantined,
            filtered=self.filtered + filtered,
            lost=tuple(merge((*self.lost, *lost))),
            holes=tuple(merge((*self.holes, *holes))),
            lost_at=lost_at or self.lost_at,
            revision=self.revision,
            superseded=(*self.superseded, *replaced),
            newest_ms=max((one for one in (self.newest_ms, newest_ms) if one is not None), default=None),
            duplicates=self.duplicates,
            handed_over=self.handed_over,
        )

    def _within(self, intervals: Sequence[Interval]) -> list[Interval]:
        outside = subtract(intervals, self.wanted)
        return subtract(intervals, outside)


def rest_of(marker: Marker) -> Remainder:
    """Return what there is of a committed range, with all of it wanted again, as the base of its next revision."""
    return Remainder(
        revision=marker.revision + 1,
        wanted=((marker.range.start, marker.range.end),),
        files=marker.files,
        quarantine=marker.quarantine,
        lost=marker.lost,
        holes=marker.holes,
        lost_at=marker.lost_at,
        is_rebuilt=False,
        raw_bytes=marker.raw_bytes,
        newest_ms=marker.newest_ms,
        duplicates=marker.duplicates,
        handed_over=marker.handed_over,
        filtered=marker.filtered,
    )


def whole_range(offset_range: OffsetRange) -> Remainder:
    """Return what there is of a range that was never committed."""
    return Remainder(revision=0, wanted=((offset_range.start, offset_range.end),))
