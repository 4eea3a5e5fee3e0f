"""The charts of the page: bars by partition, and lines over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bokeh.models import (
    AdaptiveTicker,
    BasicTicker,
    ColumnDataSource,
    CustomJSTickFormatter,
    HoverTool,
    NumeralTickFormatter,
    Range1d,
)
from bokeh.plotting import figure

from fink_dask.dashboard.history import Point
from fink_dask.dashboard.reports import TopicReport
from fink_dask.dashboard.tiles import COMMITTED, NOT_RECEIVED, RECEIVED

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
