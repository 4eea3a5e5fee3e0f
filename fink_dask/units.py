"""Counts, bytes, durations, times and rates, read from what users write and said in words, in one way everywhere."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from fink_dask.errors import SettingsError, parameter, shown

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_RATE = re.compile(r"(\d{1,15}(?:\.\d*)?|\.\d+) ?([kKMG]i?)?(B|bit)?(?:/s)?")
_PREFIXES = {"": 1, "k": 1000, "K": 1000, "M": 10**6, "G": 10**9, "ki": 2**10, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
#: Bytes in a unit of memory, as Dask reads them: 4GB, 4G, 512MiB, 512Mi.
_SIZES = {"": 1, "b": 1} | {
    prefix + between + unit: base**power
    for power, prefix in enumerate("kmgtp", 1)
    for between, base in (("", 1000), ("i", 1024))
    for unit in ("", "b")
}
#: Seconds in a unit of time, as Dask reads them: 5m, 2 hours.
_SECONDS = {
    "": 1.0,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "ns": 1e-9,
    "m": 60.0,
    "h": 3600.0,
    "d": 86_400.0,
    "w": 604_800.0,
}
_SECONDS |= {
    f"{word}{plural}": _SECONDS[unit]
    for unit, word in (("s", "second"), ("ms", "millisecond"), ("us", "microsecond"), ("ns", "nanosecond"))
    for plural in ("", "s")
}
_SECONDS |= {f"{word}{plural}": _SECONDS[word[0]] for word in ("minute", "hour", "day", "week") for plural in ("", "s")}
#: With less, the first record of a topic takes minutes: a unit was forgotten.
_LEAST = 1000


def pluralize(number: int, noun: str, plural: str = "") -> str:
    """Say a number of things: "1 range", "2,000 ranges"; give the plural where it is not the noun with an s."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {plural or f'{noun}s'}"


def per_second(number: float, noun: str) -> str:
    """Say how many things there are in a second: "1 alert/s", "47,581 alerts/s"."""
    return f"{pluralize(round(number), noun)}/s"


def format_bytes(size: int) -> str:
    """Say how much room there is or is needed, in bytes: "3.2 kB", "2.1 MB", "1,200.0 GB"."""
    worth, unit = next((each for each in ((1e9, "GB"), (1e6, "MB")) if size >= each[0]), (1e3, "kB"))
    return f"{size / worth:,.1f} {unit}"


def lasting(seconds: float) -> str:
    """Say a duration in its two largest units, from seconds to days: "14 s", "1 min 12 s", "1 d 3 h"."""
    whole = int(seconds)
    for size, unit, smaller, small_unit in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size:,} {unit} {rest} {small_unit}" if rest else f"{whole // size:,} {unit}"
    return f"{max(whole, 0)} s"


def parse_memory(option: str, text: str) -> int:
    """Read an amount of memory such as ``4GB``, ``512MiB`` or ``2e9``.

    Raises SettingsError if it is not one; the error names the option.
    """
    try:
        size = int(_measure(text, _SIZES))
    except (ValueError, KeyError, OverflowError):
        size = 0
    if size < 1:
        raise SettingsError(f"{option} {text[:40]!r} is not an amount of memory such as 4GB or 512MiB")
    return size


def parse_duration(option: str, text: str) -> float:
    """Read a duration such as ``90``, ``90s``, ``5m`` or ``2h``.

    Raises SettingsError if it is not one; the error names the option.
    """
    try:
        seconds = _measure(text, _SECONDS)
    except (ValueError, KeyError, OverflowError):
        seconds = -1.0
    if not seconds >= 0:
        raise SettingsError(f"{option} {text[:40]!r} is not a duration such as 90s, 5m or 2h")
    return seconds


@dataclass(frozen=True)
class Moment:
    """A time, and how it was given."""

    #: Such as ``2026-02-24T03:00``, or ``6h`` for that long ago.
    text: str
    #: With a time zone.
    time: datetime
    #: Whether it was given as how long ago it was.
    is_relative: bool = False

    @property
    def utc(self) -> str:
        """The time as the ledger has it."""
        return self.time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    @property
    def milliseconds(self) -> int:
        """Milliseconds since 1970-01-01 UTC, rounded up: no record of before is of after."""
        return -int((_EPOCH - self.time) / timedelta(milliseconds=1))

    def is_same(self, other: Moment) -> bool:
        """Tell whether this is the same time, or was given in the same words at another."""
        return self.time == other.time or (self.is_relative and self.text == other.text)


def parse_moment(option: str, text: str) -> Moment:
    """Read a time, in UTC unless it has a zone; or how long ago it was."""
    is_relative = False
    try:
        time = datetime.fromisoformat(text)
        time = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    except ValueError:
        is_relative = True
        try:
            time = datetime.now(UTC) - timedelta(seconds=parse_duration(option, text))
        except (SettingsError, OverflowError) as error:
            words = f"{text[:40]!r} is not a time such as 2026-11-23, 2026-11-23T06:00 (UTC), or 6h (ago)"
            raise SettingsError(f"{option}: {words}") from error
    # Kafka takes negative times for something else, and years that end calendars have no UTC in some zones.
    if not 1970 <= time.year < 9999 or time < _EPOCH:
        raise SettingsError(f"{option}: {text[:40]!r} is not between the years 1970 and 9998")
    return Moment(text, time, is_relative)


@dataclass(frozen=True)
class Window:
    """Which records are wanted, by the times at which they came to Kafka."""

    #: From the first record at or after this time on.
    since: Moment | None = None
    #: Up to the first record at or after this time.
    until: Moment | None = None

    def __post_init__(self) -> None:
        if self.since is not None and self.until is not None and self.since.time >= self.until.time:
            raise SettingsError(
                f"{parameter('since', self.since.text)} is not before {parameter('until', self.until.text)}"
            )


def _measure(text: str, units: Mapping[str, float]) -> float:
    """Read a number and its unit; raises ValueError or KeyError where it is none."""
    words = text.replace(" ", "")
    number = words.rstrip(string.ascii_letters)
    return float(number) * units[words[len(number) :].lower()]


def parse_rate(option: str, text: str) -> int:
    """Read a rate such as ``5MB/s``, ``500k`` or ``40Mbit/s``; without a unit it is of bytes.

    Returns: bytes a second.
    Raises SettingsError if it is not one, or hardly one; the error names the option.
    """
    # Mb is refused: some write it for megabits, and others for megabytes, which is eight times as much.
    found = _RATE.fullmatch(text.strip())
    if found is None:
        raise SettingsError(f"{option} {text[:40]!r} is not a rate such as 5MB/s, 500k or 40Mbit/s")
    number, prefix, unit = found.groups()
    rate = int(float(number) * _PREFIXES[prefix or ""] / (8 if unit == "bit" else 1))
    if rate < _LEAST:
        raise SettingsError(f"{option} {text[:40]} is less than 1 kB/s: give a unit, as in 5MB/s, 500k or 40Mbit/s")
    return rate


def rate_words(bytes_per_s: float) -> str:
    """Say a rate as lines are sold, in bits."""
    bits = 8 * bytes_per_s
    for size, unit in ((1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s")):
        if bits >= size:
            return f"{bits / size:.3g} {unit}"
    return f"{bits:.0f} bit/s"


def printable(text: str, most: int = 300) -> str:
    """Make a text from outside safe for a terminal: nothing in it moves the cursor, and its length is bounded."""
    return f"{shown(text[:most])}…" if len(text) > most else shown(text)


def duration_words(seconds: float) -> str:
    """Say how long something is, in the unit that fits: "12 s", "3.5 h", "6.2 d"."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{max(seconds, 0):.0f} s"
