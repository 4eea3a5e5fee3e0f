"""Made-up alerts where surveys see them: in fields, more of them where there are more stars."""

from __future__ import annotations

from typing import Any

import erfa
import numpy as np

from tests.alerts.made_up import AlertKind, made_up_alerts

#: Fields of the survey, and the radius of one in degrees.
_FIELDS, _RADIUS = 160, 4.0
_SOUTHERNMOST = -28.0


def alerts_on_the_sky(kind: AlertKind, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Make alerts up, and put them into the fields of a survey of the northern sky."""
    rng = np.random.default_rng(seed)
    centres = _centres(rng)
    alerts = list(made_up_alerts(kind, count, seed=seed))
    chosen = centres[(len(centres) * rng.random(count) ** 1.5).astype(int)]
    angle, distance = 2 * np.pi * rng.random(count), _RADIUS * np.sqrt(rng.random(count))
    dec = np.clip(chosen[:, 1] + distance * np.sin(angle), -90, 90)
    ra = (chosen[:, 0] + distance * np.cos(angle) / np.maximum(np.cos(np.radians(dec)), 0.05)) % 360
    for alert, *place in zip(alerts, ra.tolist(), dec.tolist(), strict=True):
        for record in (alert, alert.get("candidate"), alert.get("diaSource")):
            if isinstance(record, dict) and "ra" in record:
                record["ra"], record["dec"] = place
    return alerts


def _centres(rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return fields, those near the plane of the Milky Way first."""
    ra = 360 * rng.random(20 * _FIELDS)
    dec = np.degrees(np.arcsin(rng.uniform(np.sin(np.radians(_SOUTHERNMOST)), 1, len(ra))))
    _, latitude = erfa.icrs2g(np.radians(ra), np.radians(dec))
    # The Sun is where nobody observes: this is a night in February.
    is_night = np.abs((ra - 337 + 180) % 360 - 180) > 50
    found = np.column_stack([ra, dec, np.abs(np.degrees(latitude)) + rng.uniform(0, 40, len(ra))])[is_night][:_FIELDS]
    return found[np.argsort(found[:, 2])][:, :2]
