"""What the scheduler knows about the transfers that report to it: the last report of each, and sums that only grow."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from distributed import Scheduler

from fink_dask.dashboard.reports import TopicReport, TransferReport

#: How many points are kept at most.
MAX_POINTS = 600
#: Over a slow line, what arrives at once has taken up to so many seconds.
_ON_ITS_WAY_S = 30.0

#: Where the scheduler keeps the board.
_EXTENSION = "fink_dask"
#: Seconds without a report after which a transfer is said to be silent.
_SILENT_S = 15.0
#: The most ended transfers that are remembered, transfers in all, and topics that are counted. Running transfers are
#: not forgotten: they would be counted again.
_MAX_ENDED = 8
_MAX_TRANSFERS = 64
_MAX_TOPICS = 500
#: Fields of a topic's report that only grow, and are counted for as long as the scheduler lives.
COUNTED = (
    *("alerts", "raw_bytes", "alerts_read", "bytes_read", "bytes_received", "bytes_wasted"),
    *("ranges_run", "filtered", "quarantined", "lost", "retries"),
)


@dataclass(frozen=True)
class Point:
    """The progress at one moment."""

    seconds: float
    #: alerts, raw_bytes: alerts read, and bytes received so far.
    alerts: int
    raw_bytes: int
    #: Offsets that are not committed.
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

        Returns: seconds, alerts per second, bytes per second. The first point has the speeds of the second one.
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


@dataclass
class Reported:
    """A transfer that has reported."""

    report: TransferReport
    #: When that arrived, by `time.monotonic`.
    heard: float
    #: The progress of each topic over time.
    histories: dict[str, History] = field(default_factory=dict)
    #: Whether its process disappeared.
    is_lost: bool = False

    @property
    def is_running(self) -> bool:
        """Whether it is still running, as far as is known."""
        return self.report.state == "running" and not self.is_lost

    @property
    def silent_s(self) -> float | None:
        """Seconds since its last report, if that is longer than usual."""
        silent_s = time.monotonic() - self.heard
        return silent_s if self.is_running and silent_s > _SILENT_S else None

    def since(self, quiet_s: float | None) -> float | None:
        """Say how long ago something is by now that was so long ago when it was reported."""
        return None if quiet_s is None else quiet_s + time.monotonic() - self.heard


class Board:
    """All transfers that have reported, the latest last."""

    def __init__(self) -> None:
        self.transfers: dict[str, Reported] = {}
        #: For each topic, sums of `COUNTED` and of the stages' seconds over all its transfers.
        self.counts: dict[str, dict[str, float]] = {}

    def take(self, report: TransferReport) -> None:
        """Take a report; ignore one that is out of date, or of a new transfer once there are too many."""
        known = self.transfers.get(report.transfer)
        if known is not None and known.report.seconds > report.seconds:
            return
        if known is None and len(self.transfers) >= _MAX_TRANSFERS:
            return
        before = {topic.topic: topic for topic in known.report.topics} if known is not None else {}
        if known is None:
            known = self.transfers[report.transfer] = Reported(report, 0.0)
        known.report, known.heard, known.is_lost = report, time.monotonic(), False
        for topic in report.topics:
            self._count(topic, before.get(topic.topic))
            history = known.histories.setdefault(topic.topic, History())
            history.add(report.seconds, topic.alerts_read, topic.bytes_received, topic.lag)
        self._forget()

    def lose(self, client: str) -> None:
        """Note that a client has gone."""
        for known in self.transfers.values():
            if known.report.client == client and known.is_running:
                known.is_lost = True
        self._forget()

    def topics(self) -> Iterator[tuple[Reported, TopicReport]]:
        """Yield every topic of every transfer, the latest transfer last."""
        for known in self.transfers.values():
            for topic in known.report.topics:
                yield known, topic

    def _count(self, topic: TopicReport, before: TopicReport | None) -> None:
        sums = self.counts.get(topic.topic)
        if sums is None:
            if len(self.counts) >= _MAX_TOPICS:
                return
            sums = self.counts[topic.topic] = {}
        for name in COUNTED:
            grown = getattr(topic, name) - (getattr(before, name) if before is not None else 0)
            sums[name] = sums.get(name, 0) + max(0, grown)
        for stage, seconds in topic.stage_seconds.items():
            grown = seconds - (before.stage_seconds.get(stage, 0.0) if before is not None else 0.0)
            sums[f"stage {stage}"] = sums.get(f"stage {stage}", 0.0) + max(0.0, grown)

    def _forget(self) -> None:
        ended = [key for key, known in self.transfers.items() if not known.is_running]
        for key in ended[: max(0, len(ended) - _MAX_ENDED)]:
            del self.transfers[key]


def board_of(scheduler: Scheduler) -> Board:
    """Return the board of a scheduler, creating it if there is none."""
    board: Board = scheduler.extensions.setdefault(_EXTENSION, Board())
    return board
