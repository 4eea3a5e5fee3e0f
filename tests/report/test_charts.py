"""The axes of a report's charts say what stands on them."""

from __future__ import annotations

import numpy as np
import pytest
from bokeh.models import DatetimeTickFormatter

from fink_dask.report import charts

NIGHT = 20_508  # 24 February 2026


@pytest.mark.parametrize("days", [[NIGHT], [NIGHT, NIGHT + 400]], ids=["one", "two a year apart"])
def test_a_few_nights_are_named_by_their_days(days: list[int]) -> None:
    made = charts.nights(np.array(days), np.ones(len(days)), 200)
    (axis,) = made.xaxis
    assert [int(tick / 86_400_000) for tick in axis.ticker.ticks] == days
    form = axis.formatter
    assert isinstance(form, DatetimeTickFormatter)
    assert {form.hours, form.days, form.months, form.years} == {"%d %b %Y"}


def test_no_axis_of_counts_has_halves() -> None:
    nights = charts.nights(np.array([NIGHT]), np.ones(1), 200)
    sizes = charts.sizes([1000])
    brightness = charts.magnitudes({"g": np.ones(2)}, np.array([17.0, 18.0, 19.0]))
    assert {made.yaxis[0].ticker.min_interval for made in (nights, sizes, brightness)} == {1}
