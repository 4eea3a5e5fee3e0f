"""A clock that is set by hand, and events as a transfer would send them."""

from __future__ import annotations

from fink_dask.dashboard.reporter import Reports
from fink_dask.dashboard.reports import TransferReport
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.progress.events import Event, Forecast, RangeProgress, TransferStarted
from fink_dask.progress.tally import Progress


class Clock:
    """Tells the time that it was set to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def started(
    offsets: int, committed: int = 0, topic: str = "t", raw_bytes: int | None = None, timeout_s: float = 300
) -> TransferStarted:
    """Announce a topic of so many offsets in one range, with an estimate of its bytes or without."""
    forecast = None if raw_bytes is None else Forecast(offsets - committed, raw_bytes, raw_bytes, 1.0, None)
    return TransferStarted(topic, 1, 0, offsets, committed, None, forecast=forecast, reconnect_timeout_s=timeout_s)


def received(
    offset_range: OffsetRange,
    count: int,
    size: int = 1000,
    read: int = 0,
    quiet_s: float = 0.0,
    waits: bool = False,
    attempt: str = "first",
    topic: str = "t",
) -> RangeProgress:
    """Report so many records of a size in bytes that have arrived, of which some are read."""
    return RangeProgress(
        *(topic, offset_range, attempt, offset_range.start + read, read, size * read, 0),
        received=count,
        received_bytes=size * count,
        quiet_s=quiet_s,
        waits=waits,
    )


class Told:
    """A run that is told its events, and what it reports to the dashboard."""

    def __init__(self, client: str = "client") -> None:
        self._progress = Progress()
        self._reports = Reports(self._progress, client)

    def take(self, *events: Event) -> None:
        """Tell it some events."""
        for event in events:
            self._progress(event)

    def report(self) -> TransferReport:
        """Return what it reports."""
        return self._reports.make()
