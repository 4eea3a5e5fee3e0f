"""Add up a transfer's events: what has arrived and what is committed, how fast, and how long the rest will take.

A run adds each event up once. Whoever tells of it reads these sums: the bar, the page, the metrics, the profile, the
ledger's note for `status`, and a follower.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from queue import SimpleQueue

from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.summary import Arrival, Phase
from fink_dask.progress.events import (
    Doing,
    Event,
    Note,
    Observer,
    RangeCommitted,
    RangeFailed,
    RangeProgress,
    TopicLooked,
    TransferStarted,
)

#: Seconds over which it is measured.
_OVER_S = 20.0
#: The fewest steps that it is measured over, however long they take.
_STEPS = 3
#: What comes within so many seconds is one step: over a slow line, the responses to several consumers come together.
_APART_S = 3.0
#: A step that is quicker than so many seconds is never overdue.
_LEAST_S = 5.0
#: After so many of the longest steps, one is overdue, and there is none under way.
_OVERDUE, _LATE = 1.25, 2.0

#: Committed ranges that are remembered, as reports of them may come late; not all, as a follower runs for months.
_REMEMBERED = 4_000
#: Seconds after which a line is not just slow, at the earliest.
_CUT_S = 10.0
#: And without a response after which the last ones are not said to come in a second, for longer than that.
_LATE_S = 3.0


class Speed:
    """What a sum gains in a second; it is told the sum whenever that may have grown."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, float]] = deque()
        self._step_began = -math.inf
        #: The longest step before a pause.
        self._before_s = 0.0

    def begin(self, now: float, total: float = 0) -> None:
        """Start the clock, if it is not running yet: from here on, what is gained has taken its time."""
        if not self._points:
            self._points.append((now, total))

    def add(self, now: float, total: float) -> None:
        """Take the sum; only one that has grown is a step."""
        points = self._points
        self.begin(now, total)
        if total <= points[-1][1]:
            return
        if len(points) > 1 and now - points[-1][0] > max(_OVER_S, self.late_s()):
            self._before_s = self._longest_s()
            points.clear()  # a pause, of which the line is not slower
        if points and now - self._step_began < _APART_S:
            points.pop()
        else:
            self._step_began = now
        points.append((now, total))
        while len(points) > _STEPS + 1 and points[1][0] <= now - _OVER_S:
            points.popleft()

    def step_s(self) -> float:
        """Return how long a step takes, on average; zero before the first one."""
        points = self._points
        return (points[-1][0] - points[0][0]) / (len(points) - 1) if len(points) > 1 else 0.0

    def late_s(self) -> float:
        """Return how long it may take until the next step; zero before the first one."""
        return _LATE * self._longest_s()

    def is_overdue(self, now: float) -> bool:
        """Tell whether the next step takes longer than usual."""
        return bool(self._points) and now - self._points[-1][0] > max(_LEAST_S, _OVERDUE * self._longest_s())

    def _longest_s(self) -> float:
        times = [time for time, _ in self._points]
        return max((after - before for before, after in pairwise(times)), default=self._before_s)

    def quiet_s(self, now: float) -> float | None:
        """Return how long ago the last step was; None before the first one."""
        return now - self._points[-1][0] if len(self._points) > 1 else None

    def per_second(self, now: float) -> float:
        """Return the speed; zero before the first step, and when no other came for long."""
        points, step_s = self._points, self.step_s()
        if len(points) < 2 or now - points[-1][0] > max(_OVER_S, self.late_s()):
            return 0.0
        # A step is not late before it has taken longer than usual.
        until = max(points[-1][0], now - step_s)
        return (points[-1][1] - points[0][1]) / max(until - points[0][0], 1e-3)


@dataclass
class Running:
    """What is known of an attempt at a range."""

    said: RangeProgress
    #: since, heard: when its first and its last report came, by `time.monotonic`.
    since: float
    heard: float

    @property
    def is_asking(self) -> bool:
        """Whether it expects something from Kafka."""
        return not self.said.waits and self.said.arrived < len(self.said.range)

    def quiet_s(self, now: float) -> float:
        """Return how long ago Kafka last sent something for it."""
        return self.said.quiet_s + max(0.0, now - self.heard)


@dataclass
class _Topic:
    """The sums of a topic that are not those of the run."""

    planned: int = 0
    before: int = 0
    committed: int = 0
    received_bytes: int = 0
    expected_bytes: float | None = None


@dataclass
class PartitionSums:
    """How many offsets a partition has, and how many of them are committed, also by earlier runs."""

    offsets: int = 0
    committed: int = 0


class Tally:
    """The sums of a topic in one run, or of all of them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._topics: dict[str, _Topic] = {}
        self._running: dict[tuple[str, OffsetRange], Running] = {}
        self._done: dict[tuple[str, OffsetRange], None] = {}
        self._failed: set[tuple[str, OffsetRange]] = set()
        self._alerts_speed, self._bytes_speed = Speed(), Speed()
        #: alerts_read, bytes_read, bytes_received: what was read, and what has arrived, counting a range that failed
        #: and was read again twice; bytes_wasted: those of them that came in vain, as an attempt failed or they lie
        #: beyond the end of a range. These never decrease.
        self.alerts_read = self.bytes_read = self.bytes_received = self.bytes_wasted = 0
        #: committed_rows, committed_read, committed_bytes: alerts of the ranges that this run has committed, wanted and
        #: all, and the bytes of what was read for them.
        self.committed_rows = self.committed_read = self.committed_bytes = 0
        #: quarantined, lost: records and offsets of these that did not become alerts. retries: further attempts.
        self.quarantined = self.lost = self.retries = 0
        #: ranges, ranges_committed, ranges_run: those of the plan, committed ones, and those that this run committed.
        self.ranges = self.ranges_committed = self.ranges_run = 0
        self.partitions: dict[tuple[str, int], PartitionSums] = {}
        #: Seconds of each stage of the ranges that this run has committed.
        self.stage_seconds: dict[str, float] = {}
        #: Newest timestamp of what is committed, in milliseconds since 1970-01-01 UTC.
        self.newest_ms: int | None = None
        #: The last look at each topic that is followed, and when the last one was, by the clock.
        self.looks: dict[str, TopicLooked] = {}
        self.looked_at = 0.0
        #: first_at, last_at: when the first alerts were there, and the last ones committed, by the clock.
        self.first_at: float | None = None
        self.last_at: float | None = None
        #: How long nothing may come before that is an error.
        self.reconnect_timeout_s: float | None = None
        self._limit_rate: int | None = None
        #: Bytes of records for a byte on the line, lately.
        self._expansion = 1.0

    def take(self, event: Event) -> None:
        """Take an event."""
        match event:
            case TransferStarted():
                self._start(event)
            case RangeProgress():
                self._progress(event)
            case RangeCommitted():
                self._commit(event)
            case RangeFailed():
                self._fail(event)
            case TopicLooked():
                self._look(event)

    def _start(self, event: TransferStarted) -> None:
        topic = self._topics.setdefault(event.topic, _Topic())
        topic.planned = event.offsets
        topic.before = event.offsets_committed - topic.committed
        self.reconnect_timeout_s = event.reconnect_timeout_s
        self._limit_rate = event.limit_rate
        self.ranges, self.ranges_committed = event.ranges, event.ranges_committed
        for partition, sums in event.partitions.items():
            self.partitions[event.topic, partition] = PartitionSums(*sums)
        if event.forecast is not None and event.forecast.alerts:
            size = event.forecast.wire_bytes or event.forecast.raw_bytes
            topic.expected_bytes = None if size is None else size / event.forecast.alerts

    def _look(self, event: TopicLooked) -> None:
        """Take the size of a plan that grew while it was carried out, and that of its partitions."""
        self.looks[event.topic], self.looked_at = event, self._clock()
        self._topics.setdefault(event.topic, _Topic()).planned = event.offsets
        for partition, behind in event.lag.partitions.items():
            known = self.partitions.setdefault((event.topic, partition), PartitionSums())
            known.offsets = known.committed + behind
        self._note_newest(event.lag.newest_ms)

    def _progress(self, event: RangeProgress) -> None:
        """Take the report of a running range; one that comes after its commit is out of date."""
        key, now = (event.topic, event.range), self._clock()
        if key in self._done:
            return
        known = self._running.get(key)
        if known is not None and known.said.attempt != event.attempt:
            # The attempt before lost its worker, so that Dask gave the range to another.
            self.bytes_wasted += _received(known.said)
            self._failed.add(key)
            known = None
        self._note_retry(key)
        if known is not None:
            event = _not_less(event, known.said)
        if event.arrived and self.first_at is None:
            self.first_at = now
        self._expansion = event.expansion
        self._count(event, known.said if known else None, now)
        self._running[key] = Running(event, known.since if known else now, now)

    def _commit(self, event: RangeCommitted) -> None:
        key, now = (event.topic, event.range), self._clock()
        known = self._running.pop(key, None)
        self._note_retry(key)
        self._done[key] = None
        if len(self._done) > _REMEMBERED:
            del self._done[next(iter(self._done))]
        topic = self._topics.setdefault(event.topic, _Topic())
        topic.committed += len(event.range)
        topic.received_bytes += max(event.raw_bytes, known.said.arrived_bytes if known else 0)
        self.committed_rows += event.rows
        self.committed_bytes += event.raw_bytes
        self.committed_read += event.read
        self.quarantined += event.quarantined
        self.lost += event.lost
        self.ranges_committed += 1
        self.ranges_run += 1
        self.partitions.setdefault((event.topic, event.range.partition), PartitionSums()).committed += len(event.range)
        for stage, seconds in event.seconds.items():
            self.stage_seconds[stage] = self.stage_seconds.get(stage, 0.0) + seconds
        self._note_newest(event.newest_ms)
        self.last_at = now
        if self.first_at is None:
            self.first_at = now
        if known is not None:
            self.bytes_wasted += _received(known.said) - known.said.arrived_bytes
        self._count(event, known.said if known else None, now)

    def _fail(self, event: RangeFailed) -> None:
        """Forget what a failed attempt read."""
        known = self._running.pop((event.topic, event.range), None)
        self._failed.add((event.topic, event.range))
        if known is not None:
            self.bytes_wasted += _received(known.said)

    def _note_retry(self, key: tuple[str, OffsetRange]) -> None:
        if key in self._failed:
            self._failed.discard(key)
            self.retries += 1

    def _note_newest(self, newest_ms: int | None) -> None:
        if newest_ms is not None:
            self.newest_ms = max(newest_ms, self.newest_ms or 0)

    @property
    def running(self) -> Iterator[Running]:
        """The attempts that run."""
        return iter(self._running.values())

    @property
    def topics(self) -> int:
        """Topics whose plans are known."""
        return len(self._topics)

    @property
    def offsets(self) -> int:
        """Offsets of all plans."""
        return sum(topic.planned for topic in self._topics.values())

    @property
    def committed(self) -> int:
        """Offsets that are committed, including those of earlier runs."""
        # A repair plans less than the ranges that it commits hold.
        return sum(min(topic.before + topic.committed, topic.planned) for topic in self._topics.values())

    @property
    def arrived(self) -> int:
        """Offsets that are committed, or have arrived for an attempt that still runs."""
        return min(self.committed + sum(each.said.arrived for each in self.running), self.offsets)

    @property
    def received_bytes(self) -> int:
        """Bytes of these that this run has received."""
        done = sum(topic.received_bytes for topic in self._topics.values())
        return done + sum(each.said.arrived_bytes for each in self.running)

    @property
    def rows(self) -> int:
        """Alerts of this run, committed or not."""
        return self.committed_rows + sum(each.said.rows for each in self.running)

    @property
    def read(self) -> int:
        """Alerts of this run, including those that were filtered."""
        return self.committed_read + sum(each.said.read for each in self.running)

    @property
    def alerts_per_second(self) -> float:
        """Alerts that are read in a second, lately."""
        return self._alerts_speed.per_second(self._clock())

    @property
    def bytes_per_second(self) -> float:
        """Bytes that arrive in a second, lately."""
        return self._bytes_speed.per_second(self._clock())

    @property
    def bytes_left(self) -> int | None:
        """About the bytes that have not arrived yet: by what has arrived, or else by the forecast; None if unknown."""
        running = {name: [0, 0] for name in self._topics}
        for each in self.running:
            sums = running.setdefault(each.said.topic, [0, 0])
            sums[0] += each.said.arrived
            sums[1] += each.said.arrived_bytes
        left = 0.0
        for name, topic in self._topics.items():
            offsets = topic.committed + running[name][0]
            missing = max(0, topic.planned - topic.before - offsets)
            size = (topic.received_bytes + running[name][1]) / offsets if offsets else topic.expected_bytes
            if missing and size is None:
                return None
            left += missing * (size or 0.0)
        return round(left)

    @property
    def seconds_left(self) -> float | None:
        """About how long the rest takes to arrive; None where nothing tells, as before the first response."""
        speed, left = self.bytes_per_second, self.bytes_left
        if self._limit_rate is not None:  # it is kept to on the line, and what comes first comes faster
            speed = min(speed, self._limit_rate * self._expansion)
        now = self._clock()
        if self.looks or not speed or not left or self._bytes_speed.is_overdue(now):
            return None
        # What arrives next is already on its way.
        quiet_s = self._bytes_speed.quiet_s(now) or 0.0
        left_s = left / speed - min(quiet_s, self._bytes_speed.step_s())
        # Where all of it should be here by now and is not, nobody knows.
        return None if left_s < 1 and quiet_s > _LATE_S else max(left_s, 1.0)

    @property
    def quiet_s(self) -> float | None:
        """Seconds since Kafka last sent something; None where nothing is expected of it."""
        now = self._clock()
        last_s = self._bytes_speed.quiet_s(now)
        # An attempt that has received nothing only knows since when it waits.
        ages = [
            each.quiet_s(now) if each.said.arrived or last_s is None else max(each.quiet_s(now), last_s)
            for each in self.running
            if each.is_asking
        ]
        if ages or self._running or self.arrived >= self.offsets:
            return min(ages, default=None)
        return last_s  # between two attempts

    @property
    def is_cut(self) -> bool:
        """Whether nothing has come for so long that a slow line does not explain it."""
        quiet_s = self.quiet_s
        return quiet_s is not None and quiet_s > max(_CUT_S, self._bytes_speed.late_s())

    @property
    def phase(self) -> Phase:
        """How far it is, in words."""
        if self.committed >= self.offsets and not self._running:
            return Phase.DONE
        if self.bytes_received or self.received_bytes:
            return Phase.RECEIVING if self.arrived < self.offsets else Phase.WRITING
        return Phase.WAITING if any(each.is_asking for each in self.running) else Phase.CONNECTING

    @property
    def arrival(self) -> Arrival:
        """What has arrived, and how, at this moment."""
        return Arrival(
            at=round(time.time(), 3),
            phase=self.phase,
            offsets=self.arrived,
            received_bytes=self.received_bytes,
            wasted_bytes=self.bytes_wasted,
            bytes_per_second=round(self.bytes_per_second, 1),
            bytes_left=self.bytes_left,
            seconds_left=self.seconds_left,
            quiet_s=self.quiet_s,
            is_cut=self.is_cut,
            reconnect_timeout_s=self.reconnect_timeout_s,
            limit_rate=self._limit_rate,
        )

    def _count(self, event: RangeProgress | RangeCommitted, before: RangeProgress | None, now: float) -> None:
        """Count what has come since the last report of the same attempt."""
        received = _received(event) if isinstance(event, RangeProgress) else event.raw_bytes
        self.alerts_read += max(0, event.read - (before.read if before else 0))
        self.bytes_read += max(0, event.raw_bytes - (before.raw_bytes if before else 0))
        self._alerts_speed.begin(now)
        self._bytes_speed.begin(now)
        self.bytes_received += max(0, received - (_received(before) if before else 0))
        self._alerts_speed.add(now, self.alerts_read)
        self._bytes_speed.add(now, self.bytes_received)


def _not_less(event: RangeProgress, before: RangeProgress) -> RangeProgress:
    """Leave out of a report that something has not arrived after all.

    What librdkafka holds is known twice a second, and what was taken of it meanwhile then counts twice for a moment.
    """
    received, size = max(event.received, before.received), max(event.received_bytes, before.received_bytes)
    return replace(event, received=received, received_bytes=size)


def _received(event: RangeProgress) -> int:
    """Return what has arrived for an attempt, with what lies beyond the end of its range."""
    return max(event.received_bytes, event.raw_bytes)


class Progress:
    """An observer that adds up what a run tells, in all and for each topic, and passes it on.

    One thread speaks, the one that made it; what others say waits until that one says something itself, or passes it
    on. Any thread may read the sums, with the lock.
    """

    def __init__(
        self,
        observe: Observer = lambda _: None,
        began: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._observe = observe
        self._clock = clock
        #: When the run began, by the clock; by default now.
        self.began = clock() if began is None else began
        self.lock = threading.RLock()
        self.whole = Tally(clock)
        self.topics: dict[str, Tally] = {}
        self._thread = threading.get_ident()
        self._waiting: SimpleQueue[Event] = SimpleQueue()

    def __call__(self, event: Event) -> None:
        """Take an event."""
        if threading.get_ident() != self._thread:
            self._waiting.put(event)
            return
        self.pass_on()
        self._take(event)

    def pass_on(self) -> None:
        """Say what other threads have said; only the thread that made it may call this."""
        for _ in range(self._waiting.qsize()):
            self._take(self._waiting.get_nowait())

    def of(self, topic: str) -> Tally:
        """Return the sums of a topic."""
        with self.lock:
            if topic not in self.topics:
                self.topics[topic] = Tally(self._clock)
            return self.topics[topic]

    def _take(self, event: Event) -> None:
        if not isinstance(event, Note | Doing):
            with self.lock:
                self.whole.take(event)
                self.of(event.topic).take(event)
        self._observe(event)
