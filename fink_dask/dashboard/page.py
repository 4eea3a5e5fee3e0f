"""The page `/fink` of the Dask dashboard; imported only where there is a dashboard, as it loads bokeh."""

from __future__ import annotations

from typing import Any

from bokeh.layouts import column, row
from bokeh.models import Div, InlineStyleSheet, Select
from bokeh.server.server import BokehTornado
from distributed import Scheduler
from distributed.dashboard.components import DashboardComponent, add_periodic_callback
from distributed.dashboard.components.scheduler import BOKEH_THEME, env
from distributed.dashboard.core import BokehApplication
from distributed.dashboard.scheduler import template_variables
from distributed.utils import log_errors
from tornado.ioloop import IOLoop

from fink_dask.dashboard.board import Board, Reported, board_of
from fink_dask.dashboard.charts import LagOverTime, PartitionBars, PartitionLags, SpeedOverTime
from fink_dask.dashboard.reports import TopicReport
from fink_dask.dashboard.tiles import (
    CSS,
    choice_label,
    headline,
    nothing_yet,
    partitions_title,
    running_ranges,
    stage_shares,
)

#: Milliseconds between two updates from the board.
_REDRAW_MS = 1000
_ROUTE = "/fink"


def serve_page(scheduler: Scheduler) -> None:
    """Add the page to the scheduler's dashboard, and its link to the navigation of all pages; safe to repeat.

    Parameters
    ----------
    scheduler : distributed.Scheduler
        The scheduler of this process, which has a dashboard.

    Raises
    ------
    RuntimeError
        If it has no dashboard.
    """
    applications = [app for app in scheduler.http_application.applications if isinstance(app, BokehTornado)]
    if not applications:
        raise RuntimeError("the scheduler serves no dashboard")
    prefix = applications[0].prefix
    if any(_ROUTE in app.app_paths for app in applications):
        return
    shared = template_variables(scheduler)  # Dask makes these once, for all pages
    application = BokehApplication({_ROUTE: _document}, scheduler, prefix=prefix, template_variables=shared)
    scheduler.http_application.add_application(application)
    application.initialize(IOLoop.current())
    application.start()
    name = _ROUTE.strip("/")
    if name not in shared["pages"]:
        shared["pages"].insert(1, name)


@log_errors  # type: ignore[untyped-decorator]
def _document(scheduler: Scheduler, extra: dict[str, Any], doc: Any) -> None:
    page = TransferPage(board_of(scheduler))
    page.update()
    add_periodic_callback(doc, page, _REDRAW_MS)
    doc.title = "Dask: Fink"
    doc.add_root(page.root)
    doc.template = env.get_template("simple.html")
    doc.template_variables.update(extra)
    doc.theme = BOKEH_THEME


class TransferPage(DashboardComponent):  # type: ignore[misc]  # Dask has no types
    """Shows one topic of one transfer: the latest one, or the one that was chosen.

    Parameters
    ----------
    board : Board
        The transfers that have reported.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        style = InlineStyleSheet(css=CSS)
        wide = {"sizing_mode": "stretch_width", "stylesheets": [style]}
        self._chosen: str | None = None
        self._choice = Select(title="transfer", options=[], name="choice", visible=False, width=700)
        self._choice.on_change("value", self._choose)
        self._headline = Div(name="headline", **wide)
        self._title = Div(name="title", **wide)
        self._running = Div(name="running", **wide)
        self._stages = Div(name="stages", **wide)
        self._bars, self._lags = PartitionBars(), PartitionLags()
        self._alerts = SpeedOverTime("alerts/s", "alerts_per_second")
        self._bytes = SpeedOverTime("MB/s received", "megabytes_per_second")
        self._lag = LagOverTime()
        self._details = column(
            self._title,
            self._bars.figure,
            self._lags.figure,
            row(
                *(self._alerts.figure, self._bytes.figure, self._lag.figure),
                sizing_mode="stretch_width",
                stylesheets=[InlineStyleSheet(css=":host { flex-wrap: wrap; }")],
            ),
            self._stages,
            self._running,
            sizing_mode="stretch_width",
        )
        self.root = column(
            self._choice, self._headline, self._details, sizing_mode="stretch_width", margin=(5, 15, 5, 15)
        )

    def update(self) -> None:
        """Show the board as it is now."""
        topics = {f"{known.report.transfer} {topic.topic}": (known, topic) for known, topic in self._board.topics()}
        options = [(key, choice_label(known, topic)) for key, (known, topic) in reversed(topics.items())]
        if self._choice.options != options:
            self._choice.options = options
        self._choice.visible = len(options) > 1
        self._details.visible = bool(topics)
        if not topics:
            _set_text(self._headline, nothing_yet())
            return
        shown = self._chosen if self._chosen in topics else _latest(topics)
        if self._choice.value != shown:
            self._choice.value = shown
        self._show(*topics[shown])

    def _show(self, known: Reported, topic: TopicReport) -> None:
        _set_text(self._headline, headline(known, topic))
        _set_text(self._title, partitions_title(topic))
        _set_text(self._stages, stage_shares(topic))
        _set_text(self._running, running_ranges(known, topic))
        self._bars.show(topic)
        self._lags.show(topic)
        history = known.histories[topic.topic]
        seconds, alerts, raw_bytes = history.speeds()
        self._alerts.show(seconds, alerts)
        self._bytes.show(seconds, [count / 1e6 for count in raw_bytes])
        self._lag.show(history.points)

    def _choose(self, attribute: str, old: str, new: str) -> None:
        """Keep showing what a visitor has chosen, while it exists; choosing the latest means whichever is latest."""
        topics = {f"{known.report.transfer} {topic.topic}": (known, topic) for known, topic in self._board.topics()}
        if new in topics:
            self._chosen = None if new == _latest(topics) else new
            self._show(*topics[new])


def _latest(topics: dict[str, tuple[Reported, TopicReport]]) -> str:
    """Return the transfer that began last; running ones come before ended ones."""
    return max(topics, key=lambda key: (topics[key][0].is_running, topics[key][0].report.began_at))


def _set_text(div: Div, text: str) -> None:
    if div.text != text:
        div.text = text
