"""Tell the scheduler how far a transfer is, for its page and its metrics; a failure there never harms the transfer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from distributed import Client

from fink_dask.dashboard.plugin import HANDLER, TransferBoardPlugin, words_of
from fink_dask.dashboard.progress import TransferProgress
from fink_dask.dashboard.reports import REPORT_S, SAME_REPORT_S, TransferReport
from fink_dask.transfers.events import Event, Note, Observer

#: Seconds that an answer of the scheduler may take, and by which reports may delay the end of a transfer.
_ANSWER_S = 30.0
_END_S = 2.0


class Reporter:
    """An observer that passes every event on, and a context manager that reports from a thread of its own.

    Parameters
    ----------
    client : distributed.Client
        A client of the scheduler.
    observe : callable
        Takes the events, and one warning if there is no page or there are no metrics.
    outlived : bool
        Whether the scheduler outlives the transfer, so that its page must be told how the transfer ended.
    failure : callable
        Returns what has failed although the transfer went on, or None.
    """

    def __init__(
        self,
        client: Client,
        observe: Observer,
        outlived: bool = True,
        failure: Callable[[], Exception | None] = lambda: None,
    ) -> None:
        self._client = client
        self._observe = observe
        self._outlived = outlived
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
            running=tuple(replace(item, seconds=0.0, quiet_s=None) for item in topic.running),
        )
        for topic in report.topics
    )
    return replace(report, seconds=0.0, topics=topics)
