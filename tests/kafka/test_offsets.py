"""Cutting and joining ranges loses no offset and doubles none."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fink_dask.kafka.offsets import Interval, OffsetRange, merge, split, subtract, total

intervals = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12)


def covered(intervals: list[Interval]) -> set[int]:
    return {offset for start, end in intervals for offset in range(start, end)}


def assert_normal(intervals: list[Interval]) -> None:
    assert all(start < end for start, end in intervals)
    assert all(before[1] < after[0] for before, after in pairwise(intervals))


@given(partition=st.integers(0, 99), start=st.integers(0, 1000), length=st.integers(-5, 500), step=st.integers(1, 600))
def test_a_split_holds_every_offset_once_and_in_order(partition: int, start: int, length: int, step: int) -> None:
    ranges = list(split(partition, start, start + length, step))
    found = [offset for offset_range in ranges for offset in range(offset_range.start, offset_range.end)]
    assert found == list(range(start, start + length))
    assert all(len(offset_range) == step for offset_range in ranges[:-1])
    assert all(len(offset_range) <= step and offset_range.partition == partition for offset_range in ranges)


@pytest.mark.parametrize("step", [0, -1])
def test_a_split_into_nothing_is_refused(step: int) -> None:
    with pytest.raises(ValueError, match=str(step)):
        list(split(0, 0, 10, step))


@given(intervals)
def test_merging_keeps_every_offset(some: list[Interval]) -> None:
    merged = merge(some)
    assert_normal(merged)
    assert covered(merged) == covered(some)
    assert total(merged) == len(covered(some))
    assert merge(merged) == merged


@given(intervals, intervals)
def test_what_is_left_and_what_was_taken_make_the_whole(whole: list[Interval], taken: list[Interval]) -> None:
    rest = subtract(whole, taken)
    assert_normal(rest)
    assert covered(rest) == covered(whole) - covered(taken)


@pytest.mark.parametrize("numbers", [(-1, 0, 1), (0, -1, 1), (0, 1, 1), (0, 2, 1)])
def test_what_is_no_range_cannot_be_made(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=rf"{numbers[0]} \[{numbers[1]}, {numbers[2]}\)"):
        OffsetRange(*numbers)


@given(st.lists(st.tuples(st.integers(0, 99999), st.integers(0, 2**63 - 2), st.integers(1, 100)), max_size=20))
def test_names_sort_as_the_plan_does(numbers: list[tuple[int, int, int]]) -> None:
    ranges = sorted(
        OffsetRange(partition, start, min(start + length, 2**63 - 1)) for partition, start, length in numbers
    )
    assert [offset_range.name for offset_range in ranges] == sorted(offset_range.name for offset_range in ranges)
    assert len({offset_range.name for offset_range in ranges}) == len(set(ranges))
