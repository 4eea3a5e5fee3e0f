"""Cutouts: untrusted FITS files, compressed or not, bounded before astropy opens them; and pictures of them."""

from __future__ import annotations

import importlib.util
import io
import re
import warnings
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fink_dask.dataset.surveys import CUTOUTS
from fink_dask.errors import SettingsError

Image = npt.NDArray[np.float64]

#: The most bytes of a cutout, compressed or not, which stops decompression bombs; the surveys' have up to 50 kB.
MAX_BYTES = 4 * 2**20
#: The most pixels along an edge; the surveys' cutouts have about a hundred.
MAX_EDGE = 512
_GZIP = b"\x1f\x8b"
#: Tells zlib to expect a gzip header.
_GZIP_BITS = 31
#: Percentage of the pixels that are neither black nor white.
_SHOWN_PERCENT = 99.5
#: Installs the libraries that read cutouts and write pictures.
HINT = "pip install 'fink-dask[report]'"
#: A card that says how many axes a unit has, wherever it is; 80 characters, with the value up to a comment.
_AXES = re.compile(rb"NAXIS *=([^/]{0,70})", re.IGNORECASE)
#: A cutout is one image; that of a table, or a cube, is none that is shown.
_MOST_AXES, _MOST_UNITS = 3, 16
#: The field of ZTF's cutouts that has the picture.
_STAMP = "stampData"


def can_read_stamps() -> bool:
    """Tell whether the libraries that read cutouts and write pictures are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("astropy", "PIL"))


def read_stamp(data: bytes | None) -> Image | None:
    """Read the first image of a cutout.

    `data`: A FITS file, as it is or compressed by gzip.
    Returns: the pixels, the lowest row first; None if the data, whatever it is, holds no image within the bounds.
    """
    content = unpack(data or b"")
    if content is None or not _has_few_axes(content):
        return None
    from astropy.io import fits

    try:
        with (
            warnings.catch_warnings(action="ignore"),
            # Compressed images would be unpacked to any size that their headers give.
            fits.open(io.BytesIO(content), disable_image_compression=True) as units,
        ):
            for unit in units:
                if isinstance(unit, fits.PrimaryHDU | fits.ImageHDU) and len(unit.shape) == 2:
                    if not 0 < min(unit.shape) <= max(unit.shape) <= MAX_EDGE:
                        return None
                    image = np.asarray(unit.data, dtype=np.float64)
                    return image if image.shape == unit.shape and np.isfinite(image).any() else None
    except Exception:  # noqa: S110 - astropy raises many kinds, and this file may be anything
        pass
    return None


def _has_few_axes(content: bytes) -> bool:
    """Tell whether no unit says that it has more axes than an image; astropy makes a list of them before it looks."""
    for card in _AXES.finditer(content):
        said = card[1].strip()
        if not (said.isdigit() and len(said) < 3 and int(said) <= _MOST_AXES):
            return False
    return content.count(b"XTENSION") <= _MOST_UNITS


def shades(image: Image) -> npt.NDArray[np.uint8]:
    """Turn an image into greys, the highest row first, as FITS has it the other way up; NaN becomes black."""
    from astropy.visualization import AsinhStretch, PercentileInterval

    shown = AsinhStretch()(PercentileInterval(_SHOWN_PERCENT)(image))
    return np.asarray(255 * np.nan_to_num(shown)[::-1], dtype=np.uint8)


def png(image: Image) -> bytes:
    """Write an image as a PNG file."""
    from PIL import Image as Picture

    file = io.BytesIO()
    Picture.fromarray(shades(image)).save(file, "PNG", optimize=True)
    return file.getvalue()


def unpack(data: bytes) -> bytes | None:
    """Return a FITS file, or None if it is too large, or can't be unpacked."""
    if len(data) > MAX_BYTES:
        return None
    if not data.startswith(_GZIP):
        return data
    unpacking = zlib.decompressobj(_GZIP_BITS)
    try:
        content = unpacking.decompress(data, MAX_BYTES)
    except zlib.error:
        return None
    return content if unpacking.eof else None


def cutout(row: Mapping[str, Any], kind: str = "science") -> Image:
    """Return a cutout of an alert as an array.

    Parameters
    ----------
    row : mapping
        An alert of full packets, with its columns: a dictionary such as ``table.to_pylist()`` gives, or a row of pandas
        or polars (``named=True``).
    kind : {"science", "template", "difference"}
        Which of its cutouts.

    Returns
    -------
    numpy.ndarray
        The pixels as float64, shape (rows, columns), the lowest row first.

    Raises
    ------
    SettingsError
        If the alert has no such cutout, or what it has is no image of at most 512 pixels along an edge, in a FITS file
        of at most 4 MiB; or if astropy is not installed.

    Examples
    --------
    >>> import fink_dask
    >>> alerts = fink_dask.open_dataset("alerts")  # doctest: +SKIP
    >>> row = alerts.head(1, columns=["cutoutScience"]).to_pylist()[0]  # doctest: +SKIP
    >>> fink_dask.cutout(row).shape  # doctest: +SKIP
    (63, 63)
    """
    name = CUTOUTS.get(kind)
    if name is None:
        raise SettingsError(f"{str(kind)[:40]!r} is no kind of cutout: they are {', '.join(CUTOUTS)}")
    if importlib.util.find_spec("astropy") is None:
        raise SettingsError(f"cutouts need astropy, which is not installed: {HINT}")
    data = next((row[key] for key in (f"{name}.{_STAMP}", name) if key in row), None)
    if isinstance(data, Mapping):
        data = data.get(_STAMP)
    if not isinstance(data, bytes):
        raise SettingsError(f"the alert has no {name}: those of full packets have")
    image = read_stamp(data)
    if image is None:
        raise SettingsError(f"{name} is no image in FITS of at most {MAX_EDGE} pixels along an edge")
    return image
