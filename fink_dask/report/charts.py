"""The charts of a report. No text from outside gets into them: they hold only our own words, and numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from bokeh.models import (
    BasicTicker,
    DatetimeTickFormatter,
    FixedTicker,
    HoverTool,
    LogColorMapper,
    NumeralTickFormatter,
    Range1d,
)
from bokeh.palettes import Inferno256
from bokeh.plotting import figure
from rich.filesize import decimal

from fink_dask.report import sky
from fink_dask.report.examples import OTHER_BAND, Example
from fink_dask.report.facts import Partition, Throughput

Floats = npt.NDArray[np.float64]

#: Colour, mark, and a character like the mark for each filter, as in Rubin's figures, https://rtn-045.lsst.io.
BANDS = {
    "u": ("#0c71ff", "circle", "●"),
    "g": ("#2f9e44", "triangle", "▲"),
    "r": ("#c61c00", "inverted_triangle", "▼"),
    "i": ("#d9a400", "square", "■"),
    "z": ("#c930a5", "star", "★"),
    "y": ("#5d0000", "hex", "⬢"),
    OTHER_BAND: ("#5c636a", "x", "✕"),
}
#: What became of offsets, and its colour.
PARTS = {
    "alerts": "#2b8a3e",
    "handed over": "#8ce99a",
    "filtered": "#74c0fc",
    "absent": "#ced4da",
    "quarantined": "#f08c00",
    "lost": "#c92a2a",
    "missing": "#f1f3f5",
}
#: How many partitions have a bar at most.
MAX_PARTITIONS = 1000
NIGHT_BLUE = "#0b1733"
#: Without the palette's dark end, which can't be told from the night.
_PALETTE = Inferno256[70:]
_BLUE, _TEXT, _LINES = "#1864ab", "#495057", "#dee2e6"
_DAY_MS = 86_400_000
_LABELLED_DAYS = 8
#: Pixels left of charts one above the other, so that the same times line up.
_LEFT = 75
_COUNTS = "0,0.[0]"
#: What there is no half of, so that no axis says it.
_COUNTED = ("alerts", "offsets", "files")


def sky_map(x: Floats, y: Floats, weights: Floats, as_points: bool) -> tuple[Any, tuple[float, float] | None]:
    """Draw the map; also return the least and the greatest number of alerts in a cell."""
    edge = 1.02
    made = figure(
        x_range=Range1d(-edge * sky.WIDTH, edge * sky.WIDTH),
        y_range=Range1d(-edge * sky.HEIGHT, edge * sky.HEIGHT),
        tools="",
        toolbar_location=None,
        aspect_ratio=sky.WIDTH / sky.HEIGHT,
        sizing_mode="stretch_width",
        min_border=0,
        name="sky-figure",
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
    )
    made.axis.visible = made.grid.visible = False
    outline = sky.outline()
    globe = {"x": 0, "y": 0, "width": 2 * sky.WIDTH, "height": 2 * sky.HEIGHT}
    made.ellipse(**globe, fill_color=NIGHT_BLUE, line_color=None)
    scale = None
    if as_points:
        _name(made.scatter(x, y, size=4, color="#ffd43b", alpha=0.6, line_color=None), "positions")
    else:
        cells = sky.density(x, y, weights)
        scale = (float(np.nanmin(cells)), float(np.nanmax(cells)))
        colours = LogColorMapper(
            _PALETTE, low=scale[0], high=max(scale[1], 1.01 * scale[0]), nan_color="rgba(0, 0, 0, 0)"
        )
        place = {"x": -sky.WIDTH, "y": -sky.HEIGHT, "dw": 2 * sky.WIDTH, "dh": 2 * sky.HEIGHT}
        _name(made.image([cells], color_mapper=colours, **place), "density")
    # Cells are square: hide what sticks out beyond the round edge.
    corner_x, corner_y = 1.1 * sky.WIDTH, 1.1 * sky.HEIGHT
    frame = ([-corner_x, corner_x, corner_x, -corner_x], [-corner_y, -corner_y, corner_y, corner_y])
    made.multi_polygons([[[frame[0], outline.x]]], [[[frame[1], outline.y]]], fill_color="white", line_color=None)
    for line in sky.graticule():
        made.line(line.x, line.y, color="white", alpha=0.22, width=0.7)
    for line, dash in ((sky.galactic_plane(), "solid"), (sky.ecliptic(), "dashed")):
        made.line(line.x, line.y, color="#8ecdf7", alpha=0.8, width=1.2, line_dash=dash)
    made.ellipse(**globe, fill_color=None, line_color="#495057")
    for at_x, at_y, words in sky.labels():
        is_side = "°" in words
        made.text(
            [0.985 * at_x], [at_y], [words],
            color="white", alpha=0.85, text_font_size="11px",
            # Towards the equator, where the map is wider: a letter beyond its edge would be white on white.
            text_align="left" if is_side else "center", text_baseline="top" if is_side and at_y > 0 else "bottom",
            x_offset=6 if is_side else 0,
        )  # fmt: skip
    return made, scale


def magnitudes(counts: Mapping[str, Floats], edges: Floats) -> Any:
    """Draw a histogram of the magnitudes in each band."""
    made = _figure("magnitudes", 372, "magnitude", "alerts")
    for band, values in counts.items():
        colour, *_ = BANDS[band]
        drawn = made.step(edges, np.append(values, values[-1:]), mode="after", color=colour, width=2)
        _name(drawn, f"magnitudes-{band}")
    made.y_range.start = 0
    return made


def nights(days: npt.NDArray[np.int64], counts: Floats, height: int) -> Any:
    """Draw how many alerts each UTC day has; `days` count from 1970."""
    made = _figure("nights", height, "", "alerts", x_axis_type="datetime")
    width = 0.8 * _DAY_MS
    bars = made.vbar(x=days * float(_DAY_MS), top=counts, width=width, color=_BLUE, line_color=None)
    _name(bars, "nights")
    tips = HoverTool(
        renderers=[bars], tooltips=[("night", "@x{%F}"), ("alerts", "@top{0,0}")], formatters={"@x": "datetime"}
    )
    made.add_tools(tips)
    words = "%d %b %Y"
    if len(days) <= _LABELLED_DAYS:
        # Bokeh takes the form by what lies between two ticks, and of one night it would say the year.
        made.xaxis.formatter = DatetimeTickFormatter(hours=words, days=words, months=words, years=words)
        made.xaxis.ticker = FixedTicker(ticks=(days * float(_DAY_MS)).tolist())
    else:
        made.xaxis.formatter = DatetimeTickFormatter(hours=words, days=words, months="%b %Y", years="%Y")
    first, last = (days[0], days[-1]) if len(days) else (0, 0)
    made.x_range = Range1d((first - 0.7) * _DAY_MS, (last + 0.7) * _DAY_MS)
    made.y_range.start = 0
    return made


def speed(pace: Throughput) -> Any:
    """Draw the alerts committed per second, over the working time."""
    edges, unit = pace.edges, "working time (s)"
    if pace.seconds >= 600:
        edges, unit = edges / 60, "working time (min)"
    made = _figure("speed", 240, unit, "alerts/s")
    values = pace.alerts_per_second
    bars = made.quad(left=edges[:-1], right=edges[1:], bottom=0, top=values, color=_BLUE, alpha=0.25, line_color=None)
    _name(bars, "speed")
    made.step(edges, np.append(values, values[-1:]), mode="after", color=_BLUE, width=2)
    made.y_range.start = 0
    made.x_range = Range1d(edges[0], edges[-1])
    made.min_border_left = _LEFT
    return made


def partitions(found: Sequence[Partition]) -> Any:
    """Draw a bar per partition that shows what became of its offsets."""
    shown = found[:MAX_PARTITIONS]
    made = _figure("partitions", 240, "partition", "offsets")
    numbers = [each.number for each in shown]
    data = {"partition": numbers} | {part: [getattr(each, part.replace(" ", "_")) for each in shown] for part in PARTS}
    bars = made.vbar_stack(
        list(PARTS), x="partition", width=0.85, color=list(PARTS.values()), source=data,
        line_color="#adb5bd" if len(shown) <= 50 else None, line_width=0.5,
    )  # fmt: skip
    _name(bars[0], "partitions")
    tips = [("partition", "@partition"), *((part, f"@{{{part}}}{{0,0}}") for part in PARTS)]
    made.add_tools(HoverTool(renderers=bars[:1], tooltips=tips, mode="vline"))
    made.xaxis.ticker = BasicTicker(min_interval=1, desired_num_ticks=min(len(shown), 24), num_minor_ticks=0)
    made.xaxis.formatter = NumeralTickFormatter(format="0")
    made.x_range = Range1d(min(numbers, default=0) - 0.6, max(numbers, default=0) + 0.6)
    made.y_range.start = 0
    return made


def sizes(found: Sequence[int]) -> Any:
    """Draw a histogram of the sizes of the files."""
    values = np.maximum(np.array(found, dtype=np.float64), 1)
    first, last = np.floor(np.log10(values.min())), np.floor(np.log10(values.max())) + 1
    ticks = np.array([step * 10**power for power in np.arange(first, last) for step in (1, 2, 5)] + [10**last])
    low = np.searchsorted(ticks, values.min(), side="right") - 1
    high = np.searchsorted(ticks, values.max(), side="right")
    # Three bins between two ticks.
    edges = np.interp(np.arange(3 * low, 3 * high + 1) / 3, np.arange(len(ticks)), np.log10(ticks))
    counts, _ = np.histogram(np.log10(values), edges)
    made = _figure("sizes", 240, "file size", "files")
    bars = made.quad(left=edges[:-1], right=edges[1:], bottom=0, top=counts, color=_BLUE, line_color="white")
    _name(bars, "sizes")
    labelled = ticks[low : high + 1]
    labelled = labelled[:: -(-len(labelled) // 5)]
    made.xaxis.ticker = FixedTicker(ticks=np.log10(labelled).tolist())
    made.xaxis.major_label_overrides = {float(np.log10(size)): decimal(round(size)) for size in labelled}
    made.y_range.start = 0
    return made


def light_curve(name: str, example: Example) -> Any:
    """Draw a light curve, days before the alert; magnitudes grow downwards."""
    is_flux = example.is_flux
    made = _figure(name, 210, "days", f"{example.quantity or 'flux'} (nJy)" if is_flux else "magnitude")
    for band, points in example.curve.items():
        colour, mark, _ = BANDS[band]
        low, high = points.values - points.errors, points.values + points.errors
        made.segment(points.days, low, points.days, high, color=colour, alpha=0.5)
        drawn = made.scatter(points.days, points.values, marker=mark, size=6, color=colour, alpha=0.85)
        _name(drawn, f"{name}-{band}")
        if len(points.limits):
            # It was fainter than that: an open triangle that points downwards.
            limits = made.scatter(
                points.limit_days, points.limits, marker="inverted_triangle", size=6, fill_color=None,
                line_color=colour, line_alpha=0.6,
            )  # fmt: skip
            _name(limits, f"{name}-{band}-limits")
    made.y_range.flipped = not is_flux
    if is_flux:
        made.yaxis.formatter = NumeralTickFormatter(format=_COUNTS)
    else:
        made.yaxis.formatter = NumeralTickFormatter(format="0.[0]")
    return made


def _name(drawn: Any, name: str) -> None:
    """Name a drawing, so that its numbers can be found in a browser."""
    drawn.data_source.name = name


def _figure(name: str, height: int, x: str, y: str, **options: Any) -> Any:
    made = figure(
        name=f"{name}-figure",
        height=height,
        sizing_mode="stretch_width",
        min_width=220,
        tools="",
        toolbar_location=None,
        x_axis_label=x,
        y_axis_label=y,
        **options,
    )
    made.xgrid.visible = False
    made.outline_line_color = None
    made.ygrid.grid_line_color = _LINES
    made.yaxis.formatter = NumeralTickFormatter(format=_COUNTS)
    if y in _COUNTED:
        made.yaxis.ticker = BasicTicker(min_interval=1, num_minor_ticks=0)
    for axis in (made.xaxis, made.yaxis):
        axis.axis_line_color = axis.major_tick_line_color = "#adb5bd"
        axis.minor_tick_line_color = None
        axis.major_label_text_color = axis.axis_label_text_color = _TEXT
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = "12px"
    return made
