"""A position is where the map says, and equal parts of the sky are equally large on it."""

from __future__ import annotations

import numpy as np
import pytest

from fink_dask.report import sky


@pytest.mark.parametrize(
    ("ra", "dec", "x", "y"),
    [
        (0, 0, 0, 0),
        (360, 0, 0, 0),
        (0, 90, 0, sky.HEIGHT),
        (123, -90, 0, -sky.HEIGHT),
        (179.9999, 0, -sky.WIDTH, 0),
        (180.0001, 0, sky.WIDTH, 0),
        (90, 0, -1.530734, 0),
        (270, 0, 1.530734, 0),
        (0, 45, 0, 0.765367),
        (60, 30, -0.925820, 0.534522),
    ],
)  # fmt: skip
def test_known_places_are_where_they_belong(ra: float, dec: float, x: float, y: float) -> None:
    found_x, found_y = sky.project(ra, dec)
    assert float(found_x) == pytest.approx(x, abs=2e-5)
    assert float(found_y) == pytest.approx(y, abs=2e-5)


def test_alerts_all_over_the_sky_make_an_even_map_that_keeps_every_one() -> None:
    rng = np.random.default_rng(1)
    ra, dec = 360 * rng.random(400_000), np.degrees(np.arcsin(rng.uniform(-1, 1, 400_000)))
    x, y = sky.project(ra, dec)
    assert ((x / sky.WIDTH) ** 2 + (y / sky.HEIGHT) ** 2 <= 1 + 1e-9).all()
    cells = sky.density(x, y, np.full(len(x), 0.5))
    assert np.nansum(cells) == pytest.approx(200_000)
    inner = cells[30:60, 60:120]
    per_cell = 200_000 * 16 / (4 * np.pi * cells.size)  # the ellipse has 4 pi, the rectangle around it 16
    assert np.mean(inner) == pytest.approx(per_cell, rel=0.02)
    assert np.mean(cells[40:50, 4:12]) == pytest.approx(per_cell, rel=0.05)


def test_the_plane_of_the_milky_way_goes_through_its_centre_and_past_its_poles() -> None:
    plane = sky.galactic_plane()
    x, y = sky.project(266.405, -28.936)
    assert np.nanmin(np.hypot(plane.x - x, plane.y - y)) < 0.02
    x, y = sky.project(192.859, 27.128)
    assert np.nanmin(np.hypot(plane.x - x, plane.y - y)) > 0.8
    jumps = np.hypot(np.diff(plane.x), np.diff(plane.y))
    assert np.nanmax(jumps) < 0.2, "a line goes across the whole map"
