"""What Fink itself adds to every packet, whatever the survey."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.alerts.noise import with_nulls
from tests.alerts.sky import Sightings

FINK_CLASSES = (
    "Unknown",
    "SN candidate",
    "Early SN Ia candidate",
    "Kilonova candidate",
    "Microlensing candidate",
    "Solar System MPC",
    "Solar System candidate",
    "Ambiguous",
    "QSO",
    "RRLyr",
    "EB*",
    "Cepheid/δ Sct",
    "AGN = Seyfert 1/2",
    "Étoile à émission",
)
TNS_CLASSES = ("Unknown", "SN Ia", "SN Ia-91T-like", "SN Ibc/IIb", "SN II", "SLSN-I", "TDE", "Nova=CV?", "LBV → SN IIn")


def broker_columns(seen: Sightings, rng: np.random.Generator) -> dict[str, Any]:
    """Return the columns that the broker adds: times, versions, the date as integers, and classes.

    `rng`: decides the delays, and which alerts have no class.
    Returns: columns by name.
    """
    count = len(seen)
    days = seen.utc.astype("datetime64[D]")
    months = days.astype("datetime64[M]")
    tns = with_nulls(seen.pick(TNS_CLASSES, 11), rng, 0.01)
    return {
        "publisher": ["Fink"] * count,
        "fink_broker_version": ["4.1"] * count,
        "fink_science_version": ["8.41.0"] * count,
        "timestamp": seen.utc_text(),
        "brokerIngestTimestamp": seen.utc_text(60 + 600 * rng.random()),
        "brokerStartProcessTimestamp": seen.utc_text(700 + 60 * rng.random()),
        "brokerEndProcessTimestamp": seen.utc_text(900 + 60 * rng.random()),
        "year": months.astype("datetime64[Y]").astype(int) + 1970,
        "month": months.astype(int) % 12 + 1,
        "day": (days - months).astype(int) + 1,
        "finkclass": with_nulls(seen.pick(FINK_CLASSES, 10), rng, 0.01),
        "tnsclass": tns,
        "tns_type": tns,
        "tns_type_recomputed": tns,
    }
