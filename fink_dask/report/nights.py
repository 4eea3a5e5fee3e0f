"""The nights of the alerts: how many alerts each has, and which nights the axis shows if a few are far off."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import date, timedelta
from itertools import accumulate

from fink_dask.units import counted

_DATE_PARTS = ("year", "month", "day")
_EPOCH = date(1970, 1, 1)
#: An axis of this many nights still shows each of them.
_READABLE = 400
#: A longer one is cut if that hides at least this share of its length, and at most this share of the alerts.
_FAR, _FEW = 0.9, 0.05
#: Up to this many nights are named one by one.
_NAMED = 3


def nights_of(keys: Counter[tuple[tuple[str, str], ...]]) -> dict[int | None, float]:
    """Count the alerts of each day since 1970 from the names of directories; None stands for no date."""
    found: dict[int | None, float] = {}
    for levels, count in keys.items():
        named = dict(levels)
        try:
            year, month, day = (int(named[part]) for part in _DATE_PARTS)
            number = date(year, month, day).toordinal() - _EPOCH.toordinal()
        except (KeyError, ValueError):
            found[None] = found.get(None, 0) + count
        else:
            found[number] = found.get(number, 0) + count
    return found


def nights_shown(counts: Mapping[int | None, float]) -> list[int]:
    """Choose the nights for the axis to show: all, unless a few wrong times would squeeze the others into needles.

    Parameters
    ----------
    counts : mapping
        Alerts of each day since 1970; None stands for no time.

    Returns
    -------
    list of int
        All days; or, if that is a small part of the whole, those in and near the shortest period that holds nearly all
        alerts.
    """
    days = sorted(day for day in counts if day is not None)
    if not days or days[-1] - days[0] < _READABLE:
        return days
    sums = [0.0, *accumulate(counts[day] for day in days)]
    most, first = (1 - _FEW) * sums[-1], 0
    length, begin = days[-1] - days[0], days[0]
    for last, day in enumerate(days):
        while sums[last + 1] - sums[first + 1] >= most:
            first += 1
        if sums[last + 1] - sums[first] >= most and day - days[first] < length:
            length, begin = day - days[first], days[first]
    near = max(length, 1)
    shown = [day for day in days if begin - near <= day <= begin + length + near]
    return shown if shown[-1] - shown[0] < (1 - _FAR) * (days[-1] - days[0]) else days


def night_words(counts: Mapping[int | None, float]) -> str:
    """Say which nights these are; then name those that are not shown, and alerts without a time."""
    shown = nights_shown(counts)
    words = " to ".join(dict.fromkeys(_name(day) for day in shown[:1] + shown[-1:]))
    return "; ".join(each for each in (words, far_words(counts), _timeless(counts.get(None, 0))) if each)


def far_words(counts: Mapping[int | None, float]) -> str:
    """Say what is not shown: how many alerts, and on which nights; empty if everything is shown."""
    shown = set(nights_shown(counts))
    far = sorted(day for day in counts if day is not None and day not in shown)
    if len(far) > _NAMED:
        alerts = counted(round(sum(counts[day] for day in far)), "alert")
        return f"{alerts} on {counted(len(far), 'other night')} between {_name(far[0])} and {_name(far[-1])}"
    return ", ".join(f"{counted(round(counts[day]), 'alert')} on {_name(day)}" for day in far)


def _timeless(count: float) -> str:
    return f"{counted(round(count), 'alert')} without a time" if count else ""


def _name(day: int) -> str:
    return str(_EPOCH + timedelta(days=int(day)))
