"""Add up a transfer's events: how far it has got, and how fast."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

from fink_dask.kafka.offsets import Range
from fink_dask.transfers.events import RangeCommitted, RangeFailed, RangeProgress, TransferStarted

#: Committed ranges that are remembered, as reports of them may come late; not all, as a follower runs for months.
_REMEMBERED = 10_000


class Tally:
    """The sums of one run."""

    def __init__(self) -> None:
        self._planned: dict[str, int] = {}
        self._before: dict[str, int] = {}
        self._committed_offsets: Counter[str] = Counter()
        self._committed_rows = self._committed_read = 0
        self._committed_bytes = 0
        self._running: dict[tuple[str, Range], RangeProgress] = {}
        self._done: dict[tuple[str, Range], None] = {}
        self._began = time.monotonic()

    def start(self, event: TransferStarted) -> None:
        """Take the size of a topic's plan; the first one starts the clock."""
        if not self._planned:
            self._began = time.monotonic()
        self._planned[event.topic] = event.offsets
        self._before[event.topic] = event.offsets_committed - self._committed_offsets[event.topic]

    def grow(self, topic: str, offsets: int) -> None:
        """Take the size of a plan that grew while it was carried out."""
        self._planned[topic] = offsets

    def progress(self, event: RangeProgress) -> None:
        """Take the report of a running range; one that comes after its commit is out of date."""
        if not self.is_committed(event):
            self._running[event.topic, event.range] = event

    def commit(self, event: RangeCommitted) -> None:
        """Take a committed range."""
        self._running.pop((event.topic, event.range), None)
        self._done[event.topic, event.range] = None
        if len(self._done) > _REMEMBERED:
            del self._done[next(iter(self._done))]
        self._committed_offsets[event.topic] += len(event.range)
        self._committed_rows += event.rows
        self._committed_read += event.read
        self._committed_bytes += event.raw_bytes

    def fail(self, event: RangeFailed) -> None:
        """Forget what a failed attempt read."""
        self._running.pop((event.topic, event.range), None)

    @property
    def topics(self) -> int:
        """Topics whose plans are known."""
        return len(self._planned)

    @property
    def offsets(self) -> int:
        """Offsets of all plans."""
        return sum(self._planned.values())

    def is_committed(self, event: RangeProgress) -> bool:
        """Tell whether a range was committed recently."""
        return (event.topic, event.range) in self._done

    @property
    def running(self) -> Mapping[tuple[str, Range], RangeProgress]:
        """The last report of each running range, by topic and range."""
        return self._running

    @property
    def offsets_done(self) -> int:
        """Offsets that are done, including those of earlier runs."""
        running = sum(event.position - event.range.start for event in self._running.values())
        return sum(self._before.values()) + self._committed_offsets.total() + running

    @property
    def offsets_of_this_run(self) -> int:
        """Offsets that this run has done."""
        return self.offsets_done - sum(self._before.values())

    @property
    def rows(self) -> int:
        """Alerts of this run."""
        return self._committed_rows + sum(event.rows for event in self._running.values())

    @property
    def read(self) -> int:
        """Alerts of this run, including those that were filtered."""
        return self._committed_read + sum(event.read for event in self._running.values())

    @property
    def raw_bytes(self) -> int:
        """Bytes of this run."""
        return self._committed_bytes + sum(event.raw_bytes for event in self._running.values())

    @property
    def seconds(self) -> float:
        """Seconds since this run began to consume."""
        return max(time.monotonic() - self._began, 1e-3)
