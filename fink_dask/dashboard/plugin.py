"""The plugin by which a scheduler takes reports of transfers, and shows them on its page and in its metrics.

Dask's dashboard is loaded on its first visit: its import takes longer than many a transfer.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import logging
import sys
from typing import Any

from distributed import Client, Scheduler
from distributed.diagnostics.plugin import SchedulerPlugin
from tornado.web import Application, RequestHandler

from fink_dask.dashboard.board import Board, board_of
from fink_dask.dashboard.reports import TransferReport, progress_prefix
from fink_dask.errors import words_of

log = logging.getLogger(__name__)

#: The module that has Dask's own pages.
_PAGES = "distributed.dashboard.scheduler"
#: The module that has ours; bokeh is loaded with it.
_PAGE = "fink_dask.dashboard.page"

#: The scheduler's name for the handler of reports.
HANDLER = "fink_dask_report"
#: Seconds that the scheduler may take to say whether it serves a dashboard.
_ANSWER_S = 10.0


def offer_dashboard(scheduler: Scheduler) -> None:
    """Serve the dashboard from its first visit on.

    `scheduler`: A scheduler in this process that was started with an address for its dashboard, but without it.
    """
    lock = asyncio.Lock()
    scheduler.http_application.add_application(_Offer([(r".*", _FirstVisit, {"scheduler": scheduler, "lock": lock})]))


def add_page(scheduler: Scheduler) -> str | None:
    """Add the page of transfers to a dashboard, or leave it to the first visit if that is still to come."""
    if any(isinstance(application, _Offer) for application in scheduler.http_application.applications):
        return None
    if _PAGES not in sys.modules:  # bokeh is missing, or nobody wants a dashboard
        return "it serves no dashboard"
    importlib.import_module(_PAGE).serve_page(scheduler)
    return None


def page_link(client: Client) -> str | None:
    """Return the address of the page of transfers, or None if the scheduler serves no dashboard, or does not answer."""
    try:
        about = client.sync(client.scheduler.identity, n_workers=0, callback_timeout=_ANSWER_S)
    except TimeoutError:  # that it is halted is seen elsewhere
        return None
    # Dask gives an address even if no dashboard is served.
    if "dashboard" not in about.get("services", ()):
        return None
    link: str = client.dashboard_link
    return f"{link.removesuffix('/status')}/fink" if link.endswith("/status") else link


class _Offer(Application):
    """All that is served before the first visit."""


class _FirstVisit(RequestHandler):
    """Loads the dashboard, removes itself, and sends visitors to the page that they asked for."""

    def initialize(self, scheduler: Scheduler, lock: asyncio.Lock) -> None:
        self._scheduler = scheduler
        self._lock = lock

    async def get(self, *_: str) -> None:
        applications = self._scheduler.http_application.applications
        async with self._lock:
            if self.application in applications:
                # In a thread, as the scheduler has workers to answer.
                pages = await asyncio.to_thread(importlib.import_module, _PAGES)
                applications.remove(self.application)
                pages.connect(self._scheduler.http_application, self._scheduler.http_server, self._scheduler)
                try:
                    await asyncio.to_thread(importlib.import_module, _PAGE)
                    add_page(self._scheduler)
                except Exception:  # Dask's own pages do without it
                    log.warning("the page of transfers could not be added to the dashboard", exc_info=True)
        self.redirect("/" + (self.request.uri or "").lstrip("/"))  # two slashes would lead to another host


class TransferBoardPlugin(SchedulerPlugin):  # type: ignore[misc]  # Dask has no types
    """Lets a scheduler take reports, and show them on its dashboard and in its metrics."""

    name = "fink-dask"
    idempotent = True

    async def start(self, scheduler: Scheduler) -> None:
        """Begin to take reports."""
        self._scheduler = scheduler
        self._board = board_of(scheduler)
        self._lack = _show(scheduler, self._board)
        scheduler.handlers[HANDLER] = self.take

    async def take(self, message: dict[str, Any]) -> str | None:
        """Take a report; return what is missing here to show it."""
        report = TransferReport.from_message(message)
        self._board.take(report)
        if report.state != "running":
            _drop_progress(self._scheduler, report.client)
        return self._lack

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """Note that a client has gone, and drop the progress reports of its ranges."""
        self._board.lose(client)
        _drop_progress(scheduler, client)


def _drop_progress(scheduler: Scheduler, client: str) -> None:
    """Drop the progress reports of a client's ranges that nobody listens to any more, which Dask would keep."""
    topics = getattr(getattr(scheduler, "_broker", None), "_topics", {})  # no public way
    for name in [name for name in topics if name.startswith(progress_prefix(client)) and not topics[name].subscribers]:
        del topics[name]


def _show(scheduler: Scheduler, board: Board) -> str | None:
    """Add the page and the metrics; return what is missing for either."""
    lacks = []
    try:
        lack = add_page(scheduler)
    except Exception as error:  # another version of Dask, or of bokeh
        log.warning("the page of transfers could not be added to the dashboard", exc_info=True)
        lack = words_of(error)
    if lack:
        lacks.append(f"the scheduler's dashboard has no page /fink ({lack})")
    if importlib.util.find_spec("prometheus_client") is None:
        lacks.append("its /metrics shows nothing (prometheus_client is not installed there)")
    else:
        from fink_dask.dashboard.metrics import collect_metrics

        try:
            collect_metrics(board)
        except Exception as error:
            log.warning("the metrics of transfers could not be added", exc_info=True)
            lacks.append(f"its /metrics shows no transfers ({words_of(error)})")
    return " and ".join(lacks) or None
