"""Rates of a line, as users write and read them."""

from __future__ import annotations

import re

from fink_dask.errors import SettingsError

_RATE = re.compile(r"(\d{1,15}(?:\.\d*)?|\.\d+) ?([kKMG]i?)?(B|bit)?(?:/s)?")
_PREFIXES = {"": 1, "k": 1000, "K": 1000, "M": 10**6, "G": 10**9, "ki": 2**10, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
#: With less, the first record of a topic takes minutes: a unit was forgotten.
_LEAST = 1000


def parse_rate(option: str, text: str) -> int:
    """Read a rate such as ``5MB/s``, ``500k`` or ``40Mbit/s``; without a unit it is of bytes.

    Returns
    -------
    int
        Bytes a second.

    Raises
    ------
    SettingsError
        If it is not one, or hardly one; the error names the option.
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
