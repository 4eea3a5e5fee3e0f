"""A plan holds every offset once, is as large as was asked for, and continues nothing else."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fink_dask.errors import LedgerError
from fink_dask.kafka.offsets import OffsetRange, Watermarks
from fink_dask.ledger.records import Identity, Plan
from fink_dask.planning.plan import (
    Generations,
    PlannedWindow,
    Sizing,
    alerts_at_most,
    next_plan,
    planned_ends,
    removed_heads,
    spans_to_plan,
    still_there,
    window_to_plan,
)
from fink_dask.settings import RANGE_BYTES, SMALLEST_RANGE_BYTES
from fink_dask.units import parse_moment

IDENTITY = Identity("topic", "id", ("time",), "ztf", "00", "file")

offsets = st.integers(0, 3000)
spans = st.dictionaries(
    st.integers(0, 20), st.tuples(offsets, st.integers(1, 500)).map(lambda pair: (pair[0], sum(pair))), max_size=8
)
sizings = st.builds(
    Sizing,
    range_bytes=st.integers(1, 2**40),
    nconsumers=st.integers(1, 64),
    mean_bytes=st.dictionaries(st.integers(0, 20), st.floats(0, 1e8), max_size=8),
)


def places(ranges: tuple[OffsetRange, ...]) -> list[tuple[int, int]]:
    return [
        (offset_range.partition, offset)
        for offset_range in ranges
        for offset in range(offset_range.start, offset_range.end)
    ]


@given(spans=spans, sizing=sizings, room=st.none() | st.integers(-5, 5000))
def test_every_offset_is_planned_once_and_in_order_up_to_the_limit(
    spans: dict[int, tuple[int, int]], sizing: Sizing, room: int | None
) -> None:
    plan = next_plan(1, IDENTITY, spans, sizing, room)
    whole = [(partition, offset) for partition, span in sorted(spans.items()) for offset in range(*span)]
    expected = whole if room is None else whole[: max(room, 0)]
    assert (places(plan.ranges) if plan is not None else []) == expected
    assert (plan is None) == (not expected)


@given(spans=spans, sizing=sizings)
def test_no_range_is_larger_than_asked_for(spans: dict[int, tuple[int, int]], sizing: Sizing) -> None:
    plan = next_plan(1, IDENTITY, spans, sizing, None)
    for offset_range in plan.ranges if plan is not None else ():
        assert len(offset_range) == 1 or len(offset_range) * sizing.of(offset_range.partition) <= sizing.range_bytes


@given(st.integers(1, 64), st.integers(1, 10**7))
def test_every_consumer_has_work_as_long_as_ranges_are_not_too_small(nconsumers: int, records: int) -> None:
    sizing = Sizing(2**62, nconsumers, {0: 50_000.0})
    plan = next_plan(1, IDENTITY, {0: (0, records)}, sizing, None)
    assert plan is not None
    large_enough = 50_000 * records / nconsumers >= 2 * SMALLEST_RANGE_BYTES + 100_000
    assert len(plan.ranges) >= nconsumers or not large_enough
    assert len(plan.ranges) <= 2 * nconsumers + 1 + records * 50_000 // (SMALLEST_RANGE_BYTES // 2)


def test_the_order_in_which_kafka_names_partitions_does_not_matter() -> None:
    sizing = Sizing(100, 2, {})
    assert next_plan(1, IDENTITY, {1: (0, 5), 0: (2, 4)}, sizing, None) == next_plan(
        1, IDENTITY, {0: (2, 4), 1: (0, 5)}, sizing, None
    )


MEANS: list[tuple[dict[int, float], float]] = [({0: 10.0}, 10.0), ({1: 10.0, 2: 30.0}, 20.0), ({0: 0.0}, 1.0)]


@pytest.mark.parametrize(("means", "expected"), MEANS)
def test_a_partition_without_a_sample_is_taken_for_the_mean_of_the_others(
    means: dict[int, float], expected: float
) -> None:
    assert Sizing(1, 1, means).of(0) == expected


def test_a_try_never_costs_much_more_than_a_range_holds_where_keys_are_larger_than_alerts() -> None:
    span = {0: (0, 1_000_000)}
    light = next_plan(1, IDENTITY, span, Sizing(RANGE_BYTES, 1, {0: 1000.0}, {0: 1020.0}), None)
    heavy = next_plan(1, IDENTITY, span, Sizing(RANGE_BYTES, 1, {0: 1000.0}, {0: 51_000.0}), None)
    assert light is not None
    assert heavy is not None
    assert max(len(offset_range) * 51_000 for offset_range in heavy.ranges) <= 4 * RANGE_BYTES
    assert max(len(offset_range) for offset_range in light.ranges) > 10 * max(
        len(offset_range) for offset_range in heavy.ranges
    )
    # What is written is estimated from the alerts alone.
    assert heavy.estimated_bytes == light.estimated_bytes == 10**9


def test_a_size_that_nobody_knows_is_not_guessed_at() -> None:
    plan = next_plan(1, IDENTITY, {0: (0, 100)}, Sizing(RANGE_BYTES, 1, {}), None)
    assert plan is not None
    assert plan.estimated_bytes == 0


PLANNED = [
    Plan(1, IDENTITY, (OffsetRange(0, 5, 10), OffsetRange(1, 0, 3)), 0),
    Plan(2, IDENTITY, (OffsetRange(0, 10, 12),), 0),
]
Spans = dict[int, tuple[int, int]]
GROWTH: list[tuple[Spans, Spans, Spans]] = [
    ({0: (5, 12), 1: (0, 3)}, {}, {}),
    ({0: (5, 20), 1: (0, 3)}, {0: (12, 20)}, {}),
    ({0: (12, 12), 1: (3, 3)}, {}, {}),
    # Retention took what was never planned: it is planned all the same, so that its loss is declared.
    ({0: (15, 20), 1: (0, 4)}, {0: (15, 20), 1: (3, 4)}, {0: (12, 15)}),
    ({0: (20, 20), 1: (0, 3)}, {}, {0: (12, 20)}),
    ({0: (5, 12), 1: (0, 3), 2: (7, 9)}, {2: (7, 9)}, {2: (0, 7)}),
]


@pytest.mark.parametrize(("watermarks", "expected", "removed"), GROWTH)
def test_what_came_since_is_planned_and_what_went_since_too(watermarks: Spans, expected: Spans, removed: Spans) -> None:
    marks = {partition: Watermarks(*pair) for partition, pair in watermarks.items()}
    assert spans_to_plan(marks, planned_ends(PLANNED), "topic") == expected
    assert removed_heads(marks, planned_ends(PLANNED)) == removed


SINCE = replace(IDENTITY, since="2026-02-24T00:00:00.000Z")
FIRST = Plan(1, SINCE, (OffsetRange(0, 8, 10),), 0, begins=((0, 8), (1, 3), (2, 0)))
WINDOWS: list[tuple[dict[int, Watermarks], Spans, Spans]] = [
    ({0: Watermarks(0, 10, begin=4), 1: Watermarks(0, 3), 2: Watermarks(0, 0)}, {}, {}),
    # Partition 3 was added later, so all of it is of that time.
    ({0: Watermarks(0, 12), 1: Watermarks(1, 5), 2: Watermarks(0, 9), 3: Watermarks(0, 2, begin=1)},
     {0: (10, 12), 1: (3, 5), 2: (0, 9), 3: (0, 2)}, {}),
    ({0: Watermarks(9, 12, until=11), 1: Watermarks(4, 5), 2: Watermarks(2, 9, until=2)},
     {0: (10, 11), 1: (4, 5)}, {1: (3, 4), 2: (0, 2)}),
]  # fmt: skip


@pytest.mark.parametrize(("marks", "expected", "removed"), WINDOWS)
def test_what_is_of_another_time_is_neither_planned_nor_lost(
    marks: dict[int, Watermarks], expected: Spans, removed: Spans
) -> None:
    ends = planned_ends([FIRST])
    assert ends == {0: 10, 1: 3, 2: 0}
    assert spans_to_plan(marks, ends, "topic") == expected
    assert removed_heads(marks, ends) == removed


def test_the_first_plan_says_where_the_time_begins_and_later_ones_where_it_ended() -> None:
    marks = {0: Watermarks(0, 12, begin=8), 1: Watermarks(5, 5, begin=0)}
    assert spans_to_plan(marks, {}, "topic") == {0: (8, 12)}
    assert removed_heads(marks, {}) == {1: (0, 5)}, "the oldest that is left is of that time: more may have been"
    until = parse_moment("until", "2026-02-25")
    assert window_to_plan(SINCE, True, marks, until) == PlannedWindow(((0, 8), (1, 0)), "2026-02-25T00:00:00.000Z")
    assert window_to_plan(SINCE, False, marks, None) == window_to_plan(IDENTITY, True, marks, None) == PlannedWindow()


def test_what_is_gone_is_planned_in_ranges_of_its_own_and_takes_no_room() -> None:
    plan = next_plan(1, IDENTITY, {0: (70, 100), 1: (0, 10)}, Sizing(2**40, 1, {}), 5, {0: (0, 70), 2: (0, 8)})
    assert plan is not None
    assert plan.ranges == (OffsetRange(0, 0, 70), OffsetRange(0, 70, 75), OffsetRange(2, 0, 8))
    marks = {0: Watermarks(70, 100), 1: Watermarks(0, 10), 2: Watermarks(8, 8)}
    assert still_there(plan.ranges, marks) == alerts_at_most([plan], [], marks) == 5


@pytest.mark.parametrize("watermarks", [{}, {0: (0, 11), 1: (0, 3)}, {0: (5, 12)}])
def test_a_topic_that_holds_less_than_was_planned_is_refused(watermarks: dict[int, tuple[int, int]]) -> None:
    marks = {partition: Watermarks(*pair) for partition, pair in watermarks.items()}
    with pytest.raises(LedgerError, match="truncated") as caught:
        spans_to_plan(marks, planned_ends(PLANNED), "topic")
    assert caught.value.topic == "topic"


@given(spans=spans, more=spans, sizing=sizings, room=st.none() | st.integers(1, 300))
def test_generations_of_the_plan_hold_what_the_topic_held_in_the_end(
    spans: dict[int, tuple[int, int]], more: dict[int, tuple[int, int]], sizing: Sizing, room: int | None
) -> None:
    plans: list[Plan] = []
    marks: dict[int, Watermarks] = {}
    for now in (spans, spans, more):
        for partition, (low, stable) in now.items():
            before = marks.get(partition)
            marks[partition] = (
                Watermarks(low, stable)
                if before is None
                else Watermarks(before.low, max(before.last_stable_offset, stable))
            )
        plan = next_plan(len(plans) + 1, IDENTITY, spans_to_plan(marks, planned_ends(plans), "topic"), sizing, room)
        plans += [plan] if plan is not None else []
    while (
        last := next_plan(9, IDENTITY, spans_to_plan(marks, planned_ends(plans), "topic"), sizing, None)
    ) is not None:
        plans.append(last)
    found = sorted(place for plan in plans for place in places(plan.ranges))
    assert found == sorted(
        (p, offset) for p, mark in marks.items() for offset in range(mark.low, mark.last_stable_offset)
    )
    assert planned_ends(plans) == {partition: mark.last_stable_offset for partition, mark in marks.items()}


def test_a_topic_that_is_followed_for_months_fills_no_memory_with_its_plans() -> None:
    more = replace(IDENTITY, more_schemas=("11",))
    plans = [Plan(number, more, (OffsetRange(0, number, number + 1),), 0) for number in range(1, 50)]
    ids, held = {plan.plan_id for plan in plans}, [weakref.ref(plan) for plan in plans]
    generations = Generations(plans)
    del plans
    gc.collect()
    assert [plan for plan in held if plan() is not None] == []
    assert (generations.ids, generations.count, generations.more_schemas) == (ids, 49, 1)
