"""Made-up objects of the sky and the times at which a survey sees them.

An object's place, brightness, variability and class follow from its number and the seed alone, so that alerts of the
same object agree whichever call makes them. What varies from alert to alert is noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date

import erfa
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: The golden ratio times 2**64, made odd: multiplying by it permutes the numbers below any power of two.
_ODD = 0x9E3779B97F4A7C15
#: Alerts of one object are this many apart; a prime, so that they fall on different nights.
_STRIDE = 61
_ALERTS_OF_AN_OBJECT = 4
#: Every 50th alert lies within a millisecond of a UTC midnight, alternately before and after it.
_MIDNIGHT_EVERY = 50
_MS_PER_DAY = 86_400_000
#: How often a field is observed that is observed again and again.
_VISITS_A_DAY = 48


@dataclass(frozen=True)
class Sightings:
    """What a block of alerts saw, and when: arrays of one length."""

    #: Number of each alert.
    number: Ints
    #: Number of the object that it is an alert of.
    target: Ints
    #: Modified Julian date of the UTC midnight before it, in days.
    day: Floats
    #: The fraction of that UTC day that has passed, in ``[0, 1)``.
    fraction: Floats
    #: The seed that decides the objects.
    seed: int

    def __len__(self) -> int:
        return len(self.number)

    @property
    def jd(self) -> Floats:
        """UTC Julian dates in days, cut off after seven decimals as ZTF's are."""
        return np.round(erfa.DJM0 + self.day + np.floor(self.fraction * 1e7) / 1e7, 7)

    @property
    def mjd_tai(self) -> Floats:
        """Modified Julian dates in TAI, in days."""
        tai_1, tai_2 = erfa.utctai(erfa.DJM0 + self.day, self.fraction)
        return np.asarray((tai_1 - erfa.DJM0) + tai_2, dtype=np.float64)

    @property
    def utc(self) -> NDArray[np.datetime64]:
        """UTC times, rounded down to the microsecond."""
        unix_epoch = erfa.cal2jd(1970, 1, 1)[1]
        days = (self.day - unix_epoch).astype("timedelta64[D]").astype("timedelta64[us]")
        time_of_day = (self.fraction * _MS_PER_DAY * 1000).astype("timedelta64[us]")
        times: NDArray[np.datetime64] = np.datetime64("1970-01-01", "us") + days + time_of_day
        return times

    def utc_text(self, delay_s: float = 0) -> list[str]:
        """Write the UTC times as Spark writes a timestamp."""
        times = np.datetime_as_string(self.utc + np.timedelta64(int(delay_s * 1e6), "us"))
        return [str(time).replace("T", " ") for time in times]

    @property
    def ra(self) -> Floats:
        """Right ascensions of the objects, in degrees."""
        return 360 * _steady(self.target, self.seed, 1)

    @property
    def dec(self) -> Floats:
        """Declinations of the objects, in degrees."""
        return np.asarray(np.degrees(np.arcsin(1.6 * _steady(self.target, self.seed, 2) - 0.8)), dtype=np.float64)

    def magnitude(self, band: NDArray[np.int64], rng: np.random.Generator) -> Floats:
        """Follow the light curves of the objects, with noise.

        `band`: number of the filter of each sighting.
        """
        mean = 15.5 + 5 * _steady(self.target, self.seed, 3)
        amplitude = 0.05 + _steady(self.target, self.seed, 4)
        period_days = 0.2 + 40 * _steady(self.target, self.seed, 5) ** 3
        colour = 0.8 * _steady(self.target, self.seed, 6) - 0.2
        phase = 2 * np.pi * (self.day + self.fraction) / period_days
        noise = 0.05 * rng.standard_normal(len(self))
        return np.asarray(mean + amplitude * np.sin(phase) - colour * band + noise, dtype=np.float64)

    def trait(self, salt: int) -> Floats:
        """Return a number in [0, 1) for each sighting, which is always the same for an object; see `pick`."""
        return _steady(self.target, self.seed, salt)

    @property
    def visit(self) -> Ints:
        """Numbers of the exposures, so many a day."""
        return np.floor((self.day + self.fraction) * _VISITS_A_DAY).astype(np.int64)

    def visit_trait(self, salt: int) -> Floats:
        """Return a number in [0, 1) for each sighting, which several exposures in turn share."""
        return _steady(self.visit // 3, self.seed, salt)

    def pick(self, values: tuple[str, ...], salt: int) -> list[str]:
        """Assign each object one of some values, always the same; the first is by far the most frequent.

        `salt`: number of the property, so that two properties are independent.
        """
        index = (len(values) * _steady(self.target, self.seed, salt) ** 2).astype(np.int64)
        return [values[i] for i in index]


@dataclass(frozen=True)
class EarlierSightings:
    """Earlier sightings of the objects of a block, oldest first within each alert."""

    #: The earlier sightings of all alerts, one alert after the other.
    sightings: Sightings
    #: Where each alert's sightings end; they start where those of the alert before it end.
    ends: Ints

    def split(self, rows: list[dict[str, object]], rng: np.random.Generator, missing: float) -> list[object]:
        """Cut one list of rows into a list for each alert.

        `rows`: A row for each of the earlier sightings.
        `rng`: decides which alerts have no history at all.
        `missing`: the share of alerts with null instead of the list.
        Returns: A list of rows or None for each alert.
        """
        starts = np.concatenate([[0], self.ends[:-1]])
        absent = rng.random(len(self.ends)) < missing
        return [None if none else rows[start:end] for start, end, none in zip(starts, self.ends, absent, strict=True)]


def sightings(
    first: int, count: int, *, nights: int, first_night: date, seed: int, rng: np.random.Generator
) -> Sightings:
    """Plan what a block of alerts sees: several alerts per object, and the nights in turn.

    `nights`: over how many consecutive UTC days they are spread.
    """
    number = np.arange(first, first + count, dtype=np.int64)
    group, place = np.divmod(number, _STRIDE * _ALERTS_OF_AN_OBJECT)
    fraction = rng.uniform(0.08, 0.54, count)
    midnight = rng.uniform(0.1, 0.9, count) / _MS_PER_DAY
    turn = number // _MIDNIGHT_EVERY % 2 == 0
    fraction = np.where(number % _MIDNIGHT_EVERY == 0, np.where(turn, 1 - midnight, midnight), fraction)
    first_mjd = erfa.cal2jd(first_night.year, first_night.month, first_night.day)[1]
    return Sightings(
        number=number,
        target=group * _STRIDE + place % _STRIDE,
        day=np.asarray(first_mjd + number % nights, dtype=np.float64),
        fraction=np.asarray(fraction, dtype=np.float64),
        seed=seed,
    )


def history(of: Sightings, lengths: Ints, rng: np.random.Generator, days: float = 30) -> EarlierSightings:
    """Plan the earlier sightings of the objects of a block.

    `lengths`: how many earlier sightings each alert carries.
    """
    owner = np.repeat(np.arange(len(of)), lengths)
    age = rng.uniform(0.02, days, len(owner))
    age = age[np.lexsort((-age, owner))]
    carry = np.floor(of.fraction[owner] - age)
    earlier = Sightings(
        number=rng.integers(0, 2**50, len(owner)),
        target=of.target[owner],
        day=of.day[owner] + carry,
        fraction=of.fraction[owner] - age - carry,
        seed=of.seed,
    )
    return EarlierSightings(earlier, np.cumsum(lengths))


def in_visits(past: EarlierSightings) -> EarlierSightings:
    """Move earlier sightings to the nearest earlier exposure, so that objects are seen in the same exposures."""
    seen = past.sightings
    moved = (seen.visit + _steady(seen.visit, seen.seed, 40)) / _VISITS_A_DAY
    return replace(past, sightings=replace(seen, day=np.floor(moved), fraction=moved % 1))


def ids(numbers: Ints, first: int, bits: int) -> Ints:
    """Assign each number its own id, scattered over a range; if the first is odd and large, none survives as a float.

    `first`: ids lie in ``[first, first + 2**(bits + 1))``.
    """
    scattered = (numbers.astype(np.uint64) * np.uint64(_ODD)) & np.uint64(2**bits - 1)
    return (np.uint64(first) + np.uint64(2) * scattered).astype(np.int64)


def _steady(numbers: Ints, seed: int, salt: int) -> Floats:
    """Return a uniform number in [0, 1) for each object: the mixer of SplitMix64 (https://prng.di.unimi.it/splitmix64.c)."""
    mixed = numbers.astype(np.uint64) + np.uint64(((seed * 64 + salt) * _ODD) % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53
