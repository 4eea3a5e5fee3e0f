"""A number of things in words, for everything that is said to somebody."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """Say a number of things: "1 range", "2,000 ranges"; the plural is given where it is not the noun and an s."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {plural or f'{noun}s'}"
