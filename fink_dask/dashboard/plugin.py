"""The plugin by which a scheduler takes reports of transfers, and shows them on its page and in its metrics."""

from __future__ import annotations

import importlib.util
import logging
from typing import Any

from distributed import Scheduler
from distributed.diagnostics.plugin import SchedulerPlugin

from fink_dask.dashboard.board import Board, board_of
from fink_dask.dashboard.dashboard import add_page
from fink_dask.dashboard.reports import TransferReport
from fink_dask.transfers.job import progress_prefix

log = logging.getLogger(__name__)

#: The scheduler's name for the handler of reports.
HANDLER = "fink_dask_report"


class TransferBoardPlugin(SchedulerPlugin):  # type: ignore[misc]  # Dask has no types
    """Lets a scheduler take reports, and show them on its dashboard and in its metrics."""

    name = "fink-dask"
    idempotent = True

    async def start(self, scheduler: Scheduler) -> None:
        """Begin to take reports."""
        self._board = board_of(scheduler)
        self._lack = _show(scheduler, self._board)
        scheduler.handlers[HANDLER] = self.take

    async def take(self, message: dict[str, Any]) -> str | None:
        """Take a report; return what is missing here to show it."""
        self._board.take(TransferReport.from_message(message))
        return self._lack

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """Note that a client has gone, and drop the progress reports of its ranges, which Dask would keep."""
        self._board.lose(client)
        topics = getattr(getattr(scheduler, "_broker", None), "_topics", {})  # no public way
        for name in [name for name in topics if name.startswith(progress_prefix(client))]:
            del topics[name]


def words_of(error: Exception) -> str:
    """Say what went wrong, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


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
