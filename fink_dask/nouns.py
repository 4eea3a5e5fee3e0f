"""A number of things in words, for every message to a user."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """Say a number of things: "1 range", "2,000 ranges"; give the plural where it is not the noun with an s."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {plural or f'{noun}s'}"
