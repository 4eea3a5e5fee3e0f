"""The steps of a profile add up to its sums, however long a run is, and what is no profile is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fink_dask.errors import LedgerError
from fink_dask.kafka.offsets import Range
from fink_dask.progress.events import RangeCommitted
from fink_dask.progress.profile import STAGES, Profile, Profiler


def profile_of(ranges: int) -> Profile:
    """Commit so many ranges, whose times tell them apart."""
    profiler = Profiler(lambda _: None)
    for number in range(ranges):
        seconds = dict.fromkeys(STAGES, 0.25) | {"poll": float(number)}
        profiler(RangeCommitted("topic", Range(0, number, number + 1), 1, 10, seconds))
    return profiler.profile()


@pytest.mark.parametrize("ranges", [0, 1, 7, 200, 201, 5001])
def test_a_profile_is_small_however_many_ranges_a_run_has_and_its_steps_add_up(ranges: int) -> None:
    profile = profile_of(ranges)
    assert Profile.from_json(json.loads(json.dumps(profile.to_json()))) == profile
    assert min(ranges, 100) <= len(profile.steps) <= 200
    assert sorted(step.until_seconds for step in profile.steps) == [step.until_seconds for step in profile.steps]
    for stage in STAGES:
        assert sum(step.stage_seconds[stage] for step in profile.steps) == pytest.approx(profile.stage_seconds[stage])
    polls = [step.stage_seconds["poll"] for step in profile.steps]
    assert polls[:-1] == sorted(polls[:-1])  # in the order of the ranges


def test_a_profile_without_steps_is_one_and_steps_that_are_none_are_refused() -> None:
    content = profile_of(2).to_json()
    del content["steps"]
    assert Profile.from_json(content).steps == ()
    step: dict[str, Any] = {"until_seconds": 2.0, "stage_seconds": {"poll": 1.0}}
    for steps in (
        [step, step | {"until_seconds": 1.0}],
        [step | {"until_seconds": "never"}],
        [step | {"stage_seconds": {"poll": float("nan")}}],
        [step | {"until_seconds": 1e300}],
        [{"until_seconds": 1.0}],
        7,
    ):
        with pytest.raises(LedgerError):
            Profile.from_json(content | {"steps": steps})
