"""When to plan what has arrived in a topic, and when topics have been followed for long enough."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from fink_dask.config import FollowSettings
from fink_dask.transfers.plan import Sizing

Spans = Mapping[int, tuple[int, int]]


class Pace:
    """Decides what part of a topic is due.

    Parameters
    ----------
    roll_interval_s : float
        The most seconds that an alert waits.
    """

    def __init__(self, roll_interval_s: float) -> None:
        self._roll_interval_s = roll_interval_s
        self._seen: dict[int, float] = {}

    def look(self, spans: Spans, now: float) -> None:
        """Take note of what is not planned yet, of each partition."""
        self._seen = {partition: self._seen.get(partition, now) for partition in spans}

    def due(self, spans: Spans, sizing: Sizing, now: float) -> dict[int, tuple[int, int]]:
        """Choose what to plan now: partitions with a whole range's bytes, or everything once something is overdue.

        Partitions are rolled together, which makes fewer generations than each on its own, and no more files.
        """
        waited = max((now - self._seen.get(partition, now) for partition in spans), default=0.0)
        if waited >= self._roll_interval_s:
            return dict(spans)
        return {
            partition: (start, end)
            for partition, (start, end) in spans.items()
            if (end - start) * sizing.of(partition) >= sizing.range_bytes
        }

    def planned(self, spans: Spans) -> None:
        """Take note that these were planned: what comes next in their partitions begins to wait anew."""
        for partition in spans:
            self._seen.pop(partition, None)


class Ending:
    """Decides when all topics together have been followed for long enough.

    Parameters
    ----------
    follow : FollowSettings
        What the user asked for.
    now : float
        The time, in seconds, on the same clock as the other times.
    """

    def __init__(self, follow: FollowSettings, now: float) -> None:
        self._follow = follow
        self._stables: dict[tuple[str, int], int] = {}
        self._grew = now

    def look(self, topic: str, stables: Mapping[int, int], now: float) -> None:
        """Take note of the last stable offset of each partition of a topic."""
        ends = {(topic, partition): stable for partition, stable in stables.items()}
        if self._stables and any(stable > self._stables.get(where, 0) for where, stable in ends.items()):
            self._grew = now
        self._stables |= ends

    def excuse(self, seconds: float) -> None:
        """Leave out of account some time in which nobody could tell whether a topic grew."""
        self._grew += seconds

    def quiet_s(self, now: float) -> float:
        """Return the seconds in which nothing has arrived."""
        return max(0.0, now - self._grew)

    def is_idle(self, now: float) -> bool:
        """Tell whether nothing has arrived for so long that nothing more is expected."""
        return self._follow.idle_timeout_s is not None and self.quiet_s(now) >= self._follow.idle_timeout_s

    def is_late(self) -> bool:
        """Tell whether the time at which to end has come."""
        return self._follow.until is not None and datetime.now(UTC) >= self._follow.until

    def is_enough(self, records: int) -> bool:
        """Tell whether this is as many as were wanted."""
        return self._follow.until_count is not None and records >= self._follow.until_count
