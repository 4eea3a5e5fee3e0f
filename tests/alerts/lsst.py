"""Made-up alerts of LSST, as Fink's portal sends them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.alerts.lsst_schemas import BANDS, full_schema, light_schema
from tests.alerts.noise import Noise, Row, with_nulls
from tests.alerts.packet import broker_columns
from tests.alerts.schemas import innermost_type
from tests.alerts.sky import Ints, Sightings, history, ids, in_visits
from tests.alerts.stamps import lsst_stamps

#: What ids begin with, as 18-digit numbers do, and how many of their bits differ.
_FIRST_SOURCE, _FIRST_OBJECT, _ID_BITS = 170_094_456_000_000_001, 170_028_485_000_000_001, 37
#: The AB magnitude of a flux of 1 nJy.
_ZERO_POINT = 31.4
_CUTOUTS = ("Difference", "Science", "Template")
#: What moves: it is no object of the survey, and has no history.
_MOVING = 0.286
#: Classes of the classifier, as numbers, and what it says of what moves.
_CLASSES, _NO_CLASS = ("11", "13", "21", "22", "12"), -1
#: Objects that have just been found, and the lengths of the histories of others, in a field that is seen often.
_NEW, _HISTORY = 0.15, (300, 400)


def alert_ids(numbers: Ints) -> Ints:
    """Return the diaSourceId of the alerts of these numbers, which differ as the numbers do."""
    return ids(numbers, _FIRST_SOURCE, _ID_BITS)


def light_alerts(seen: Sightings, rng: np.random.Generator) -> list[Row]:
    """Make a block of light alerts, of about 1.3 kB each."""
    noise = Noise("lsst", rng)
    source = noise.rows(
        innermost_type(full_schema(), "diaSource"), len(seen), known := _detection(seen, rng), "diaSource."
    )
    flat = {field: [row[field] for row in source] for field in source[0]}
    return noise.rows(light_schema(), len(seen), {**flat, **known, **_added(noise, seen, rng)})


def full_alerts(seen: Sightings, rng: np.random.Generator) -> list[Row]:
    """Make a block of full alerts, of about 230 kB each; those of what moves have 120 kB."""
    noise, schema, count = Noise("lsst", rng), full_schema(), len(seen)
    about, moving = _detection(seen, rng), _moving(seen)
    fewest, most = _HISTORY
    often = np.where(seen.trait(34) < _NEW, 6 * seen.trait(35), fewest + (most - fewest) * seen.trait(35))
    past = in_visits(history(seen, np.where(moving, 0, often).astype(np.int64), rng, days=60))
    more = often * (1 + 0.6 * seen.trait(36) ** 2)
    forced = in_visits(history(seen, np.where(moving, 0, more).astype(np.int64), rng, days=60))

    def rows(name: str, known: dict[str, Any], path: str, absent: float = 0.0) -> list[Row]:
        return noise.rows(innermost_type(schema, name), len(known["ra"]), known, path, absent)

    middle = zip(about["ra"].tolist(), about["dec"].tolist(), strict=True)
    made = [lsst_stamps(rng, ra, dec) for ra, dec in middle]
    earlier = _photometry(past.sightings, rng) | {"ssObjectId": [None] * len(past.sightings)}
    # Measured where the object was taken to be, and not where something was found.
    again = forced.sightings
    unseen = _photometry(again, rng) | {
        coordinate: values + 2e-5 * again.visit_trait(41)
        for coordinate, values in (("ra", again.ra), ("dec", again.dec))
    }
    known = {
        **about,
        **_added(noise, seen, rng),
        "diaSource": rows("diaSource", about, "diaSource."),
        "prvDiaSources": _hidden(past.split(rows("prvDiaSources", earlier, "prvDiaSources[]."), rng, 0), moving),
        "prvDiaForcedSources": _hidden(
            forced.split(rows("prvDiaForcedSources", unseen, "prvDiaForcedSources[]."), rng, 0),
            moving,
        ),
        "diaObject": _emptied(rows("diaObject", about, "diaObject.", _MOVING), moving),
        "ssSource": _emptied(rows("ssSource", about, "ssSource.", 1 - _MOVING), ~moving),
        "mpc_orbits": _emptied(rows("mpc_orbits", about, "mpc_orbits.", 1 - _MOVING), ~moving),
        **{f"cutout{name}": [getattr(each, name.lower()) for each in made] for name in _CUTOUTS},
    }
    return noise.rows(schema, count, known)


def _photometry(seen: Sightings, rng: np.random.Generator) -> dict[str, Any]:
    """Return what one exposure measures of each sighting; fluxes are in nJy."""
    count = len(seen)
    band = rng.integers(0, len(BANDS), count)
    flux = 10 ** (0.4 * (_ZERO_POINT - seen.magnitude(band, rng) - 4))
    negative = rng.random(count) < 0.11
    source_id = alert_ids(seen.number)
    mjd_tai = seen.mjd_tai
    error = (100 + 500 * rng.random(count)).astype(np.float32)
    return {
        "diaSourceId": source_id,
        "diaForcedSourceId": source_id,
        "diaObjectId": ids(seen.target, _FIRST_OBJECT, _ID_BITS),
        "midpointMjdTai": mjd_tai,
        "visit": 2_026_000_000_000 + seen.visit % 10**9,
        "timeProcessedMjdTai": mjd_tai + rng.uniform(0.001, 0.002, count),
        "ra": seen.ra + 2e-5 * rng.standard_normal(count),
        "dec": seen.dec + 2e-5 * rng.standard_normal(count),
        "band": [BANDS[index] for index in band.tolist()],
        "psfFlux": np.where(negative, -flux, flux).astype(np.float32),
        "psfFluxErr": error,
        "isNegative": negative.tolist(),
        "snr": (flux / error).astype(np.float32),
        "scienceFlux": (1.5 * flux + 300 * rng.standard_normal(count)).astype(np.float32),
        "scienceFluxErr": (1.01 * error).astype(np.float32),
        # As in today's packets: never filled, or not yet.
        **{name: [None] * count for name in ("psfLnL", "trailChi2", "timeWithdrawnMjdTai")},
    }


def _moving(seen: Sightings) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.asarray(seen.trait(37) < _MOVING)


def _detection(seen: Sightings, rng: np.random.Generator) -> dict[str, Any]:
    """Return what is measured and known of the sighting that an alert is about."""
    count, moving, measured = len(seen), _moving(seen), _photometry(seen, rng)
    return {
        **measured,
        **broker_columns(seen, rng),
        "diaObjectId": np.where(moving, 0, measured["diaObjectId"]),
        "ssObjectId": np.where(moving, 21_163_624_000_000_001 + 2 * seen.target, 0),
        "parentDiaSourceId": np.zeros(count, dtype=np.int64),
        "validityStartMjdTai": measured["midpointMjdTai"],
        "brokerIngestMjd": measured["midpointMjdTai"] + rng.uniform(0.001, 0.002, count),
        "lsst_schema_version": ["lsst.v10_0"] * count,
        "observation_reason": ["ddf_made_up"] * count,
        "target_name": ["ddf_made_up, lowdust"] * count,
    }


def _added(noise: Noise, seen: Sightings, rng: np.random.Generator) -> dict[str, Any]:
    """Return what Fink adds: scores, cross-matches, and classes that are numbers."""
    schema, count, moving = full_schema(), len(seen), _moving(seen)
    classes = [_NO_CLASS if moves else int(each) for each, moves in zip(seen.pick(_CLASSES, 12), moving, strict=True)]
    first = np.where(moving, seen.mjd_tai, seen.mjd_tai - 10 - 50 * seen.trait(38))
    known: dict[str, dict[str, Any]] = {
        "clf": {"cats_class": classes},
        "xm": {"gaiadr3_DR3Name": with_nulls([f"Gaia DR3 {n}" for n in rng.integers(2**60, 2**62, count)], rng, 0.3)},
        "pred": {
            "is_sso": moving.tolist(),
            "is_cataloged": (~moving).tolist(),
            "main_label_classifier": classes,
        },
        "misc": {"firstDiaSourceMjdTaiFink": first},
    }
    return {
        **{name: noise.rows(innermost_type(schema, name), count, each, f"{name}.") for name, each in known.items()},
        "lc_features": _features(noise, moving, rng),
    }


def _hidden(values: list[Any], where: np.ndarray[Any, np.dtype[np.bool_]]) -> list[Any]:
    """Replace values by null where a condition holds."""
    return [None if hide else value for value, hide in zip(values, where, strict=True)]


def _emptied(rows: list[Row], where: np.ndarray[Any, np.dtype[np.bool_]]) -> list[Row]:
    """Set all fields of a row to null where a condition holds, as these records are not nullable themselves."""
    return [dict.fromkeys(row) if hide else row for row, hide in zip(rows, where, strict=True)]


def _features(
    noise: Noise, moving: np.ndarray[Any, np.dtype[np.bool_]], rng: np.random.Generator
) -> list[dict[str, Row]]:
    """Return light-curve features in some bands; of what moves, in one."""
    kind, count = innermost_type(full_schema(), "lc_features"), len(moving)
    rows = iter(noise.rows(kind, len(BANDS) * count, {}, "lc_features[]."))
    chosen = rng.random((count, len(BANDS))) < 0.7
    chosen[moving] = False
    chosen[np.arange(count), rng.integers(0, len(BANDS), count)] = True
    return [{band: next(rows) for band, take in zip(BANDS, takes, strict=True) if take} for takes in chosen]
