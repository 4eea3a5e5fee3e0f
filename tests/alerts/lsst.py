"""Made-up alerts with schemas shaped like Fink's LSST packets."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.alerts.lsst_schemas import BANDS, full_schema, light_schema
from tests.alerts.noise import Row, noisy_rows, with_nulls
from tests.alerts.packet import broker_columns
from tests.alerts.schemas import AvroSchema, innermost_type
from tests.alerts.sky import Sightings, history, ids
from tests.alerts.stamps import stamps

#: diaSourceId lies in [2**57, 2**58), as 18-digit numbers do.
_ID_BITS = 57
#: The AB magnitude of a flux of 1 nJy.
_ZERO_POINT = 31.4
#: Pixels along an edge of the cutouts, which then take 12 FITS blocks of 2,880 bytes, or 15 or 16 for the template.
_STAMP_EDGE = 88
_TEMPLATE_EDGES = (100, 103)
_CUTOUTS = ("Difference", "Science", "Template")


def light_alerts(seen: Sightings, rng: np.random.Generator) -> list[Row]:
    """Make a block of light alerts, of about 1.7 kB each.

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
    past = history(seen, rng.integers(0, 68, len(seen)), rng)
    earlier = noisy_rows(
        innermost_type(light_schema(), "prvDiaSources"), len(past.sightings), rng, _photometry(past.sightings, rng)
    )
    known = {
        **_photometry(seen, rng),
        **_about(seen, rng),
        "prvDiaSources": past.split(earlier, rng, missing=0.1),
    }
    return noisy_rows(light_schema(), len(seen), rng, known, nulls=0.05)


def full_alerts(seen: Sightings, rng: np.random.Generator) -> list[Row]:
    """Make a block of full alerts, of about 137 kB each; the few with a long history come to 300 kB.

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
    moving = rng.random(count) < 0.15
    # Most objects are new; a few lie in a field that is observed again and again.
    often = np.where(rng.random(count) < 0.06, rng.integers(200, 360, count), rng.geometric(1 / 32, count))
    sources = history(seen, np.where(moving, 0, often), rng, days=60)
    forced = history(seen, np.where(moving, 0, often + rng.integers(0, 1 + often)), rng, days=60)

    def rows(name: str, of: Sightings, **options: float) -> list[Row]:
        return noisy_rows(innermost_type(schema, name), len(of), rng, _photometry(of, rng), **options)

    made = [stamps(rng, _STAMP_EDGE, _TEMPLATE_EDGES[size]) for size in rng.integers(0, 2, count)]
    known = {
        **about,
        "diaSource": noisy_rows(innermost_type(schema, "diaSource"), count, rng, about),
        "prvDiaSources": _hidden(sources.split(rows("prvDiaSources", sources.sightings), rng, missing=0), moving),
        "prvDiaForcedSources": _hidden(
            forced.split(rows("prvDiaForcedSources", forced.sightings), rng, missing=0), moving
        ),
        "diaObject": _emptied(noisy_rows(innermost_type(schema, "diaObject"), count, rng, about, nulls=0.3), moving),
        "ssSource": _emptied(noisy_rows(innermost_type(schema, "ssSource"), count, rng, about), ~moving),
        "mpc_orbits": _emptied(noisy_rows(innermost_type(schema, "mpc_orbits"), count, rng, about), ~moving),
        "lc_features": _features(innermost_type(schema, "lc_features"), count, rng),
        "brokerIngestMjd": seen.day + seen.fraction + rng.uniform(0.001, 0.002, count),
        **{f"cutout{name}": [getattr(each, name.lower()) for each in made] for name in _CUTOUTS},
        **{
            name: noisy_rows(innermost_type(schema, name), count, rng, about, nulls=0.3)
            for name in ("clf", "xm", "pred", "misc")
        },
    }
    return noisy_rows(schema, count, rng, known)


def _photometry(seen: Sightings, rng: np.random.Generator) -> dict[str, Any]:
    """Return what one exposure measures of each sighting; fluxes are in nJy."""
    count = len(seen)
    band = rng.integers(0, len(BANDS), count)
    flux = 10 ** (0.4 * (_ZERO_POINT - seen.magnitude(band, rng) - 4))
    source_id = ids(seen.number, _ID_BITS)
    mjd_tai = seen.mjd_tai
    return {
        "diaSourceId": source_id,
        "diaForcedSourceId": source_id,
        "diaObjectId": ids(seen.target, _ID_BITS),
        "midpointMjdTai": mjd_tai,
        "timeProcessedMjdTai": mjd_tai + rng.uniform(0.001, 0.002, count),
        "ra": seen.ra + 2e-5 * rng.standard_normal(count),
        "dec": seen.dec + 2e-5 * rng.standard_normal(count),
        "band": [BANDS[index] for index in band.tolist()],
        "psfFlux": (flux * np.where(rng.random(count) < 0.3, -1, 1)).astype(np.float32),
        "psfFluxErr": (100 + 500 * rng.random(count)).astype(np.float32),
        "scienceFlux": with_nulls(
            (1.5 * flux + 300 * rng.standard_normal(count)).astype(np.float32).tolist(), rng, 0.05
        ),
        # As in today's packets: never filled, or not yet.
        **{name: [None] * count for name in ("psfLnL", "trailChi2", "timeWithdrawnMjdTai")},
    }


def _about(seen: Sightings, rng: np.random.Generator) -> dict[str, Any]:
    """Return what is known of each alert beyond its photometry."""
    count = len(seen)
    return {
        **broker_columns(seen, rng),
        "validityStartMjdTai": seen.mjd_tai,
        "firstDiaSourceMjdTai": seen.mjd_tai - rng.uniform(30, 90, count),
        "firstDiaSourceMjdTaiFink": seen.mjd_tai - rng.uniform(30, 90, count),
        "lastDiaSourceMjdTai": seen.mjd_tai,
        "lsst_schema_version": ["lsst.v10_0"] * count,
        "observation_reason": ["ddf_made_up"] * count,
        "target_name": ["ddf_made_up, lowdust"] * count,
        "gaiadr3_DR3Name": with_nulls([f"Gaia DR3 {n}" for n in rng.integers(2**60, 2**62, count)], rng, 0.3),
    }


def _hidden(values: list[Any], where: np.ndarray[Any, np.dtype[np.bool_]]) -> list[Any]:
    """Replace values by null where a condition holds."""
    return [None if hide else value for value, hide in zip(values, where, strict=True)]


def _emptied(rows: list[Row], where: np.ndarray[Any, np.dtype[np.bool_]]) -> list[Row]:
    """Set all fields of a row to null where a condition holds, as these records are not nullable themselves."""
    return [dict.fromkeys(row) if hide else row for row, hide in zip(rows, where, strict=True)]


def _features(schema: AvroSchema, count: int, rng: np.random.Generator) -> list[dict[str, Row] | None]:
    """Return light-curve features in some bands; a map may be empty or null."""
    rows = iter(noisy_rows(schema, len(BANDS) * count, rng, {}, nulls=0, nans=0.1))
    chosen = rng.random((count, len(BANDS))) < 0.6
    maps = [{band: next(rows) for band, take in zip(BANDS, takes, strict=True) if take} for takes in chosen]
    return with_nulls(maps, rng, 0.03)
