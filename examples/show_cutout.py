"""Show a cutout of a dataset that fink-dask has written, as characters.

Run it as ``python show_cutout.py DIRECTORY``. It takes full packets, which have cutouts: those of ZTF are compressed
FITS files, those of LSST FITS files. Besides fink-dask it needs astropy.
"""

# ruff: noqa: T201 - an example speaks to its user

from __future__ import annotations

import gzip
import io
import sys
import warnings

try:
    import numpy as np
    import pyarrow.compute as pc
    from astropy.io import fits

    import fink_dask
except ImportError as error:
    sys.exit(f"{error}: it needs fink-dask and astropy (pip install astropy)")

SHADES = " .:-=+*#%@"


def first_cutout(directory: str) -> tuple[int, bytes]:
    """Take the identifier and the science image of one alert; only these columns are read."""
    alerts = fink_dask.open_dataset(directory)
    if "cutoutScience" not in alerts.schema.names:
        sys.exit("these alerts have no cutouts")
    is_ztf = "candid" in alerts.schema.names
    columns = {
        "id": pc.field("candid" if is_ztf else "diaSourceId"),
        "cutout": pc.field("cutoutScience", "stampData") if is_ztf else pc.field("cutoutScience"),
    }
    rows = alerts.head(1, columns=columns).to_pylist()
    if not rows:
        sys.exit("there are no alerts")
    return rows[0]["id"], rows[0]["cutout"]


def pixels(cutout: bytes) -> np.ndarray:
    """Read an image."""
    content = gzip.decompress(cutout) if cutout.startswith(b"\x1f\x8b") else cutout
    # astropy warns of the headers of ZTF's cutouts, which are a little off.
    with warnings.catch_warnings(action="ignore"), fits.open(io.BytesIO(content)) as units:
        return next(unit.data for unit in units if unit.data is not None)


def main() -> None:
    """Print one cutout; with matplotlib, ``plt.imshow(image)`` shows it better."""
    if len(sys.argv) != 2:
        sys.exit("usage: python show_cutout.py DIRECTORY")
    try:
        number, cutout = first_cutout(sys.argv[1])
    except fink_dask.FinkDaskError as error:
        sys.exit(str(error))
    image = pixels(cutout)
    lowest, highest = np.nanmin(image), np.nanmax(image)
    shades = np.nan_to_num((image - lowest) / max(highest - lowest, 1e-9)) * (len(SHADES) - 1)
    print(f"alert {number}: {image.shape[0]} x {image.shape[1]} pixels")
    for row in shades.astype(int)[::-1]:
        print("".join(2 * SHADES[shade] for shade in row))


if __name__ == "__main__":
    main()
