"""Offsets: half-open ranges and intervals of one partition, and how to cut them. Pure: nothing here talks to Kafka."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

#: Half-open interval ``[start, end)`` of offsets.
Interval = tuple[int, int]


@dataclass(frozen=True, order=True, slots=True)
class OffsetRange:
    """Half-open offsets ``[start, end)`` of one partition; one task consumes one range.

    Raises ValueError if the numbers do not make a range.
    """

    partition: int
    start: int
    #: The offset after the last one.
    end: int

    def __post_init__(self) -> None:
        if self.partition < 0 or self.start < 0 or self.end <= self.start:
            raise ValueError(f"not a range of offsets: {self}")

    def __len__(self) -> int:
        return self.end - self.start

    def __str__(self) -> str:
        return f"partition {self.partition} [{self.start}, {self.end})"

    @property
    def name(self) -> str:
        """Name in the ledger; it sorts in plan order."""
        return f"{self.partition:05d}-{self.start:019d}-{self.end:019d}"


@dataclass(frozen=True)
class Watermarks:
    """What one partition holds."""

    #: The first offset that is still there.
    low: int
    #: The last stable offset: the offset after the last one that a read-committed consumer may read.
    last_stable_offset: int
    #: The first offset that is wanted; what is before it is older than was asked for.
    begin: int = 0
    #: The offset after the last one that is wanted, where there is a record that is newer than was asked for.
    until: int | None = None

    @property
    def start(self) -> int:
        """The first offset that is wanted and still there."""
        return max(self.low, self.begin)

    @property
    def end(self) -> int:
        """The offset after the last one that may be read, and is wanted."""
        return self.last_stable_offset if self.until is None else min(self.last_stable_offset, self.until)


def split(partition: int, start: int, end: int, step: int) -> Iterator[OffsetRange]:
    """Cut ``[start, end)`` into ranges of `step` offsets; the last one may be shorter.

    Raises ValueError if `step` is below 1.
    """
    if step < 1:
        raise ValueError(f"a range holds at least one offset, not {step}")
    for begin in range(start, end, step):
        yield OffsetRange(partition, begin, min(begin + step, end))


def merge(intervals: Iterable[Interval]) -> list[Interval]:
    """Sort intervals and join those that touch or overlap; empty ones vanish."""
    merged: list[Interval] = []
    for start, end in sorted(intervals):
        if end <= start:
            continue
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def subtract(whole: Iterable[Interval], taken: Iterable[Interval]) -> list[Interval]:
    """Return the parts of `whole` that no interval of `taken` covers, merged and in order."""
    rest: list[Interval] = []
    cuts = merge(taken)
    first = 0
    for start, end in merge(whole):
        while first < len(cuts) and cuts[first][1] <= start:
            first += 1
        position = start
        for cut_start, cut_end in islice(cuts, first, None):
            if cut_start >= end:
                break
            if cut_start > position:
                rest.append((position, cut_start))
            position = cut_end
        if position < end:
            rest.append((position, end))
    return rest


def total(intervals: Iterable[Interval]) -> int:
    """Count the offsets of intervals that do not overlap."""
    return sum(end - start for start, end in intervals)
