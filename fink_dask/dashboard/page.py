"""The page `/fink` of the Dask dashboard; imported only where there is a dashboard, as it loads bokeh."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from bokeh.layouts import column, row
from bokeh.models import (
    AdaptiveTicker,
    BasicTicker,
    ColumnDataSource,
    CustomJSTickFormatter,
    Div,
    HoverTool,
    InlineStyleSheet,
    NumeralTickFormatter,
    Range1d,
    Select,
)
from bokeh.plotting import figure
from bokeh.server.server import BokehTornado
from distributed import Scheduler
from distributed.dashboard.components import DashboardComponent, add_periodic_callback
from distributed.dashboard.components.scheduler import BOKEH_THEME, env
from distributed.dashboard.core import BokehApplication
from distributed.dashboard.scheduler import template_variables
from distributed.utils import log_errors
from jinja2 import Environment, StrictUndefined
from tornado.ioloop import IOLoop

from fink_dask.dashboard.board import Board, Point, Reported, board_of
from fink_dask.dashboard.reports import RunningReport, TopicReport
from fink_dask.ledger.summary import Phase, freshness_s
from fink_dask.progress.events import seen_words
from fink_dask.progress.profile import STAGE_COLOURS
from fink_dask.units import format_bytes, lasting, pluralize, printable

#: What is said instead of numbers.
_NO_NUMBERS = {Phase.CONNECTING, Phase.WAITING, Phase.WRITING}
#: Of a topic's name, or of why a transfer failed.
_MAX_CHARACTERS = 250
#: Of the parts of a bar.
COMMITTED, RECEIVED, NOT_RECEIVED = "#2b8a3e", "#74c0fc", "#e9ecef"

_LAG, _SPEED, _GREY = "#e8590c", "#1864ab", "#868e96"
#: Up to this many partitions, each has its number below its bar.
_LABELLED = 24
#: Labels of an axis in thousands, millions and so on, and of one in minutes or hours.
_SHORT = """
    const big = [[1e9, "G"], [1e6, "M"], [1e3, "k"]].find(([size]) => Math.abs(tick) >= size)
    return big ? `${+(tick / big[0]).toFixed(2)}${big[1]}` : `${+tick.toFixed(2)}`
"""
_CLOCK = """
    const s = Math.round(tick), h = Math.floor(s / 3600), m = Math.floor(s / 60) % 60
    return h ? `${h}h${String(m).padStart(2, "0")}` : `${m}:${String(s % 60).padStart(2, "0")}`
"""

#: Milliseconds between two updates from the board.
_REDRAW_MS = 1000
_ROUTE = "/fink"


_environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
_environment.filters |= {"outside": lambda text: printable(text, _MAX_CHARACTERS), "counted": pluralize}
#: The parts of the page in HTML.
_PARTS: Any = _environment.from_string(
    files("fink_dask.dashboard").joinpath("page.html").read_text(encoding="utf-8")
).module


def choice_label(known: Reported, topic: TopicReport) -> str:
    """Name a topic of a transfer, as plain text."""
    began = datetime.fromtimestamp(known.report.began_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    # Nothing that changes every second, as a visitor may be about to choose.
    return f"{topic.topic[:_MAX_CHARACTERS]}, begun {began} ({_state(known)[0]})"


def headline(known: Reported, topic: TopicReport) -> str:
    """Say how far a topic is, in numbers."""
    said = known.report.words or _line_words(known, topic)
    return str(_PARTS.headline(topic.topic, *_state(known), said, _tiles(known, topic)))


def _line_words(known: Reported, topic: TopicReport) -> str:
    """Say what is the matter with the line, if anything is."""
    quiet_s = known.since(topic.quiet_s)
    if not (known.is_running and topic.is_cut and quiet_s is not None):
        return ""
    words = f"nothing from Kafka for {lasting(quiet_s)}"
    if topic.reconnect_timeout_s is not None and topic.reconnect_timeout_s > quiet_s:
        words += f"; waits for {lasting(topic.reconnect_timeout_s - quiet_s)} more at most"
    return f"{words}; what came is kept meanwhile" if topic.received_bytes else words


def _tiles(known: Reported, topic: TopicReport) -> list[tuple[str, str, str, bool]]:
    """List id, value, label, and whether it is bad news."""
    running, now = len(topic.running) + topic.more_running, known.is_running
    worst = max(topic.partitions, key=lambda item: item.lag, default=None)
    where = f"lag, most in partition {worst.partition}" if worst is not None and worst.lag else "lag"
    if now and (seen := seen_words(known.since(topic.looked_s) or 0.0)):
        where = f"lag{seen}"
    share = 100 * topic.committed / topic.offsets if topic.offsets else 100.0
    age_s = freshness_s(topic.newest_ms, time.time())
    received_share = min(100.0, 100 * (topic.committed + topic.received) / topic.offsets) if topic.offsets else 100.0
    quiet_s = known.since(topic.quiet_s) if now else None
    planned = f"ranges committed of {topic.ranges:,}" if not topic.is_followed else "ranges committed"
    return [
        # Rounded down: 100 % means all.
        ("share", f"{int(share * 10) / 10:g} %", f"committed of {pluralize(topic.offsets, 'offset')}", False),
        ("received", f"{int(received_share * 10) / 10:g} %", f"received, {format_bytes(topic.received_bytes)}", False),
        ("alerts", f"{topic.alerts:,}", "alerts in this run", False),
        *([("filtered", f"{topic.filtered:,}", "filtered", False)] if topic.filtered else []),
        ("alerts_per_second", f"{topic.alerts_per_second:,.0f}" if now else "\N{EN DASH}", "alerts/s", False),
        (
            "bytes_per_second",
            f"{format_bytes(round(topic.bytes_per_second))}/s" if now else "\N{EN DASH}",
            "received lately",
            False,
        ),
        (
            "response",
            "\N{EN DASH}" if quiet_s is None else f"{lasting(quiet_s)} ago",
            topic.phase if now and topic.phase in _NO_NUMBERS else "last response",
            now and topic.is_cut,
        ),
        ("lag", f"{topic.lag:,}", where, False),
        ("age", "\N{EN DASH}" if age_s is None else lasting(age_s), "age of newest alert", False),
        (
            "left",
            lasting(topic.seconds_left) if now and topic.seconds_left is not None else "\N{EN DASH}",
            "time left",
            False,
        ),
        ("ranges", f"{topic.ranges_committed:,}", planned, False),
        ("ranges_running", f"{running if now else 0:,}", "ranges running", False),
        ("retries", f"{topic.retries:,}", "retries", topic.retries > 0),
        ("quarantined", f"{topic.quarantined:,}", "quarantined", topic.quarantined > 0),
        ("lost", f"{topic.lost:,}", "lost", topic.lost > 0),
    ]


def partitions_title(topic: TopicReport) -> str:
    """Explain the bars."""
    parts = ((COMMITTED, "committed"), (RECEIVED, "received"), (NOT_RECEIVED, "not received"))
    return str(_PARTS.partitions_title(parts, topic.more_partitions))


def stage_shares(topic: TopicReport) -> str:
    """Show the share of each stage in the time of the committed ranges."""
    seconds = {stage: topic.stage_seconds.get(stage, 0.0) for stage in STAGE_COLOURS}
    whole = sum(seconds.values()) or 1.0
    shares = [(stage, 100 * seconds[stage] / whole, colour) for stage, colour in STAGE_COLOURS.items()]
    return str(_PARTS.stage_shares(shares))


def running_ranges(known: Reported, topic: TopicReport) -> str:
    """List the running ranges, and which worker has each."""
    if not known.is_running:
        return ""
    more = f"{topic.more_running:,}" if topic.more_running else ""
    return str(_PARTS.running_ranges([_range_row(known, item) for item in topic.running], more))


def _last_response(known: Reported, item: RunningReport) -> str:
    """Say how long ago something came for a range, where something is expected."""
    if item.waits:
        return "waits"
    quiet_s = known.since(item.quiet_s)
    return "" if quiet_s is None else f"{lasting(quiet_s)} ago"


def _range_row(known: Reported, item: RunningReport) -> dict[str, Any]:
    worker = item.worker.split("://")[-1] or "\N{EN DASH}"
    return {
        "partition": item.partition,
        "where": f"partition {item.partition}, offsets {item.start:,} to {item.end - 1:,}, next {item.position:,}, "
        f"{worker}",
        "share": min(100.0, 100 * item.received / max(item.end - item.start, 1)),
        "rows": f"{item.rows:,}",
        "worker": worker,
        "response": _last_response(known, item),
        "lasts": lasting(item.seconds),
    }


def _state(known: Reported) -> tuple[str, str]:
    """Return the kind of a transfer's state, and how to say it."""
    if known.is_lost:
        return "lost", "its process disappeared"
    if known.silent_s is not None:
        return "silent", f"no report for {lasting(known.silent_s)}"
    state = known.report.state
    if state == "running":
        return state, f"running for {lasting(known.report.seconds)}"
    words = {"done": "everything is committed", "failed": "failed", "stopped": "stopped"}
    return (state, f"{words[state]}, after {lasting(known.report.seconds)}") if state in words else ("lost", "unknown")


def _figure(title: str, height: int, **options: Any) -> Any:
    made = figure(
        title=title,
        height=height,
        sizing_mode="stretch_width",
        tools="",
        toolbar_location=None,
        min_width=250,
        **options,
    )
    made.xgrid.visible = False
    made.title.text_font_size = "13px"
    made.outline_line_color = None
    made.ygrid.grid_line_color = "#dee2e6"
    for axis in (made.xaxis, made.yaxis):
        axis.axis_line_color = axis.major_tick_line_color = "#adb5bd"
        axis.minor_tick_line_color = None
        axis.major_label_text_color = _GREY
    return made


class _Bars:
    """A bar per partition; if there are many, bars are thin and only some have their number below."""

    columns: tuple[str, ...] = ()

    def __init__(self, title: str, height: int, name: str) -> None:
        self.source = ColumnDataSource({column: [] for column in ("partition", *self.columns)}, name=name)
        self._range = Range1d(-0.5, 0.5)
        self.figure = _figure(title, height, x_range=self._range, name=f"{name}-figure")
        self.figure.xaxis.ticker = self._ticker = BasicTicker(min_interval=1, desired_num_ticks=10, num_minor_ticks=0)
        self.figure.xaxis.formatter = NumeralTickFormatter(format="0")
        self.figure.y_range.start = 0

    def _fill(self, topic: TopicReport, data: dict[str, list[float]]) -> None:
        partitions = [item.partition for item in topic.partitions]
        self.source.data = {"partition": partitions, **data}
        if partitions:
            self._range.update(start=partitions[0] - 0.6, end=partitions[-1] + 0.6)
        ticks = len(partitions) if len(partitions) <= _LABELLED else _LABELLED
        if self._ticker.desired_num_ticks != ticks:
            self._ticker.desired_num_ticks = max(1, ticks)


class PartitionBars(_Bars):
    """How much of each partition is committed, and has arrived besides."""

    columns = ("offsets", "committed", "received", "committed_share", "received_share")

    def __init__(self) -> None:
        super().__init__("", 190, "partitions")
        self.figure.y_range.end = 100
        place = {"x": "partition", "width": 0.85, "source": self.source, "line_color": None}
        parts = (
            (0, "committed_share", COMMITTED),
            ("committed_share", "received_share", RECEIVED),
            ("received_share", 100, NOT_RECEIVED),
        )
        bars = [self.figure.vbar(bottom=bottom, top=top, color=colour, **place) for bottom, top, colour in parts]
        tips = [("partition", "@partition"), ("offsets", "@offsets{0,0}"), ("committed", "@committed{0,0}")]
        self.figure.add_tools(HoverTool(renderers=bars, tooltips=[*tips, ("received besides", "@received{0,0}")]))

    def show(self, topic: TopicReport) -> None:
        """Show a report."""
        data: dict[str, list[float]] = {column: [] for column in self.columns}
        for item in topic.partitions:
            of = max(item.offsets, 1)
            data["offsets"].append(item.offsets)
            data["committed"].append(item.committed)
            data["received"].append(item.received)
            # An empty partition is complete.
            data["committed_share"].append(100 * item.committed / of if item.offsets else 100.0)
            data["received_share"].append(
                min(100 * (item.committed + item.received) / of, 100) if item.offsets else 100.0
            )
        self._fill(topic, data)


class PartitionLags(_Bars):
    """The lag of each partition."""

    columns = ("lag",)

    def __init__(self) -> None:
        super().__init__("lag of each partition, in offsets", 140, "lags")
        self.figure.yaxis.formatter = CustomJSTickFormatter(code=_SHORT)
        self.figure.yaxis.ticker = BasicTicker(min_interval=1, desired_num_ticks=4)
        bars = self.figure.vbar(x="partition", top="lag", width=0.85, color=_LAG, line_color=None, source=self.source)
        self.figure.add_tools(HoverTool(renderers=[bars], tooltips=[("partition", "@partition"), ("lag", "@lag{0,0}")]))

    def show(self, topic: TopicReport) -> None:
        """Show a report."""
        self._fill(topic, {"lag": [item.lag for item in topic.partitions]})


class _OverTime:
    """A line over the time of a transfer."""

    def __init__(self, title: str, name: str, colour: str) -> None:
        self.source = ColumnDataSource({"seconds": [], "value": []}, name=name)
        self.figure = _figure(title, 180, name=f"{name}-figure")
        self.figure.y_range.start = 0
        self.figure.x_range.range_padding = 0
        self.figure.xaxis.ticker = AdaptiveTicker(base=60, mantissas=[1, 2, 5, 10, 15, 20, 30], min_interval=1)
        self.figure.xaxis.formatter = CustomJSTickFormatter(code=_CLOCK)
        self.figure.yaxis.formatter = CustomJSTickFormatter(code=_SHORT)
        self.figure.varea(x="seconds", y1=0, y2="value", source=self.source, color=colour, alpha=0.15)
        self.figure.line(x="seconds", y="value", source=self.source, color=colour, width=2)

    def _fill(self, seconds: list[float], values: Sequence[float]) -> None:
        self.source.data = {"seconds": seconds, "value": list(values)}


class SpeedOverTime(_OverTime):
    """What was read per second."""

    def __init__(self, title: str, name: str) -> None:
        super().__init__(title, name, _SPEED)

    def show(self, seconds: list[float], values: Sequence[float]) -> None:
        """Show a history."""
        self._fill(seconds, values)


class LagOverTime(_OverTime):
    """Offsets that are not committed."""

    def __init__(self) -> None:
        super().__init__("lag, in offsets", "lag", _LAG)

    def show(self, points: Sequence[Point]) -> None:
        """Show a history."""
        self._fill([point.seconds for point in points], [point.lag for point in points])


def serve_page(scheduler: Scheduler) -> None:
    """Add the page to the scheduler's dashboard, and its link to the navigation of all pages; safe to repeat.

    `scheduler`: the scheduler of this process, which has a dashboard.
    Raises RuntimeError if it has no dashboard.
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
    """Shows one topic of one transfer: the latest one, or the one that was chosen."""

    def __init__(self, board: Board) -> None:
        # The transfers that have reported.
        self._board = board
        style = InlineStyleSheet(css=_PARTS.style())
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
            _set_text(self._headline, str(_PARTS.nothing_yet()))
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
