"""Dask's dashboard, loaded when somebody first looks at it: its import takes longer than many a transfer."""

from __future__ import annotations

import asyncio
import importlib

from distributed import Scheduler
from tornado.web import Application, RequestHandler


def offer_dashboard(scheduler: Scheduler) -> None:
    """Serve the dashboard from its first visit on.

    Parameters
    ----------
    scheduler : distributed.Scheduler
        A scheduler in this process that was started with an address for its dashboard, but without it.
    """
    lock = asyncio.Lock()
    scheduler.http_application.add_application(
        Application([(r".*", _FirstVisit, {"scheduler": scheduler, "lock": lock})])
    )


class _FirstVisit(RequestHandler):
    """Loads the dashboard, takes itself out of the way, and sends the visitor to the page that he wanted."""

    def initialize(self, scheduler: Scheduler, lock: asyncio.Lock) -> None:
        self._scheduler = scheduler
        self._lock = lock

    async def get(self, *_: str) -> None:
        applications = self._scheduler.http_application.applications
        async with self._lock:
            if self.application in applications:
                # In a thread, as the scheduler has workers to answer.
                pages = await asyncio.to_thread(importlib.import_module, "distributed.dashboard.scheduler")
                applications.remove(self.application)
                pages.connect(self._scheduler.http_application, self._scheduler.http_server, self._scheduler)
        self.redirect("/" + (self.request.uri or "").lstrip("/"))  # two slashes would lead to another host
