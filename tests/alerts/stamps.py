"""Made-up cutouts: small FITS files of a transient and its host in noise, of the host, and of their difference."""

from __future__ import annotations

import gzip
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Bytes of a FITS block, and of a card in its header.
_BLOCK, _CARD = 2880, 80
_GZIP_LEVEL = 1


@dataclass(frozen=True)
class Stamps:
    """The pictures of one alert, as FITS files."""

    science: bytes
    template: bytes
    difference: bytes


def stamps(rng: np.random.Generator, edge: int, template_edge: int | None = None) -> Stamps:
    """Make up the cutouts of an alert.

    Parameters
    ----------
    rng : numpy.random.Generator
        The source of noise, host and brightness.
    edge : int
        Pixels along an edge.
    template_edge : int, optional
        The same for the template, if different.

    Returns
    -------
    Stamps
        A transient on its host galaxy, the host alone, and the transient alone.
    """
    host_flux, new_flux = rng.uniform(0, 600), rng.uniform(150, 900)
    off_x, off_y = rng.uniform(-4, 4, 2)
    host = (host_flux, off_x, off_y, rng.uniform(2, 5))
    new = (new_flux, 0.0, 0.0, 1.3)
    neighbour = (rng.uniform(0, 500), *rng.uniform(-0.35 * edge, 0.35 * edge, 2), 1.3)
    science = _image(edge, (host, new, neighbour), rng)
    template = _image(template_edge or edge, (host, neighbour), rng)
    return Stamps(fits(science), fits(template), fits(_image(edge, (new,), rng)))


def fits(image: NDArray[np.float32]) -> bytes:
    """Write an image as a FITS file; https://fits.gsfc.nasa.gov/fits_standard.html says how."""
    rows, columns = image.shape
    values = {"SIMPLE": "T", "BITPIX": -32, "NAXIS": 2, "NAXIS1": columns, "NAXIS2": rows}
    cards = [f"{name:<8}= {value!s:>20}".ljust(_CARD) for name, value in values.items()]
    head = "".join([*cards, "END".ljust(_CARD)]).encode().ljust(_BLOCK)
    data = image.astype(">f4").tobytes()
    return head + data + bytes(-len(data) % _BLOCK)


def compressed(file: bytes) -> bytes:
    """Compress a file as ZTF does; the result is the same each time."""
    return gzip.compress(file, _GZIP_LEVEL, mtime=0)


def _image(
    edge: int, sources: tuple[tuple[float, float, float, float], ...], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Draw sources into noise: each has a flux, an offset from the middle and a width, in pixels."""
    y, x = np.mgrid[:edge, :edge] - (edge - 1) / 2
    image = 8 * rng.standard_normal((edge, edge))
    for flux, at_x, at_y, width in sources:
        image += flux / width * np.exp(-((x - at_x) ** 2 + (y - at_y) ** 2) / (2 * width**2))
    return image.astype(np.float32)
