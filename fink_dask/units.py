"""A number of things, of bytes or of seconds in words, for every message to a user."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """Say a number of things: "1 range", "2,000 ranges"; give the plural where it is not the noun with an s."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {plural or f'{noun}s'}"


def per_second(number: float, noun: str) -> str:
    """Say how many things there are in a second: "1 alert/s", "47,581 alerts/s"."""
    return f"{counted(round(number), noun)}/s"


def amount(size: int) -> str:
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
