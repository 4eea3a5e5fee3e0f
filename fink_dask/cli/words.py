"""Numbers and nouns."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Say a number of things: "1 range", "2,000 ranges"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
