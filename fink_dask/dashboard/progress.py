"""Add up the events of a transfer, topic by topic, into its reports to the scheduler."""

from __future__ import annotations

import time
import uuid
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
    Doing,
    Event,
    Note,
    RangeCommitted,
    RangeFailed,
    RangeProgress,
    TopicLooked,
    TransferStarted,
)
from fink_dask.transfers.profile import STAGES
from fink_dask.transfers.tally import Running, Tally

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
        if not isinstance(event, Note | Doing) and event.topic in self._topics:
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
        self._filtered = self._quarantined = self._lost = self._retries = 0
        self._newest_ms: int | None = None
        self._stage_seconds = dict.fromkeys(STAGES, 0.0)
        self._failed: set[Range] = set()

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
        if not self._tally.is_committed(event):
            # The attempt before failed, or lost its worker, so that Dask gave the range to another.
            self._retry(event.range, self._tally.progress(event))

    def _commit(self, event: RangeCommitted) -> None:
        self._retry(event.range, False)
        self._tally.commit(event)
        self._partitions.setdefault(event.range.partition, _Partition()).committed += len(event.range)
        self._ranges_committed += 1
        self._ranges_run += 1
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
        tally, partitions = self._tally, self._partition_reports()
        running = sorted(tally.running, key=lambda each: (each.said.range.partition, each.said.range.start))
        left_s, quiet_s = tally.seconds_left, tally.quiet_s
        return TopicReport(
            topic=self._topic[:_MAX_CHARACTERS],
            is_followed=self._is_followed,
            phase=tally.phase.value,
            offsets=sum(item.offsets for item in partitions),
            committed=sum(item.committed for item in partitions),
            lag=sum(item.lag for item in partitions),
            received=sum(item.received for item in partitions),
            # A follower plans more while it runs, and says so in offsets.
            ranges=max(self._ranges, self._ranges_committed),
            ranges_committed=self._ranges_committed,
            ranges_run=self._ranges_run,
            alerts=tally.committed_rows,
            raw_bytes=tally.committed_bytes,
            alerts_read=tally.alerts_read,
            bytes_read=tally.bytes_read,
            received_bytes=tally.received_bytes,
            bytes_received=tally.bytes_received,
            bytes_wasted=tally.bytes_wasted,
            filtered=self._filtered,
            quarantined=self._quarantined,
            lost=self._lost,
            retries=self._retries,
            newest_ms=self._newest_ms,
            alerts_per_second=round(tally.alerts_per_second, 1),
            bytes_per_second=round(tally.bytes_per_second),
            seconds_left=None if left_s is None else round(left_s),
            quiet_s=None if quiet_s is None else round(quiet_s, 1),
            is_cut=tally.is_cut,
            reconnect_timeout_s=tally.reconnect_timeout_s,
            stage_seconds={stage: round(seconds, 3) for stage, seconds in self._stage_seconds.items()},
            partitions=tuple(partitions[:MAX_PARTITIONS]),
            more_partitions=max(0, len(partitions) - MAX_PARTITIONS),
            running=tuple(_running_report(each, now) for each in running[:MAX_RUNNING]),
            more_running=max(0, len(running) - MAX_RUNNING),
        )

    def _partition_reports(self) -> list[PartitionReport]:
        arrived: dict[int, int] = {}
        for each in self._tally.running:
            partition = each.said.range.partition
            arrived[partition] = arrived.get(partition, 0) + each.said.arrived
        return [
            PartitionReport(partition, max(known.offsets, known.committed), known.committed, arrived.get(partition, 0))
            for partition, known in sorted(self._partitions.items())
        ]


def _running_report(each: Running, now: float) -> RunningReport:
    said = each.said
    return RunningReport(
        *(said.range.partition, said.range.start, said.range.end, said.position, said.arrived, said.rows),
        worker=said.worker[:_MAX_CHARACTERS],
        seconds=round(now - each.since, 1),
        quiet_s=round(each.quiet_s(now), 1) if each.is_asking else None,
        waits=said.waits,
    )
