"""The progress of a transfer over time, in a bounded number of points: the longer it runs, the wider apart."""

from __future__ import annotations

from dataclasses import dataclass

#: How many points are kept at most.
MAX_POINTS = 600


@dataclass(frozen=True)
class Point:
    """The progress at one moment.

    Parameters
    ----------
    seconds : float
        Since the beginning.
    alerts, raw_bytes : int
        Alerts read, and bytes received so far.
    lag : int
        Offsets that are not committed.
    """

    seconds: float
    alerts: int
    raw_bytes: int
    lag: int


class History:
    """Points in the order of time; the last one is always the newest report."""

    def __init__(self) -> None:
        self._points: list[Point] = []
        self._apart_s = 0.0

    def add(self, seconds: float, alerts: int, raw_bytes: int, lag: int) -> None:
        """Add a point."""
        point = Point(seconds, alerts, raw_bytes, lag)
        if len(self._points) > 1 and seconds - self._points[-2].seconds < self._apart_s:
            self._points[-1] = point
            return
        self._points.append(point)
        if len(self._points) > MAX_POINTS:
            self._points = self._points[:-1:2] + self._points[-1:]
            self._apart_s = 2 * (self._points[-1].seconds - self._points[0].seconds) / MAX_POINTS

    @property
    def points(self) -> list[Point]:
        """All points."""
        return list(self._points)

    def speeds(self) -> tuple[list[float], list[float], list[float]]:
        """Return the times of all points, and the alerts and bytes per second between each and the one before.

        Returns
        -------
        tuple of list of float
            Seconds, alerts per second, bytes per second. The first point has the speeds of the second one.
        """
        alerts, raw_bytes = [], []
        for before, after in zip(self._points, self._points[1:], strict=False):
            between = max(after.seconds - before.seconds, 1e-3)
            alerts.append((after.alerts - before.alerts) / between)
            raw_bytes.append((after.raw_bytes - before.raw_bytes) / between)
        return (
            [point.seconds for point in self._points],
            (alerts[:1] or [0.0]) + alerts,
            (raw_bytes[:1] or [0.0]) + raw_bytes,
        )
