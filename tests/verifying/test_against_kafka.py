"""A sample of a dataset is a fair one, and the same again with the same seed."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.records import Marker
from fink_dask.verifying.against_kafka import _choose

RANGES = [OffsetRange(partition, start, start + 100) for partition in range(4) for start in range(0, 1000, 100)]
MARKERS = [
    Marker("a1b2c3d4", offset_range, "a", 0, 0, (), holes=((offset_range.start, offset_range.end),))
    for offset_range in reversed(RANGES)
]


def chosen(count: int, seed: int = 1, lows: dict[int, int] | None = None) -> list[list[OffsetRange]]:
    found = []
    for stretch in _choose(MARKERS, lows or {}, count, random.Random(seed)):
        assert all(marker.range.start <= part.start < part.end <= marker.range.end for marker, part in stretch)
        found.append([part for _, part in stretch])
    return found


@pytest.mark.parametrize("count", [1, 2, 24, 25, 26, 999, 1000, 3999])
def test_a_sample_holds_as_many_offsets_as_were_asked_for_each_once_and_in_every_part_of_the_topic(count: int) -> None:
    places = [
        (part.partition, offset)
        for stretch in chosen(count)
        for part in stretch
        for offset in range(part.start, part.end)
    ]
    assert len(places) == len(set(places)) == count
    if count >= 24:
        assert {partition for partition, _ in places} == {0, 1, 2, 3}
        assert {offset // 250 for _, offset in places} == {0, 1, 2, 3}


def test_a_large_sample_is_read_in_few_places_and_consecutive_offsets_at_once_whatever_their_ranges() -> None:
    assert 20 <= len(chosen(1000)) <= 35
    for stretch in chosen(1000):
        assert all((a.partition, a.end) == (b.partition, b.start) for a, b in pairwise(stretch))
    assert len(chosen(20)) == 20
    assert len(chosen(10**9)) == 4


def test_the_seed_makes_the_choice_and_what_kafka_has_removed_is_no_part_of_it() -> None:
    assert chosen(100, 1) == chosen(100, 1) != chosen(100, 2)
    lows = {0: 1000, 1: 950}
    parts = [part for stretch in chosen(500, lows=lows) for part in stretch]
    assert sum(map(len, parts)) == 500
    assert all(part.start >= lows.get(part.partition, 0) for part in parts)
