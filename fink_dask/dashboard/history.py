"""The progress of a transfer over time, in a bounded number of points: the longer it runs, the wider apart."""

from __future__ import annotations

from dataclasses import dataclass

#: How many points are kept at most.
MAX_POINTS = 600
#: Over a slow line, what arrives at once has taken up to so many seconds.
_ON_ITS_WAY_S = 30.0


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
        alerts = [point.alerts for point in self._points]
        raw_bytes = [point.raw_bytes for point in self._points]
        seconds = [point.seconds for point in self._points]
        return seconds, _speeds(seconds, alerts), _speeds(seconds, raw_bytes)


def _speeds(seconds: list[float], totals: list[int]) -> list[float]:
    """Return the speed between each point and the one before; what comes at once was on its way for a while."""
    speeds = [0.0] * max(1, len(totals))
    grown = 0
    for now in range(1, len(totals)):
        if totals[now] <= totals[now - 1]:
            continue
        while grown < now - 1 and seconds[now] - seconds[grown] > _ON_ITS_WAY_S:
            grown += 1
        between = max(seconds[now] - seconds[grown], 1e-3)
        for point in range(grown + 1, now + 1):
            speeds[point] = (totals[now] - totals[now - 1]) / between
        grown = now
    if len(speeds) > 1:
        speeds[0] = speeds[1]
    return speeds
