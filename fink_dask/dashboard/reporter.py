"""Tell the scheduler how far a transfer is, for its page and its metrics; a failure there never harms the transfer."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from distributed import Client

from fink_dask.dashboard.plugin import HANDLER, TransferBoardPlugin, words_of
from fink_dask.dashboard.reports import (
    MAX_PARTITIONS,
    MAX_RUNNING,
    MAX_TOPICS,
    REPORT_S,
    SAME_REPORT_S,
    PartitionReport,
    RunningReport,
    TopicReport,
    TransferReport,
)
from fink_dask.kafka.offsets import Range
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
from fink_dask.progress.profile import STAGES
from fink_dask.progress.tally import Running, Tally

#: The most characters of an address, or of the reason why a transfer failed.
_MAX_CHARACTERS = 300

#: Seconds that an answer of the scheduler may take, and by which reports may delay the end of a transfer.
_ANSWER_S = 30.0
_END_S = 2.0


class TransferProgress:
    """The sums of one run."""

    def __init__(self, client: str) -> None:
        self._transfer = uuid.uuid4().hex
        # Dask's id of its client.
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
        self._looked_at: float | None = None
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
        self._is_followed, self._looked_at = True, time.monotonic()
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
            looked_s=None if self._looked_at is None else round(now - self._looked_at, 1),
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


class Reporter:
    """An observer that passes every event on, and a context manager that reports from a thread of its own."""

    def __init__(
        self,
        client: Client,
        observe: Observer,
        outlived: bool = True,
        failure: Callable[[], Exception | None] = lambda: None,
    ) -> None:
        # A client of the scheduler.
        self._client = client
        # Takes the events, and one warning if there is no page or there are no metrics.
        self._observe = observe
        # Whether the scheduler outlives the transfer, so that its page must be told how the transfer ended.
        self._outlived = outlived
        # Returns what has failed although the transfer went on, or None.
        self._failure = failure
        self._progress = TransferProgress(client.id)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._trouble: str | None = None
        self._is_broken = self._is_registered = False
        self._sent: TransferReport | None = None
        self._sent_at = 0.0
        self._thread = threading.Thread(target=self._run, name="fink-dask-reporter", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(_END_S)
        self._tell()
        if self._thread.is_alive() or self._is_broken or not self._outlived or self._client.status != "running":
            return
        ended = error or self._failure()
        state = "done" if ended is None else "failed" if isinstance(ended, Exception) else "stopped"
        words = " ".join(str(ended).split()) if state == "failed" else ""
        with suppress(Exception):
            self._send(self._report(state, words), _END_S)

    def __call__(self, event: Event) -> None:
        """Take an event."""
        try:
            with self._lock:
                self._progress.take(event)
        except Exception as error:  # the transfer is worth more than its page
            self._fail(error)
        self._tell()
        self._observe(event)

    def _run(self) -> None:
        while not self._is_broken and self._client.status == "running":
            try:
                self._send_news()
            except OSError:  # the scheduler is slow, which passes, or gone, which the job reports
                pass
            except Exception as error:  # whatever it is, the transfer goes on
                self._fail(error)
            if self._over.wait(REPORT_S):
                return

    def _send_news(self) -> None:
        """Send a report, unless the last one said the same; the first time, register the plugin that takes them."""
        if not self._is_registered:
            self._client.register_plugin(TransferBoardPlugin(), name=TransferBoardPlugin.name)
            self._is_registered = True
        report = self._report()
        says, now = _what_it_says(report), time.monotonic()
        if says == self._sent and now - self._sent_at < SAME_REPORT_S:
            return
        lack = self._send(report, _ANSWER_S)
        if lack and self._sent is None:
            self._trouble = lack
        self._sent, self._sent_at = says, now

    def _report(self, state: str = "running", words: str = "") -> TransferReport:
        with self._lock:
            return self._progress.report(state, words)

    def _send(self, report: TransferReport, timeout_s: float) -> str | None:
        """Send a report; return what is missing on the scheduler."""
        handler = getattr(self._client.scheduler, HANDLER)
        answer: Any = self._client.sync(handler, message=report.to_message(), callback_timeout=timeout_s)
        return str(answer) if answer else None

    def _fail(self, error: Exception) -> None:
        if not self._is_broken:
            self._is_broken = True
            self._trouble = f"the page /fink and the metrics no longer show this transfer ({words_of(error)})"

    def _tell(self) -> None:
        """Say what went wrong, once; not in the reporting thread, which a slow terminal would hold up."""
        trouble, self._trouble = self._trouble, None
        if trouble is not None:
            self._observe(Note(f"{trouble}; the transfer itself continues", warning=True))


def _what_it_says(report: TransferReport) -> TransferReport:
    """Return a report without what changes on its own."""
    topics = tuple(
        replace(
            topic,
            alerts_per_second=0.0,
            bytes_per_second=0.0,
            seconds_left=None,
            # When the last response came, not how long ago.
            quiet_s=None if topic.quiet_s is None else round(report.seconds - topic.quiet_s),
            looked_s=None if topic.looked_s is None else round(report.seconds - topic.looked_s),
            running=tuple(replace(item, seconds=0.0, quiet_s=None) for item in topic.running),
        )
        for topic in report.topics
    )
    return replace(report, seconds=0.0, topics=topics)
