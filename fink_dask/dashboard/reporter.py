"""Tell the scheduler how far a transfer is, for its page and its metrics; a failure there never harms the transfer."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from distributed import Client

from fink_dask.dashboard.plugin import HANDLER, TransferBoardPlugin
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
from fink_dask.errors import words_of
from fink_dask.progress.events import Note
from fink_dask.progress.profile import STAGES
from fink_dask.progress.tally import Progress, Running, Tally

#: The most characters of an address, or of the reason why a transfer failed.
_MAX_CHARACTERS = 300

#: Seconds that an answer of the scheduler may take, and by which reports may delay the end of a transfer.
_ANSWER_S = 30.0
_END_S = 2.0


class Reports:
    """Makes the reports of one transfer."""

    def __init__(self, progress: Progress, client: str) -> None:
        self._progress = progress
        # Dask's id of its client.
        self._client = client
        self._transfer = uuid.uuid4().hex
        self._began_at = time.time()
        self._began = time.monotonic()

    def make(self, state: str = "running", words: str = "") -> TransferReport:
        """Say how far it is."""
        now = time.monotonic()
        with self._progress.lock:
            known = [(topic, tally) for topic, tally in self._progress.topics.items() if tally.topics]
            topics = tuple(_topic_report(topic, tally, now) for topic, tally in known[:MAX_TOPICS])
        return TransferReport(
            self._transfer,
            self._client,
            round(self._began_at, 3),
            round(now - self._began, 3),
            state,
            words.replace("\0", "")[:_MAX_CHARACTERS],  # it stands around the names of options
            topics,
        )


def _topic_report(topic: str, tally: Tally, now: float) -> TopicReport:
    partitions = _partition_reports(tally)
    running = sorted(tally.running, key=lambda each: (each.said.range.partition, each.said.range.start))
    left_s, quiet_s = tally.seconds_left, tally.quiet_s
    return TopicReport(
        topic=topic[:_MAX_CHARACTERS],
        is_followed=bool(tally.looks),
        phase=tally.phase.value,
        offsets=sum(item.offsets for item in partitions),
        committed=sum(item.committed for item in partitions),
        lag=sum(item.lag for item in partitions),
        received=sum(item.received for item in partitions),
        # A follower plans more while it runs, and says so in offsets.
        ranges=max(tally.ranges, tally.ranges_committed),
        ranges_committed=tally.ranges_committed,
        ranges_run=tally.ranges_run,
        alerts=tally.committed_rows,
        raw_bytes=tally.committed_bytes,
        alerts_read=tally.alerts_read,
        bytes_read=tally.bytes_read,
        received_bytes=tally.received_bytes,
        bytes_received=tally.bytes_received,
        bytes_wasted=tally.bytes_wasted,
        filtered=tally.committed_read - tally.committed_rows,
        quarantined=tally.quarantined,
        lost=tally.lost,
        retries=tally.retries,
        newest_ms=tally.newest_ms,
        alerts_per_second=round(tally.alerts_per_second, 1),
        bytes_per_second=round(tally.bytes_per_second),
        seconds_left=None if left_s is None else round(left_s),
        quiet_s=None if quiet_s is None else round(quiet_s, 1),
        looked_s=round(now - tally.looked_at, 1) if tally.looks else None,
        is_cut=tally.is_cut,
        reconnect_timeout_s=tally.reconnect_timeout_s,
        stage_seconds={stage: round(tally.stage_seconds.get(stage, 0.0), 3) for stage in STAGES},
        partitions=tuple(partitions[:MAX_PARTITIONS]),
        more_partitions=max(0, len(partitions) - MAX_PARTITIONS),
        running=tuple(_running_report(each, now) for each in running[:MAX_RUNNING]),
        more_running=max(0, len(running) - MAX_RUNNING),
    )


def _partition_reports(tally: Tally) -> list[PartitionReport]:
    arrived: dict[int, int] = {}
    for each in tally.running:
        partition = each.said.range.partition
        arrived[partition] = arrived.get(partition, 0) + each.said.arrived
    return [
        PartitionReport(partition, max(known.offsets, known.committed), known.committed, arrived.get(partition, 0))
        for (_, partition), known in sorted(tally.partitions.items())
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
    """A context manager that reports how far a run is, from a thread of its own."""

    def __init__(
        self,
        client: Client,
        progress: Progress,
        outlived: bool = True,
        failure: Callable[[], Exception | None] = lambda: None,
    ) -> None:
        # A client of the scheduler.
        self._client = client
        # What the run has done; takes one warning if there is no page or there are no metrics.
        self._progress = progress
        # Whether the scheduler outlives the transfer, so that its page must be told how the transfer ended.
        self._outlived = outlived
        # Returns what has failed although the transfer went on, or None.
        self._failure = failure
        self._reports = Reports(progress, client.id)
        self._over = threading.Event()
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
        self._progress.pass_on()
        if self._thread.is_alive() or self._is_broken or not self._outlived or self._client.status != "running":
            return
        ended = error or self._failure()
        state = "done" if ended is None else "failed" if isinstance(ended, Exception) else "stopped"
        words = " ".join(str(ended).split()) if state == "failed" else ""
        with suppress(Exception):
            self._send(self._reports.make(state, words), _END_S)

    def _run(self) -> None:
        while self._client.status == "running":
            try:
                self._send_news()
            except OSError:  # the scheduler is slow, which passes, or gone, which the job reports
                pass
            except Exception as error:  # whatever it is, the transfer goes on, as it is worth more than its page
                self._is_broken = True
                self._warn(f"the page /fink and the metrics no longer show this transfer ({words_of(error)})")
                return
            if self._over.wait(REPORT_S):
                return

    def _send_news(self) -> None:
        """Send a report, unless the last one said the same; the first time, register the plugin that takes them."""
        if not self._is_registered:
            self._client.register_plugin(TransferBoardPlugin(), name=TransferBoardPlugin.name)
            self._is_registered = True
        report = self._reports.make()
        says, now = _what_it_says(report), time.monotonic()
        if says == self._sent and now - self._sent_at < SAME_REPORT_S:
            return
        lack = self._send(report, _ANSWER_S)
        if lack and self._sent is None:
            self._warn(lack)
        self._sent, self._sent_at = says, now

    def _send(self, report: TransferReport, timeout_s: float) -> str | None:
        """Send a report; return what is missing on the scheduler."""
        handler = getattr(self._client.scheduler, HANDLER)
        answer: Any = self._client.sync(handler, message=report.to_message(), callback_timeout=timeout_s)
        return str(answer) if answer else None

    def _warn(self, trouble: str) -> None:
        self._progress(Note(f"{trouble}; the transfer itself continues", warning=True))


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
