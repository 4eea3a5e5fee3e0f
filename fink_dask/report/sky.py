"""A map of where alerts are on the sky: Hammer's projection of the whole sphere, which preserves areas."""

from __future__ import annotations

from dataclasses import dataclass

import erfa
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

#: Half the width and half the height of the map.
WIDTH, HEIGHT = 2 * np.sqrt(2), np.sqrt(2)
#: Cells of a density, across the map and up; each has 3.2 square degrees.
_COLUMNS, _ROWS = 180, 90
#: Degrees between two lines of the graticule.
_MERIDIANS, _PARALLELS = range(-180, 181, 60), range(-60, 61, 30)
_LINE_POINTS = 91


@dataclass(frozen=True)
class Line:
    """A line on the map: NaN where it leaves the map on one side and returns on the other."""

    x: Floats
    y: Floats


def project(ra: npt.ArrayLike, dec: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Project positions by Hammer's formula.

    Parameters
    ----------
    ra, dec : array_like
        In degrees.

    Returns
    -------
    x, y : numpy.ndarray
        Within ±`WIDTH` and ±`HEIGHT`. Right ascension 0 is in the middle, and grows to the left, as seen when looking
        up at the sky.

    Notes
    -----
    Snyder, Map Projections: A Working Manual, 1987, US Geological Survey Professional Paper 1395, page 249,
    https://doi.org/10.3133/pp1395; with a radius of one.
    """
    longitude = np.radians((np.asarray(ra, dtype=np.float64) + 180) % 360 - 180)
    return _hammer(longitude, np.radians(np.asarray(dec, dtype=np.float64)))


def _hammer(longitude: Floats, latitude: Floats) -> tuple[Floats, Floats]:
    size = np.sqrt(2 / (1 + np.cos(latitude) * np.cos(longitude / 2)))
    return -2 * size * np.cos(latitude) * np.sin(longitude / 2), size * np.sin(latitude)


def density(x: Floats, y: Floats, weights: Floats) -> npt.NDArray[np.float32]:
    """Count alerts in each cell of the map, from the lowest row up; NaN where there are none."""
    edges = (np.linspace(-HEIGHT, HEIGHT, _ROWS + 1), np.linspace(-WIDTH, WIDTH, _COLUMNS + 1))
    counts, *_ = np.histogram2d(y, x, bins=edges, weights=weights)
    return np.where(counts > 0, counts, np.nan).astype(np.float32)


def outline() -> Line:
    """Draw the edge of the map."""
    angle = np.linspace(0, 2 * np.pi, 4 * _LINE_POINTS)
    return Line(WIDTH * np.cos(angle), HEIGHT * np.sin(angle))


def graticule() -> list[Line]:
    """Draw lines of equal right ascension and of equal declination."""
    latitude = np.radians(np.linspace(-90, 90, _LINE_POINTS))
    longitude = np.radians(np.linspace(-180, 180, 2 * _LINE_POINTS))
    meridians = [_hammer(np.full_like(latitude, np.radians(degrees)), latitude) for degrees in _MERIDIANS]
    parallels = [_hammer(longitude, np.full_like(longitude, np.radians(degrees))) for degrees in _PARALLELS]
    return [Line(*points) for points in (*meridians, *parallels)]


def labels() -> list[tuple[float, float, str]]:
    """Label the lines, as place and text: right ascensions in hours on the equator, declinations beside the map."""
    found = []
    for degrees in _MERIDIANS[1:-1]:
        x, y = project(degrees, 0)
        found.append((float(x), float(y), f"{degrees % 360 // 15}h"))
    for degrees in _PARALLELS:
        if degrees:
            x, y = _hammer(np.radians(np.float64(180)), np.radians(np.float64(degrees)))
            found.append((float(x), float(y), f"{degrees:+d}°"))
    return found


def galactic_plane() -> Line:
    """Draw the plane of the Milky Way."""
    return _great_circle(*erfa.g2icrs(np.radians(np.linspace(0, 360, 4 * _LINE_POINTS)), 0.0))


def ecliptic() -> Line:
    """Draw the path of the Sun, for the equinox of the year 2000."""
    return _great_circle(*erfa.eceq06(erfa.DJ00, 0.0, np.radians(np.linspace(0, 360, 4 * _LINE_POINTS)), 0.0))


def _great_circle(ra: Floats, dec: Floats) -> Line:
    x, y = project(np.degrees(ra), np.degrees(dec))
    # Don't cross the map where the line continues on the other side.
    east = (ra + np.pi) % (2 * np.pi)
    return Line(np.where(np.abs(np.diff(east, prepend=east[0])) > np.pi, np.nan, x), y)
