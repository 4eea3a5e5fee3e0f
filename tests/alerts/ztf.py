"""Made-up alerts of ZTF, as Fink's portal sends them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fink_dask.demo.alerts import object_name
from tests.alerts.noise import Noise, Row, with_nulls
from tests.alerts.packet import broker_columns
from tests.alerts.schemas import innermost_type
from tests.alerts.sky import EarlierSightings, Ints, Sightings, history, ids
from tests.alerts.stamps import ztf_stamps
from tests.alerts.ztf_schemas import UPPER_LIMIT, full_schema, light_schema

#: What candid begins with, as 19-digit numbers do, and how many of its bits differ.
_FIRST_CANDID, _ID_BITS = 3_340_000_000_010_000_001, 37
#: Earlier measurements of an alert: at least and at most. Most objects are new, and have been seen once or twice.
_EARLIER, _MOST_EARLIER, _NEW = 8, 80, 0.55
#: The share of upper limits among earlier measurements of real alerts.
_LIMITS = 0.746


def alert_ids(numbers: Ints) -> Ints:
    """Return the candid of the alerts of these numbers, which differ as the numbers do."""
    return ids(numbers, _FIRST_CANDID, _ID_BITS)


def light_alerts(seen: Sightings, rng: np.random.Generator) -> list[Row]:
    """Make a block of light alerts, of about 1 kB each."""
    noise = Noise("ztf", rng)
    known = {**_photometry(seen, rng), **_about(seen, rng), **_added(noise, len(seen), rng)}
    return noise.rows(light_schema(), len(seen), known)


def full_alerts(seen: Sightings, rng: np.random.Generator) -> list[Row]:
    """Make a block of full alerts, of about 54 kB each."""
    noise, schema, count = Noise("ztf", rng), full_schema(), len(seen)
    about = {**_photometry(seen, rng), **_about(seen, rng)}
    candid, pid = about["candid"].tolist(), about["pid"].tolist()
    lengths = _EARLIER + ((_MOST_EARLIER - _EARLIER) * seen.trait(31)).astype(np.int64)
    past = history(seen, lengths, rng)
    known = {
        **about,
        **_added(noise, count, rng),
        "candidate": noise.rows(innermost_type(schema, "candidate"), count, about, "candidate."),
        "prv_candidates": past.split(_earlier(noise, past, rng), rng, missing=0.02),
    }
    made = [ztf_stamps(rng) for _ in candid]
    for name, ending in (("Science", "_pid{}_targ_sci"), ("Template", "_ref"), ("Difference", "_pid{}_targ_refmsci")):
        known[f"cutout{name}"] = [
            {"fileName": f"candid{number}{ending.format(exposure)}.fits.gz", "stampData": getattr(each, name.lower())}
            for number, exposure, each in zip(candid, pid, made, strict=True)
        ]
    return noise.rows(schema, count, known)


def _photometry(seen: Sightings, rng: np.random.Generator) -> dict[str, Any]:
    """Return what one exposure measures of each sighting."""
    count, fid = len(seen), rng.integers(1, 3, len(seen))
    positive = np.array(["f", "t"])[(rng.random(count) < 0.7).astype(int)]
    candid = alert_ids(seen.number)
    return {
        "jd": seen.jd,
        "fid": fid,
        "magpsf": np.round(seen.magnitude(fid, rng), 6).astype(np.float32),
        "sigmapsf": (0.02 + 0.2 * rng.random(count)).astype(np.float32),
        "diffmaglim": (19.5 + 0.5 * rng.standard_normal(count)).astype(np.float32),
        "isdiffpos": positive.tolist(),
        "ra": np.round(seen.ra + 3e-5 * rng.standard_normal(count), 7),
        "dec": np.round(seen.dec + 3e-5 * rng.standard_normal(count), 7),
        "candid": candid,
        "pid": candid // 10**6,
        "pdiffimfilename": _file_names(seen, fid, rng),
        "programpi": ["Kulkarni"] * count,
        # Text that says that there is none, as ZTF has it.
        "ssnamenr": [
            str(100_000 + number) if moves else "null"
            for number, moves in zip(seen.target.tolist(), seen.trait(33) < 0.05, strict=True)
        ],
    }


def _about(seen: Sightings, rng: np.random.Generator) -> dict[str, Any]:
    """Return what is known of each alert beyond its photometry."""
    count = len(seen)
    return {
        **broker_columns(seen, rng),
        "schemavsn": ["4.02"] * count,
        "objectId": [object_name(number) for number in seen.target.tolist()],
        "jdstarthist": np.round(seen.jd - rng.uniform(30, 900, count), 7),
        "jdendhist": seen.jd,
        "tracklet": [None] * count,
        "DR3Name": with_nulls([f"Gaia DR3 {n}" for n in rng.integers(2**60, 2**62, count)], rng, 0.2),
    }


def _added(noise: Noise, count: int, rng: np.random.Generator) -> dict[str, Any]:
    """Return the maps and records that Fink adds."""
    schema = full_schema()
    return {
        "mangrove": [_mangrove(index, rng) for index in range(count)],
        "blazar_stats": [{"m1": -1.0, "m2": -1.0, "m0": -1.0} for _ in range(count)],
        **{
            name: noise.rows(innermost_type(schema, name), count, {}, f"{name}.")
            for name in ("lc_features_g", "lc_features_r")
        },
    }


def _earlier(noise: Noise, past: EarlierSightings, rng: np.random.Generator) -> list[Row]:
    """Return the earlier candidates, most of which are upper limits and hence mostly null."""
    seen, count = past.sightings, len(past.sightings)
    known = _photometry(seen, rng)
    # They have fewer digits than the alert's own.
    digits = {"magpsf": 4, "diffmaglim": 4, "sigmapsf": 6}
    known |= {name: np.round(known[name].astype(np.float64), most).astype(np.float32) for name, most in digits.items()}
    known |= {
        "isdiffpos": np.array(["t", "f", "1", "0"])[rng.integers(0, 4, count)].tolist(),
        "pdiffimfilename": [
            f"/ztf/archive/sci/{name[4:8]}/{name[8:12]}/{name}"
            for name in _file_names(seen, rng.integers(1, 3, count), rng)
        ],
        **{name: [None] * count for name in ("ssdistnr", "ssmagnr", "ssnamenr")},
    }
    rows = noise.rows(
        innermost_type(full_schema(), "prv_candidates"), count, known, "prv_candidates[].", absent=_LIMITS
    )
    for row, limit in zip(rows, _limits(past, rng), strict=True):
        if limit:
            row.update(dict.fromkeys(row.keys() - UPPER_LIMIT))
    return rows


def _limits(past: EarlierSightings, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Choose the upper limits: an object has as many detections as belong to it, and most of them late."""
    seen, starts = past.sightings, np.concatenate([[0], past.ends[:-1]])
    found = np.zeros(len(seen), dtype=bool)
    trait = seen.trait(32)
    for start, end in zip(starts.tolist(), past.ends.tolist(), strict=True):
        count = end - start
        known = trait[start]
        detections = 1 + int(2 * known / _NEW) if known < _NEW else int(count * (known - _NEW) / (1 - _NEW)) or 1
        rank = np.argsort(np.argsort(np.arange(count) / count + 0.4 * rng.random(count)))
        found[start:end] = rank < count - detections
    return found


def _mangrove(index: int, rng: np.random.Generator) -> dict[str, str]:
    """Return a cross-match with a catalogue of galaxies: text, and most often none."""
    distance = f"{rng.uniform(100, 300):.9f}" if index % 7 == 0 else "None"
    return {"HyperLEDA_name": "None", "2MASS_name": "None", "lum_dist": distance, "ang_dist": distance}


def _file_names(seen: Sightings, fid: Ints, rng: np.random.Generator) -> list[str]:
    fields: NDArray[np.int64] = rng.integers(200, 900, len(seen))
    days = np.datetime_as_string(seen.utc, unit="D")
    return [
        f"ztf_{str(day).replace('-', '')}{int(part * 1e6):06}_{field:06}_z{' gr'[band]}_c04_o_q3_scimrefdiffimg.fits"
        for day, part, field, band in zip(days, seen.fraction, fields.tolist(), fid.tolist(), strict=True)
    ]
