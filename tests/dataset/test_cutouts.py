"""Cutouts are read as astropy reads them, and what is none, or a bomb, does no harm."""

from __future__ import annotations

import gzip
import io
import tracemalloc
import zlib

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from PIL import Image

import fink_dask
from fink_dask.dataset.cutouts import MAX_BYTES, MAX_EDGE, png, read_stamp
from fink_dask.errors import SettingsError
from tests.alerts.made_up import AlertKind, made_up_alerts

IMAGE = np.arange(21 * 17, dtype=np.float32).reshape(21, 17)


def written(*units: fits.hdu.base._BaseHDU) -> bytes:
    content = io.BytesIO()
    fits.HDUList(list(units)).writeto(content)
    return content.getvalue()


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i2", "u2", "i4"])
def test_an_image_is_read_whatever_its_numbers_are(compress: object, dtype: str) -> None:
    data = written(fits.PrimaryHDU(IMAGE.astype(dtype)))
    found = read_stamp(compress(data))  # type: ignore[operator]
    assert found is not None
    assert np.array_equal(found, IMAGE)


def test_the_first_image_counts_where_the_primary_unit_has_none() -> None:
    variance = fits.ImageHDU(IMAGE * 0)
    found = read_stamp(written(fits.PrimaryHDU(), fits.ImageHDU(IMAGE), variance))
    assert found is not None
    assert np.array_equal(found, IMAGE)


@pytest.mark.parametrize("kind", [AlertKind.ZTF_FULL, AlertKind.LSST_FULL], ids=lambda kind: kind.value)
def test_made_up_alerts_have_cutouts_that_can_be_read(kind: AlertKind) -> None:
    for alert in made_up_alerts(kind, 3):
        for name in ("cutoutScience", "cutoutTemplate", "cutoutDifference"):
            data = alert[name]["stampData"] if kind is AlertKind.ZTF_FULL else alert[name]
            found = read_stamp(data)
            assert found is not None
            assert found.min() < found.mean() < found.max()
            # FITS files of their own, as any reader takes them.
            with fits.open(io.BytesIO(gzip.decompress(data) if kind is AlertKind.ZTF_FULL else data)) as units:
                units.verify("exception")
                assert np.array_equal(units[0].data, found)


@pytest.mark.parametrize("kind", [AlertKind.ZTF_FULL, AlertKind.LSST_FULL], ids=lambda kind: kind.value)
def test_a_cutout_of_a_row_is_the_picture_that_was_sent(kind: AlertKind) -> None:
    (alert,) = made_up_alerts(kind, 1)
    for shown, name in (("science", "cutoutScience"), ("difference", "cutoutDifference")):
        data = alert[name]["stampData"] if kind is AlertKind.ZTF_FULL else alert[name]
        dotted = {f"{name}.stampData": data} if kind is AlertKind.ZTF_FULL else {name: data}
        for row in (alert, pd.Series(alert), dotted):
            found = fink_dask.cutout(row, shown)
            assert np.array_equal(found, np.asarray(read_stamp(data)))
    for row, words in (
        ({"objectId": "x"}, "packets"),
        ({"cutoutScience": None}, "packets"),
        ({"cutoutScience": {"stampData": b"GIF89a"}}, "image"),
        ({"cutoutScience": bomb(8 * MAX_BYTES)}, "image"),
    ):
        with pytest.raises(SettingsError, match=words):
            fink_dask.cutout(row)
    with pytest.raises(SettingsError, match="'Science'"):
        fink_dask.cutout(alert, "Science")


def bomb(size: int) -> bytes:
    """Compress so many zeros behind the header of a FITS file."""
    packer = zlib.compressobj(9, wbits=31)
    return packer.compress(written(fits.PrimaryHDU(IMAGE))[:2880]) + packer.compress(bytes(size)) + packer.flush()


def huge_header(edge: int) -> bytes:
    """Claim an image of this size, and have none."""
    return written(fits.PrimaryHDU(IMAGE)).replace(b"NAXIS1  =                   17", f"NAXIS1  = {edge:>20}".encode())


def compressed_image() -> bytes:
    """Tile-compress an image of zeros, which is small however large it says that it is."""
    return written(fits.PrimaryHDU(), fits.CompImageHDU(np.zeros((4000, 4000), np.int16)))


@pytest.mark.parametrize(
    "data",
    [
        None,
        b"",
        b"no FITS file",
        b"\x1f\x8b\x08\x00" + bytes(range(256)),
        gzip.compress(written(fits.PrimaryHDU(IMAGE)))[:-200],
        written(fits.PrimaryHDU(IMAGE))[:3000],
        written(fits.PrimaryHDU()),
        written(fits.PrimaryHDU(np.zeros((2, 3, 4), np.float32))),
        written(fits.PrimaryHDU(np.full((3, 3), np.nan, np.float32))),
        written(fits.PrimaryHDU(np.zeros((MAX_EDGE + 1, 3), np.float32))),
        written(fits.PrimaryHDU(IMAGE)).replace(b"BITPIX  =                  -32", b"BITPIX  =                   99"),
        huge_header(10**9),
        huge_header(-5),
        compressed_image(),
        bytes(MAX_BYTES + 1),
        bomb(8 * MAX_BYTES),
    ],
    ids=lambda data: None if data is None else f"{len(data)} bytes",
)
def test_what_is_no_image_is_none_and_takes_no_memory(data: bytes | None) -> None:
    read_stamp(written(fits.PrimaryHDU(IMAGE)))  # astropy is loaded
    tracemalloc.start()
    try:
        assert read_stamp(data) is None
        assert tracemalloc.get_traced_memory()[1] < 4 * MAX_BYTES
    finally:
        tracemalloc.stop()


def test_a_picture_has_the_lowest_row_below_and_black_where_there_is_no_number() -> None:
    image = np.ones((8, 8))
    image[0] = 100  # FITS counts rows from below
    image[7, 0] = np.nan
    picture = np.asarray(Image.open(io.BytesIO(png(image))))
    assert picture.shape == (8, 8)
    assert set(picture[7].tolist()) == {255}
    assert picture[0, 0] == 0
    assert png(np.zeros((3, 3)))


def header(*cards: str) -> bytes:
    return "".join(card.ljust(80) for card in (*cards, "END")).ljust(2880).encode()


@pytest.mark.parametrize(
    "card",
    [
        "NAXIS   = 99999999999999999999",
        "NAXIS   =               400000",
        "naxis   =               400000",
        "NAXIS=400000",
        "HIERARCH NAXIS = 400000",
        "NAXIS   =                  1E9",
        "NAXIS   =",
    ],
)
def test_a_header_of_endless_axes_is_no_image_and_is_not_opened(card: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: object, **__: object) -> None:
        raise AssertionError("astropy makes a list of the axes")

    monkeypatch.setattr(fits, "open", opened)
    first = header("SIMPLE  =                    T", "BITPIX  =                    8", card)
    assert read_stamp(first) is None
    assert read_stamp(gzip.compress(first)) is None
    assert read_stamp(header("SIMPLE  =                    T", "NAXIS   =                    0") + first) is None


def test_a_file_of_many_units_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fits, "open", None)
    assert read_stamp(written(fits.PrimaryHDU(), *[fits.ImageHDU() for _ in range(20)])) is None
