"""Made-up alerts with schemas shaped like Fink's ZTF packets."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.alerts.noise import Row, noisy_rows, with_nulls
from tests.alerts.packet import broker_columns
from tests.alerts.schemas import AvroSchema, innermost_type
from tests.alerts.sky import EarlierSightings, Ints, Sightings, history, ids
from tests.alerts.stamps import compressed, stamps
from tests.alerts.ztf_schemas import UPPER_LIMIT, full_schema, light_schema

#: candid lies in [2**61, 2**62), as 19-digit numbers do.
_ID_BITS = 61
#: Pixels along an edge of a cutout.
_STAMP_EDGE = 63


def light_alerts(seen: Sightings, rng: np.random.Generator) -> list[Row]:
    """Make a block of light alerts, of about 1.2 kB each.

    Parameters
    ----------
    seen : Sightings
        What the alerts saw.
    rng : numpy.random.Generator
        Where the noise comes from.

    Returns
    -------
    list of dict
        An alert for each sighting.
    """
    past = history(seen, rng.integers(0, 54, len(seen)), rng)
    earlier = _earlier(light_schema(), past, rng, limits=0.3)
    known = {**_photometry(seen, rng), **_about(seen, rng), "prv_candidates": past.split(earlier, rng, missing=0.04)}
    return noisy_rows(light_schema(), len(seen), rng, known, nulls=0.03)


def full_alerts(seen: Sightings, rng: np.random.Generator) -> list[Row]:
    """Make a block of full alerts, of about 55 kB each.

    Parameters
    ----------
    seen : Sightings
        What the alerts saw.
    rng : numpy.random.Generator
        Where the noise comes from.

    Returns
    -------
    list of dict
        An alert for each sighting.
    """
    schema, count = full_schema(), len(seen)
    about = {**_photometry(seen, rng), **_about(seen, rng)}
    candid = about["candid"].tolist()
    past = history(seen, rng.integers(8, 80, count), rng)
    known = {
        **about,
        "schemavsn": ["4.02"] * count,
        "candidate": noisy_rows(innermost_type(schema, "candidate"), count, rng, about, nulls=0.005),
        "prv_candidates": past.split(_earlier(schema, past, rng, limits=0.67), rng, missing=0.02),
        "mangrove": [_mangrove(i, rng) for i in range(count)],
        "blazar_stats": [dict(zip(("m0", "m1", "m2"), row, strict=True)) for row in _floats(rng, (count, 3))],
        **{f"lc_features_{band}": _features(f"lc_features_{band}", count, rng) for band in "gr"},
    }
    made = [stamps(rng, _STAMP_EDGE) for _ in candid]
    for name, suffix in (("Science", "targ_sci"), ("Template", "ref"), ("Difference", "targ_refmsci")):
        known[f"cutout{name}"] = [
            {"fileName": f"candid{number}_{suffix}.fits.gz", "stampData": compressed(getattr(each, name.lower()))}
            for number, each in zip(candid, made, strict=True)
        ]
    return noisy_rows(schema, count, rng, known)


def _photometry(seen: Sightings, rng: np.random.Generator) -> dict[str, Any]:
    """Return what one exposure measures of each sighting."""
    fid = rng.integers(1, 3, len(seen))
    positive = np.array(["f", "t"])[(rng.random(len(seen)) < 0.7).astype(int)]
    return {
        "jd": seen.jd,
        "fid": fid,
        "magpsf": seen.magnitude(fid, rng).astype(np.float32),
        "sigmapsf": (0.02 + 0.2 * rng.random(len(seen))).astype(np.float32),
        "diffmaglim": (19.5 + 0.5 * rng.standard_normal(len(seen))).astype(np.float32),
        "isdiffpos": positive,
        "ra": seen.ra + 3e-5 * rng.standard_normal(len(seen)),
        "dec": seen.dec + 3e-5 * rng.standard_normal(len(seen)),
        "candid": ids(seen.number, _ID_BITS),
        "pid": ids(seen.number, _ID_BITS) // 10**6,
        "pdiffimfilename": _file_names(seen, fid, rng),
        "programpi": ["Kulkarni"] * len(seen),
    }


def _about(seen: Sightings, rng: np.random.Generator) -> dict[str, Any]:
    """Return what is known of each alert beyond its photometry."""
    count = len(seen)
    return {
        **broker_columns(seen, rng),
        "objectId": [_object_id(number) for number in seen.target.tolist()],
        "jdstarthist": seen.jd - rng.uniform(30, 900, count),
        "jdendhist": seen.jd,
        "tracklet": [None] * count,
        "DR3Name": with_nulls([f"Gaia DR3 {n}" for n in rng.integers(2**60, 2**62, count)], rng, 0.2),
    }


def _earlier(schema: AvroSchema, past: EarlierSightings, rng: np.random.Generator, *, limits: float) -> list[Row]:
    """Return the earlier candidates, a share of which are upper limits and hence mostly null."""
    earlier, count = innermost_type(schema, "prv_candidates"), len(past.sightings)
    rows = noisy_rows(earlier, count, rng, _photometry(past.sightings, rng), nulls=0.005)
    for row, limit in zip(rows, rng.random(count) < limits, strict=True):
        if limit:
            row.update(dict.fromkeys(row.keys() - UPPER_LIMIT))
    return rows


def _features(name: str, count: int, rng: np.random.Generator) -> list[Row]:
    """Return light-curve features: some are NaN, as with too few points; some rows all null, as without any."""
    schema = innermost_type(full_schema(), name)
    rows = noisy_rows(schema, count, rng, {}, nulls=0, nans=0.1)
    return [row if some else dict.fromkeys(row) for row, some in zip(rows, rng.random(count) > 0.05, strict=True)]


def _mangrove(index: int, rng: np.random.Generator) -> dict[str, str | None]:
    """Return a cross-match with a catalogue of galaxies, now and then without a value."""
    distance = None if index % 7 == 0 else f"{rng.uniform(5, 200)}"
    return {"HyperLEDA_name": "None", "2MASS_name": "None", "lum_dist": distance, "ang_dist": distance}


def _floats(rng: np.random.Generator, shape: tuple[int, int]) -> list[list[float]]:
    values: list[list[float]] = rng.standard_normal(shape, dtype=np.float32).tolist()
    return values


def _file_names(seen: Sightings, fid: Ints, rng: np.random.Generator) -> list[str]:
    fields: NDArray[np.int64] = rng.integers(200, 900, len(seen))
    days = np.datetime_as_string(seen.utc, unit="D")
    return [
        f"ztf_{str(day).replace('-', '')}{int(part * 1e6):06}_{field:06}_z{' gr'[band]}_c04_o_q3_scimrefdiffimg.fits"
        for day, part, field, band in zip(days, seen.fraction, fields.tolist(), fid.tolist(), strict=True)
    ]


def _object_id(number: int) -> str:
    """Return a name such as ZTF26abcdefg, one for each number below 26**7."""
    letters = ""
    number = number * 1_000_003 % 26**7  # coprime to 26, so that no two numbers collide
    for _ in range(7):
        number, letter = divmod(number, 26)
        letters = chr(ord("a") + letter) + letters
    return f"ZTF26{letters}"
