"""Cutouts: untrusted FITS files of a few kilobytes, compressed or not; and pictures of them."""

from __future__ import annotations

import importlib.util
import io
import warnings
import zlib

import numpy as np
import numpy.typing as npt

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


def can_read_stamps() -> bool:
    """Tell whether the libraries that read cutouts and write pictures are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("astropy", "PIL"))


def read_stamp(data: bytes | None) -> Image | None:
    """Read the first image of a cutout.

    Parameters
    ----------
    data : bytes or None
        A FITS file, as it is or compressed by gzip.

    Returns
    -------
    numpy.ndarray or None
        The pixels, the lowest row first; None if the data, whatever it is, holds no image within the bounds.
    """
    content = _unpacked(data or b"")
    if content is None:
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


def _unpacked(data: bytes) -> bytes | None:
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
