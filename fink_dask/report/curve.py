"""Draw a light curve on a page of its own."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fink_dask.report.charts import BANDS
from fink_dask.report.examples import OTHER_BAND
from fink_dask.units import printable

#: Filled for what an alert was sent for, hollow for earlier detections.
_MARKERS = {"alert": "circle", "earlier": "circle", "forced": "x", "limit": "inverted_triangle"}
#: Less light than in the template: its magnitude is that of what is missing.
_BELOW = ", below template"


def page_of(curve: pa.Table, name: str) -> str:
    """Draw a light curve as a page of HTML that loads nothing from elsewhere."""
    from bokeh.embed import file_html
    from bokeh.layouts import column
    from bokeh.models import Div
    from bokeh.resources import INLINE

    name, panels = printable(name), list[Any]()
    for quantity in curve["quantity"].unique().to_pylist():
        of_one = curve.filter(pc.equal(curve["quantity"], quantity))
        panel = _panel(of_one, name, quantity, panels[0].x_range if panels else None)
        # Bokeh warns on the terminal of a picture without a point, and of a page without a picture.
        if panel.renderers:
            panels.append(panel)
    if not panels:
        panels.append(Div(text=f"The alerts of {escape(name)} tell of no brightness."))
    return str(file_html(column(*panels, sizing_mode="stretch_both"), INLINE, title=f"Light curve of {escape(name)}"))


def _panel(curve: pa.Table, name: str, quantity: str, x_range: Any) -> Any:
    """Draw one kind of brightness: the flux of an image and that of its difference have nothing in common."""
    from bokeh.models import BasicTickFormatter, DataRange1d, Legend
    from bokeh.plotting import figure

    unit, scale = curve["unit"][0].as_py(), curve["scale"][0].as_py().upper()
    drawn = figure(
        sizing_mode="stretch_both", title=name, x_axis_label=f"MJD ({scale})", x_range=x_range or DataRange1d()
    )
    drawn.yaxis.axis_label = f"{quantity} ({unit})"
    drawn.y_range.flipped = unit == "mag"
    drawn.yaxis.formatter = BasicTickFormatter(use_scientific=False)
    drawn.add_layout(Legend(click_policy="hide"), "right")
    for band in sorted(set(curve["band"].to_pylist()), key=str):
        of_band = curve.filter(pc.equal(curve["band"], band) if band is not None else curve["band"].is_null())
        for kind, marker in _MARKERS.items():
            of_kind = of_band.filter(pc.equal(of_band["kind"], kind))
            is_below = pc.equal(of_kind["positive"], False).fill_null(False)
            _draw(drawn, of_kind.filter(pc.invert(is_below)), f"{band} {kind}", str(band), kind, marker)
            _draw(drawn, of_kind.filter(is_below), f"{band} {kind}{_BELOW}", str(band), kind, "diamond")
    return drawn


def _draw(drawn: Any, points: pa.Table, label: str, band: str, kind: str, marker: str) -> None:
    """Draw the points of a band and a kind, with error bars where they have errors; none has no place in the legend."""
    times, values, errors = (
        np.asarray(points[name].to_numpy(), dtype=np.float64)
        for name in ("mjd", "limit" if kind == "limit" else "value", "error")
    )
    is_drawn = np.isfinite(times) & np.isfinite(values)
    if not is_drawn.any():
        return
    times, values, errors = times[is_drawn], values[is_drawn], np.nan_to_num(errors[is_drawn], posinf=0.0)
    colour, *_ = BANDS.get(band, BANDS[OTHER_BAND])
    if kind != "limit":
        bars = [(value - error, value + error) for value, error in zip(values, errors, strict=True)]
        drawn.multi_line([(time, time) for time in times], bars, line_color=colour, line_alpha=0.4, legend_label=label)
    fill = colour if kind == "alert" else None
    drawn.scatter(times, values, marker=marker, size=7, line_color=colour, fill_color=fill, legend_label=label)
