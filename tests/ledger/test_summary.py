"""A summary never says that a dataset is complete when it is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.records import DataFile, Marker, Plan
from fink_dask.ledger.summary import Summary, completeness_of
from tests.harness.ledgers import make_plan

RANGES = [OffsetRange(0, 0, 10), OffsetRange(0, 10, 20), OffsetRange(1, 5, 9), OffsetRange(7, 0, 3)]
PLANS = [make_plan(RANGES[:3]), make_plan(RANGES[3:], generation=2)]


def make_marker(offset_range: OffsetRange, plan: Plan, **changes: Any) -> Marker:
    """Make the marker of a range that wrote one file, or nothing but what `changes` say."""
    files = (DataFile(offset_range.name, "a", len(offset_range), 50, "00"),)
    marker = Marker(plan.plan_id, offset_range, "0", len(offset_range), 100, files)
    return replace(marker, rows=0, files=(), **changes) if changes else marker


OUTCOMES: list[tuple[list[int], dict[str, Any], str, int]] = [
    ([], {}, "interrupted", 1),
    ([0, 1, 2], {}, "interrupted", 1),
    ([0, 1, 2, 3], {}, "complete", 0),
    ([0, 1, 2, 3], {"holes": ((0, 3),)}, "complete", 0),
    ([0, 1, 2, 3], {"filtered": 3}, "complete", 0),
    ([0, 1, 2, 3], {"lost": ((0, 3),)}, "partial", 3),
    ([0, 1, 2, 3], {"quarantined": 3, "quarantine": DataFile("q", "q", 3, 1, "00")}, "partial", 3),
    ([1, 3], {"lost": ((0, 3),)}, "interrupted", 1),
]


@pytest.mark.parametrize(("committed", "last", "state", "exit_code"), OUTCOMES)
def test_a_state_says_what_became_of_every_offset(
    committed: list[int], last: dict[str, Any], state: str, exit_code: int
) -> None:
    markers = [make_marker(RANGES[index], PLANS[0], **(last if index == 3 else {})) for index in committed]
    summary = completeness_of(PLANS, markers).summary
    assert (summary.state, summary.exit_code) == (state, exit_code)


@given(st.sets(st.integers(0, 3)))
def test_what_is_missing_and_what_is_there_make_the_plan(committed: set[int]) -> None:
    completeness = completeness_of(PLANS, [make_marker(RANGES[index], PLANS[0]) for index in sorted(committed)])
    assert completeness.summary.alerts + completeness.missing_offsets == completeness.planned_offsets == 27
    assert completeness.summary.ranges == completeness.summary.files == len(committed)
    assert (completeness.planned_ranges, completeness.summary.written_bytes) == (4, 50 * len(committed))
    assert all(completeness.missing.values())


def test_a_loss_is_told_by_partition() -> None:
    markers = [
        make_marker(offset_range, PLANS[0], lost=((offset_range.start, offset_range.end),)) for offset_range in RANGES
    ]
    completeness = completeness_of(PLANS, markers)
    assert completeness.lost == {0: [(0, 20)], 1: [(5, 9)], 7: [(0, 3)]}
    assert completeness.summary.lost == 27


@pytest.mark.parametrize("state", ["failed", "interrupted"])
def test_what_is_not_finished_is_no_success_to_a_script(state: Any) -> None:
    assert Summary("topic", state).exit_code == 1
