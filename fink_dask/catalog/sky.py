"""Divide the sky as HATS does: into pixels of HEALPix, none of which has more rows than fit into a file."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import cdshealpix
import numpy as np
import numpy.typing as npt
from hats.pixel_math import HealpixPixel
from hats.pixel_math.healpix_shim import margin2order

Integers = npt.NDArray[np.int64]

#: The order of the places that tell where a row is.
PLACE_ORDER = 29
#: The finest division of the sky: 0.05 square degrees, in which no survey has more objects than fit into a file.
FINEST_ORDER = 8
#: Objects beyond a pixel's edge that are kept with it, in arcseconds, so that cross-matches miss none.
MARGIN_ARCSEC = 10.0
#: Pixels of this order are at least as wide as the margin; so the margin is in those that touch the pixel.
_MARGIN_ORDER = int(margin2order(MARGIN_ARCSEC / 60))
_ROWS_AT_ONCE = 2**20


def first_place(pixel: HealpixPixel) -> int:
    """Return the first place in a pixel; places are ordered so that those of a pixel follow each other."""
    return int(pixel.pixel) << 2 * (PLACE_ORDER - int(pixel.order))


def end_place(pixel: HealpixPixel) -> int:
    """Return the place after the last one in a pixel."""
    return (int(pixel.pixel) + 1) << 2 * (PLACE_ORDER - int(pixel.order))


def histogram(places: Integers, weights: Integers) -> Integers:
    """Add up weights by pixel of the finest division."""
    cells = places >> 2 * (PLACE_ORDER - FINEST_ORDER)
    found = np.bincount(cells, weights=weights, minlength=12 << 2 * FINEST_ORDER)
    return found.astype(np.int64)


def divide(weights: Integers, most: int, kept: Collection[HealpixPixel] = ()) -> list[HealpixPixel]:
    """Choose the largest pixels that have no more than a weight, as hats-import does, and all that is to stay.

    `weights`: weights by pixel of the finest division.
    `most`: the largest weight of a pixel; one of the finest division may have more.
    """
    sums = [weights]
    for _ in range(FINEST_ORDER):
        sums.append(sums[-1].reshape(-1, 4).sum(axis=1))
    sums.reverse()
    staying = {(int(pixel.order), int(pixel.pixel)) for pixel in kept}
    above = {(order - up, number >> 2 * up) for order, number in staying for up in range(1, order + 1)}
    found, numbers = [], list(range(12))
    for order in range(FINEST_ORDER + 1):
        below: list[int] = []
        for number in numbers:
            if (order, number) in staying:
                found.append(HealpixPixel(order, number))
            elif sums[order][number]:
                if order == FINEST_ORDER or (sums[order][number] <= most and (order, number) not in above):
                    found.append(HealpixPixel(order, number))
                else:
                    below += range(4 * number, 4 * number + 4)
        numbers = below
    return sorted(found, key=first_place)


class Division:
    """Pixels that do not overlap, and which of them a place is in."""

    def __init__(self, pixels: Sequence[HealpixPixel]) -> None:
        # In the order of their places.
        self.pixels = list(pixels)
        self._starts = np.array([first_place(pixel) for pixel in pixels], dtype=np.int64)
        self._ends = np.array([end_place(pixel) for pixel in pixels], dtype=np.int64)

    def find(self, places: Integers) -> Integers:
        """Return the number of the pixel that each place is in; -1 for none."""
        if not self.pixels:
            return np.full(len(places), -1, dtype=np.int64)
        numbers = np.searchsorted(self._starts, places, side="right") - 1
        return np.where((numbers >= 0) & (places < self._ends[numbers]), numbers, -1)

    def beside(self, pixel: HealpixPixel) -> set[int]:
        """Return the numbers of the pixels that touch another one, and of what is in it."""
        near = cdshealpix.neighbours(np.array([pixel.pixel], dtype=np.uint64), int(pixel.order))[0]
        found: set[int] = set()
        for number in near[near >= 0].tolist():
            one = HealpixPixel(int(pixel.order), int(number))
            first, last = self.find(np.array([first_place(one), end_place(one) - 1]))
            inside = np.flatnonzero((self._starts >= first_place(one)) & (self._ends <= end_place(one)))
            found.update(int(each) for each in (first, last, *inside) if each >= 0)
        return found

    def margins(self, places: Integers) -> list[tuple[int, Integers]]:
        """Find for which other pixels' margins rows are; returns the number of a pixel, and the numbers of its rows."""
        pairs = [
            self._margins(places[start : start + _ROWS_AT_ONCE], start)
            for start in range(0, len(places), _ROWS_AT_ONCE)
        ]
        found = np.unique(np.concatenate(pairs, axis=0), axis=0) if pairs else np.empty((0, 2), dtype=np.int64)
        edges = np.flatnonzero(np.diff(found[:, 0])) + 1
        return [(int(part[0, 0]), part[:, 1]) for part in np.split(found, edges) if len(part)]

    def _margins(self, places: Integers, first_row: int) -> Integers:
        shift = 2 * (PLACE_ORDER - _MARGIN_ORDER)
        near = cdshealpix.neighbours((places >> shift).astype(np.uint64), _MARGIN_ORDER).astype(np.int64)
        pixels = self.find((near << shift).ravel()).reshape(near.shape)
        is_other = (near >= 0) & (pixels >= 0) & (pixels != self.find(places)[:, np.newaxis])
        rows, columns = np.nonzero(is_other)
        return np.stack([pixels[rows, columns], rows + first_row], axis=1)
