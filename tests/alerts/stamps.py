"""Made-up cutouts: FITS files of a transient and its host in noise, of the host, and of their difference.

They are laid out as those of the surveys. ZTF compresses a file of one image. LSST's holds three: the image, its
variance, and the point spread function in double precision. Both have as much noise in their bits as real ones.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32] | NDArray[np.float64]

#: Bytes of a FITS block, and of a card in its header.
_BLOCK, _CARD = 2880, 80
_GZIP_LEVEL = 6
#: Pixels along an edge of an image, of the point spread function, and of that of a template.
_ZTF_EDGE, _LSST_EDGE, _PSF_EDGE, _TEMPLATE_PSF_EDGES = 63, 30, 41, (51, 55)
_SKY, _VARIANCE = 100.0, 1600.0
#: How far from its middle a point spread function is known, in pixels.
_KNOWN = 24
#: The bits of a pixel that are noise, by -32 for single precision, else by the edge of a point spread function.
_NOISE = {
    -32: bytes.fromhex("0000ffff"),
    _PSF_EDGE: bytes.fromhex("00001fffe0000000"),
    **dict.fromkeys(_TEMPLATE_PSF_EDGES, bytes.fromhex("0000ffffffffffff")),
}
#: A source: its flux, an offset from the middle, and a width, in pixels.
_Source = tuple[float, float, float, float]


@dataclass(frozen=True)
class Stamps:
    """The pictures of one alert, as FITS files; those of ZTF are compressed."""

    science: bytes
    template: bytes
    difference: bytes


def ztf_stamps(rng: np.random.Generator) -> Stamps:
    """Make up the cutouts of a ZTF alert.

    `rng`: the source of noise, host and brightness.
    Returns: A transient on its host galaxy, the host alone, and the transient alone.
    """
    new, host, neighbour = _sources(rng, _ZTF_EDGE)
    science = _SKY + _drawn(_ZTF_EDGE, (host, new, neighbour)) + 4 * rng.standard_normal((_ZTF_EDGE, _ZTF_EDGE))
    template = _SKY + _drawn(_ZTF_EDGE, (host, neighbour)) + 1 * rng.standard_normal((_ZTF_EDGE, _ZTF_EDGE))
    difference = _drawn(_ZTF_EDGE, (new,)) + 6 * rng.standard_normal((_ZTF_EDGE, _ZTF_EDGE))
    cards = {"BUNIT": "'DN      '"}
    files = (_file(_unit(each.astype(np.float32), cards)) for each in (science, template, difference))
    return Stamps(*(gzip.compress(file, _GZIP_LEVEL, mtime=0) for file in files))


def lsst_stamps(rng: np.random.Generator, ra: float, dec: float) -> Stamps:
    """Make up the cutouts of an LSST alert.

    `rng`: the source of noise, host and brightness.
    Returns: A transient on its host galaxy, the host alone, and the transient alone.
    """
    new, host, neighbour = _sources(rng, _LSST_EDGE)
    edge = (_LSST_EDGE, _LSST_EDGE)
    variance = _VARIANCE + 40 * rng.standard_normal(edge) + 0.5 * _drawn(_LSST_EDGE, (host, new))
    noise = np.sqrt(variance) * rng.standard_normal(edge)
    template_noise = 4 * rng.standard_normal(edge)
    # Computed in single precision, unlike a template's, which is averaged.
    psf = _spread(_PSF_EDGE, rng).astype(np.float32).astype(np.float64)
    template_psf = _spread(_TEMPLATE_PSF_EDGES[int(rng.integers(0, 2))], rng)
    cards = _place(rng, ra, dec)
    images = {
        "science": (_drawn(_LSST_EDGE, (host, new, neighbour)) + noise, variance, psf),
        "template": (
            _drawn(_LSST_EDGE, (host, neighbour)) + template_noise,
            16 + abs(template_noise) / 4,
            template_psf,
        ),
        "difference": (_drawn(_LSST_EDGE, (new,)) + noise + template_noise, variance, psf),
    }
    return Stamps(**{name: _lsst_file(*each, cards) for name, each in images.items()})


def _lsst_file(
    image: NDArray[np.float64], variance: NDArray[np.float64], psf: NDArray[np.float64], cards: Mapping[str, object]
) -> bytes:
    uncertainty = {"UTYPE": "'VarianceUncertainty'", "EXTNAME": "'UNCERT  '"}
    return _file(
        _unit(image.astype(np.float32), cards),
        _unit(variance.astype(np.float32), uncertainty, extension=True),
        _unit(psf, {"EXTNAME": "'PSFIMAGE'"}, extension=True),
    )


def noise_of_lsst(file: bytes) -> bytes:
    """Mark the bits of an LSST cutout that are noise: drawn anew, they make another cutout as hard to compress.

    Returns: as many bytes, with a bit set where one is noise.
    """
    mask = bytearray(len(file))
    at = 0
    while at < len(file):
        head = file[at : at + _BLOCK]
        edge = int(head.partition(b"NAXIS1  =")[2][:21])
        low = _NOISE[-32 if b"-32" in head[:240] else edge]
        at += _BLOCK
        for start in range(at, at + len(low) * edge**2, len(low)):
            if any(file[start : start + len(low)]):
                mask[start : start + len(low)] = low
        at += _padded(len(low) * edge**2)
    return bytes(mask)


def _file(*units: bytes) -> bytes:
    return b"".join(units)


def _unit(image: Image, more: Mapping[str, object], *, extension: bool = False) -> bytes:
    """Write an image as a unit of a FITS file; https://fits.gsfc.nasa.gov/fits_standard.html says how."""
    rows, columns = image.shape
    head: dict[str, object] = {"XTENSION": "'IMAGE   '"} if extension else {"SIMPLE": "T"}
    head |= {"BITPIX": -8 * image.itemsize, "NAXIS": 2, "NAXIS1": columns, "NAXIS2": rows}
    head |= {"PCOUNT": 0, "GCOUNT": 1} if extension else {}
    cards = [f"{name:<8}= {value!s:>20}".ljust(_CARD) for name, value in (head | dict(more)).items()]
    data = image.astype(image.dtype.newbyteorder(">")).tobytes()
    text = "".join([*cards, "END".ljust(_CARD)]).encode()
    return text.ljust(_padded(len(text))) + data + bytes(_padded(len(data)) - len(data))


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _sources(rng: np.random.Generator, edge: int) -> tuple[_Source, _Source, _Source]:
    """Choose a transient, its host and a neighbour."""
    host = (rng.uniform(0, 1200), *rng.uniform(-4, 4, 2), rng.uniform(2, 5))
    new = (rng.uniform(150, 900), *rng.uniform(-0.5, 0.5, 2), 1.3)
    neighbour = (rng.uniform(0, 500), *rng.uniform(-0.35 * edge, 0.35 * edge, 2), 1.3)
    return new, host, neighbour


def _drawn(edge: int, sources: tuple[_Source, ...]) -> NDArray[np.float64]:
    y, x = np.mgrid[:edge, :edge] - (edge - 1) / 2
    image = np.zeros((edge, edge))
    for flux, at_x, at_y, width in sources:
        image += flux / width * np.exp(-((x - at_x) ** 2 + (y - at_y) ** 2) / (2 * width**2))
    return image


def _spread(edge: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a point spread function; it is 0 where it is not known."""
    y, x = np.mgrid[:edge, :edge] - (edge - 1) / 2
    distance = x**2 + y**2
    spread = 0.02 * np.exp(-distance / 14) + 2e-6 * rng.standard_normal((edge, edge))
    return np.where(distance < _KNOWN**2, spread, 0)


def _place(rng: np.random.Generator, ra: float, dec: float) -> dict[str, object]:
    """Say where on the detector and on the sky a cutout is."""
    at_x, at_y = rng.integers(15, 4000, 2).tolist()
    turn = rng.uniform(0, 2 * np.pi)
    step = 0.2 / 3600
    matrix = {
        "PC1_1": -step * np.cos(turn),
        "PC1_2": step * np.sin(turn),
        "PC2_1": step * np.sin(turn),
        "PC2_2": step * np.cos(turn),
    }
    return {
        "EXTEND": "T",
        "CUTMINX": at_x,
        "CUTMINY": at_y,
        "ROTPA": f"{np.degrees(turn):.13f}",
        "BUNIT": "'nJy     '",
        "WCSAXES": 2,
        **{f"CRPIX{axis}": f"{15.5 + rng.uniform(-0.5, 0.5):.12f}" for axis in (1, 2)},
        **{name: f"{value:.13E}" for name, value in matrix.items()},
        "CDELT1": "1.0",
        "CDELT2": "1.0",
        "CRVAL1": f"{ra:.12f}",
        "CRVAL2": f"{dec:.12f}",
        "LATPOLE": "90.0",
        "MJDREF": "0.0",
    }
