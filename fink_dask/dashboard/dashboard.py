"""Dask's dashboard, loaded on its first visit: its import takes longer than many a transfer."""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys

from distributed import Client, Scheduler
from tornado.web import Application, RequestHandler

log = logging.getLogger(__name__)

#: The module that has Dask's own pages.
_PAGES = "distributed.dashboard.scheduler"
#: The module that has ours; bokeh is loaded with it.
_PAGE = "fink_dask.dashboard.page"


def offer_dashboard(scheduler: Scheduler) -> None:
    """Serve the dashboard from its first visit on.

    Parameters
    ----------
    scheduler : distributed.Scheduler
        A scheduler in this process that was started with an address for its dashboard, but without it.
    """
    lock = asyncio.Lock()
    scheduler.http_application.add_application(_Offer([(r".*", _FirstVisit, {"scheduler": scheduler, "lock": lock})]))


def add_page(scheduler: Scheduler) -> str | None:
    """Add the page of transfers to a dashboard, or leave it to the first visit if that is still to come.

    Parameters
    ----------
    scheduler : distributed.Scheduler
        The scheduler of this process.

    Returns
    -------
    str or None
        What prevents it.
    """
    if any(isinstance(application, _Offer) for application in scheduler.http_application.applications):
        return None
    if _PAGES not in sys.modules:  # bokeh is missing, or nobody wants a dashboard
        return "it serves no dashboard"
    importlib.import_module(_PAGE).serve_page(scheduler)
    return None


def page_link(client: Client) -> str | None:
    """Return the address of the page of transfers, or None if the scheduler serves no dashboard."""
    # Dask gives an address even if no dashboard is served.
    if "dashboard" not in client.scheduler_info().get("services", ()):
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
