"""Add up the events of a transfer, topic by topic, into its reports to the scheduler."""

from __future__ import annotations

import time
import uuid
from collections import deque
from dataclasses import dataclass

from fink_dask.dashboard.reports import (
    MAX_PARTITIONS,
    MAX_RUNNING,
    MAX_TOPICS,
    PartitionReport,
    RunningReport,
    TopicReport,
    TransferReport,
)
from fink_dask.kafka.offsets import Range
from fink_dask.transfers.events import (
    Event,
    Note,
    RangeCommitted,
    RangeFailed,
    RangeProgress,
    TopicLooked,
    TransferStarted,
)
from fink_dask.transfers.profile import STAGES
from fink_dask.transfers.tally import Tally

#: Seconds over which the speed is measured; a slow topic needs a while.
_SPEED_S = 20.0
#: The most characters of an address, or of the reason why a transfer failed.
_MAX_CHARACTERS = 300


class TransferProgress:
    """The sums of one run.

    Parameters
    ----------
    client : str
        Dask's id of its client.
    """

    def __init__(self, client: str) -> None:
        self._transfer = uuid.uuid4().hex
        self._client = client
        self._began_at = time.time()
        self._began = time.monotonic()
        self._topics: dict[str, _TopicProgress] = {}

    def take(self, event: Event) -> None:
        """Take an event."""
        if isinstance(event, TransferStarted):
            self._topics.setdefault(event.topic, _TopicProgress(event.topic))
        if not isinstance(event, Note) and event.topic in self._topics:
            self._topics[event.topic].take(event)

    def report(self, state: str = "running", words: str = "") -> TransferReport:
        """Say how far it is."""
        now = time.monotonic()
        topics = tuple(topic.report(now) for topic in list(self._topics.values())[:MAX_TOPICS])
        return TransferReport(
            self._transfer,
            self._client,
            round(self._began_at, 3),
            round(now - self._began, 3),
            state,
            words[:_MAX_CHARACTERS],
            topics,
        )


@dataclass
class _Partition:
    """How many offsets a partition has, and how many of them are committed."""

    offsets: int = 0
    committed: int = 0


class _TopicProgress:
    """The sums of one topic."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._is_followed = False
        self._tally = Tally()
        self._partitions: dict[int, _Partition] = {}
        self._ranges = self._ranges_committed = self._ranges_run = 0
        self._alerts = self._raw_bytes = self._filtered = self._quarantined = self._lost = self._retries = 0
        self._alerts_read = self._bytes_read = 0
        self._newest_ms: int | None = None
        self._stage_seconds = dict.fromkeys(STAGES, 0.0)
        self._since: dict[Range, float] = {}
        self._failed: set[Range] = set()
        #: Time, alerts and bytes read and offsets behind us, of the last reports.
        self._speeds: deque[tuple[float, int, int, int]] = deque()

    def take(self, event: Event) -> None:
        match event:
            case TransferStarted():
                self._start(event)
            case RangeProgress():
                self._progress(event)
            case RangeCommitted():
                self._commit(event)
            case RangeFailed():
                self._tally.fail(event)
                self._since.pop(event.range, None)
                self._failed.add(event.range)
            case TopicLooked():
                self._look(event)

    def _start(self, event: TransferStarted) -> None:
        self._tally.start(event)
        self._ranges, self._ranges_committed = event.ranges, event.ranges_committed
        self._partitions = {
            partition: _Partition(offsets, committed) for partition, (offsets, committed) in event.partitions.items()
        }

    def _progress(self, event: RangeProgress) -> None:
        if self._tally.is_committed(event):
            return
        before = self._tally.running.get((event.topic, event.range))
        if before is None or before.attempt != event.attempt:
            # The attempt before failed, or lost its worker, so that Dask gave the range to another.
            self._retry(event.range, before is not None)
            self._since[event.range] = time.monotonic()
            before = None
        self._read(event.read, event.raw_bytes, before)
        self._tally.progress(event)

    def _commit(self, event: RangeCommitted) -> None:
        before = self._tally.running.get((event.topic, event.range))
        self._retry(event.range, False)
        self._read(event.read, event.raw_bytes, before)
        self._tally.commit(event)
        self._since.pop(event.range, None)
        self._partitions.setdefault(event.range.partition, _Partition()).committed += len(event.range)
        self._ranges_committed += 1
        self._ranges_run += 1
        self._alerts += event.rows
        self._raw_bytes += event.raw_bytes
        self._filtered += event.filtered
        self._quarantined += event.quarantined
        self._lost += event.lost
        for stage, seconds in event.seconds.items():
            self._stage_seconds[stage] += seconds
        self._note_newest(event.newest_ms)

    def _retry(self, range_: Range, is_again: bool) -> None:
        if is_again or range_ in self._failed:
            self._retries += 1
            self._failed.discard(range_)

    def _read(self, alerts: int, raw_bytes: int, before: RangeProgress | None) -> None:
        """Count what was read since the last report of the same attempt."""
        self._alerts_read += max(0, alerts - (before.read if before else 0))
        self._bytes_read += max(0, raw_bytes - (before.raw_bytes if before else 0))

    def _look(self, event: TopicLooked) -> None:
        self._is_followed = True
        self._tally.grow(event.topic, event.offsets)
        for partition, behind in event.lag.partitions.items():
            known = self._partitions.setdefault(partition, _Partition())
            known.offsets = known.committed + behind
        self._note_newest(event.lag.newest_ms)

    def _note_newest(self, newest_ms: int | None) -> None:
        if newest_ms is not None:
            self._newest_ms = max(newest_ms, self._newest_ms or 0)

    def report(self, now: float) -> TopicReport:
        """Say how far it is."""
        partitions = self._partition_reports()
        running = sorted(self._tally.running.values(), key=lambda event: (event.range.partition, event.range.start))
        lag = sum(item.lag for item in partitions)
        alerts_per_second, bytes_per_second, offsets_per_second = self._speed(now)
        seconds_left = (lag - sum(item.reading for item in partitions)) / (offsets_per_second or 1)
        return TopicReport(
            topic=self._topic[:_MAX_CHARACTERS],
            is_followed=self._is_followed,
            offsets=sum(item.offsets for item in partitions),
            committed=sum(item.committed for item in partitions),
            lag=lag,
            # A follower plans more while it runs, and says so in offsets.
            ranges=max(self._ranges, self._ranges_committed),
            ranges_committed=self._ranges_committed,
            ranges_run=self._ranges_run,
            alerts=self._alerts,
            raw_bytes=self._raw_bytes,
            alerts_read=self._alerts_read,
            bytes_read=self._bytes_read,
            filtered=self._filtered,
            quarantined=self._quarantined,
            lost=self._lost,
            retries=self._retries,
            newest_ms=self._newest_ms,
            alerts_per_second=round(alerts_per_second, 1),
            bytes_per_second=round(bytes_per_second),
            seconds_left=None if self._is_followed or not offsets_per_second else max(0, round(seconds_left)),
            stage_seconds={stage: round(seconds, 3) for stage, seconds in self._stage_seconds.items()},
            partitions=tuple(partitions[:MAX_PARTITIONS]),
            more_partitions=max(0, len(partitions) - MAX_PARTITIONS),
            running=tuple(self._running_report(event, now) for event in running[:MAX_RUNNING]),
            more_running=max(0, len(running) - MAX_RUNNING),
        )

    def _partition_reports(self) -> list[PartitionReport]:
        reading: dict[int, int] = {}
        for (_, range_), event in self._tally.running.items():
            reading[range_.partition] = reading.get(range_.partition, 0) + event.position - range_.start
        return [
            PartitionReport(partition, max(known.offsets, known.committed), known.committed, reading.get(partition, 0))
            for partition, known in sorted(self._partitions.items())
        ]

    def _running_report(self, event: RangeProgress, now: float) -> RunningReport:
        return RunningReport(
            *(event.range.partition, event.range.start, event.range.end, event.position, event.rows),
            worker=event.worker[:_MAX_CHARACTERS],
            seconds=round(now - self._since.get(event.range, now), 1),
        )

    def _speed(self, now: float) -> tuple[float, float, float]:
        """Return alerts, bytes and offsets a second."""
        point = (now, self._alerts_read, self._bytes_read, self._tally.offsets_of_this_run)
        self._speeds.append(point)
        while self._speeds[0][0] < now - _SPEED_S:
            self._speeds.popleft()
        first = self._speeds[0]
        seconds = now - first[0]
        if seconds <= 0:
            return 0.0, 0.0, 0.0
        alerts, raw_bytes, offsets = (
            max(0, new - old) / seconds for new, old in zip(point[1:], first[1:], strict=True)
        )
        return alerts, raw_bytes, offsets
