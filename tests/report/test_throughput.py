"""How fast a dataset came to be, where there were pauses as well."""

from __future__ import annotations

import numpy as np
import pytest

from fink_dask.progress.profile import STAGES, Profile, ProfileStep
from fink_dask.report.facts import Commit, Run, pace_of


def commits(*at: float) -> list[Commit]:
    return [Commit(each, 100) for each in at]


def test_a_run_without_a_pause_has_all_its_alerts_in_its_time() -> None:
    pace = pace_of(commits(*np.arange(1001.0, 1061.0)), [1000.0])
    assert (pace.began, pace.ended, pace.seconds, pace.pauses) == (1000, 1060, 60, 0)
    steps = np.diff(pace.edges)
    assert (pace.alerts_per_second * steps).sum() == pytest.approx(6000)
    assert pace.alerts_per_second == pytest.approx(np.full(20, 100), rel=0.5)


def test_nights_without_a_run_are_no_time_at_work() -> None:
    first, second = np.arange(1.0, 11.0), 86_400 + np.arange(1.0, 6.0)
    pace = pace_of(commits(*first, *second), [0.0, 86_400.0])
    assert (pace.seconds, pace.pauses, pace.began, pace.ended) == (15, 1, 0, 86_405)


def test_a_pause_whose_end_nobody_noted_costs_no_more_than_a_usual_step() -> None:
    pace = pace_of(commits(1, 2, 3, 5000, 5001), [0.0])
    assert pace.seconds == pytest.approx(3 + 2)
    assert pace.pauses == 1


@pytest.mark.parametrize("begins", [[], [50.0]])
def test_one_commit_and_none_are_no_error(begins: list[float]) -> None:
    assert pace_of([], begins).seconds == 0
    pace = pace_of(commits(60.0), begins)
    assert pace.seconds > 0
    assert len(pace.alerts_per_second) == 1
    assert pace.stage_seconds.shape == (len(STAGES), 1)


def test_commits_before_every_known_begin_or_all_at_once_are_no_error() -> None:
    pace = pace_of(commits(*[5.0] * 9), [100.0])
    assert pace.seconds > 0
    assert np.isfinite(pace.alerts_per_second).all()


def run(began: float, seconds: float, *steps: tuple[float, str, float], start_s: float = 0.0) -> Run:
    """Make a run whose ranges took one stage each: until when, which one, and how long."""
    made = [ProfileStep(until, dict.fromkeys(STAGES, 0.0) | {stage: took}) for until, stage, took in steps]
    return Run(
        began, Profile(start_s, seconds - start_s, 0.0, dict.fromkeys(STAGES, 0.0), len(made), 0, 0, tuple(made))
    )


def test_the_stages_of_a_step_of_the_curve_are_those_of_the_ranges_that_were_committed_in_it() -> None:
    stages = ["poll"] * 6 + ["write"] * 6
    steps = [(float(number + 1), stage, 2.0) for number, stage in enumerate(stages)]
    pace = pace_of(commits(*np.arange(1001.0, 1013.0)), [1000.0], [run(1000, 12, *steps)])
    assert pace.edges == pytest.approx([0, 3, 6, 9, 12])
    found = dict(zip(STAGES, pace.stage_seconds, strict=True))
    assert found["poll"] == pytest.approx([6, 6, 0, 0])
    assert found["write"] == pytest.approx([0, 0, 6, 6])
    assert pace.stage_seconds.sum() == pytest.approx(24)


def test_stages_of_a_run_that_kept_none_are_not_made_up_and_a_pause_has_none() -> None:
    first, second = np.arange(1.0, 7.0), 86_400 + np.arange(1.0, 7.0)
    steps = [(float(number), "decode", 1.0) for number in range(1, 7)]
    pace = pace_of(commits(*first, *second), [0.0], [run(0, 6), run(86_400, 6, *steps)])
    assert (pace.seconds, pace.pauses) == (12, 1)
    assert pace.stage_seconds.sum(axis=0) == pytest.approx([0, 0, 3, 3])


def test_ranges_that_were_all_committed_at_once_lose_none_of_their_stages() -> None:
    pace = pace_of(commits(*[5.0] * 9), [4.0], [run(4, 1, *[(1.0, "poll", 1.0)] * 9)])
    assert pace.stage_seconds.sum() == pytest.approx(9)


def test_while_workers_were_started_there_were_no_stages() -> None:
    at = np.arange(7.0, 13.0)
    pace = pace_of(commits(*at), [0.0], [run(0, 12, *[(each, "poll", 1.0) for each in at], start_s=6.0)])
    assert pace.stage_seconds.sum(axis=0) == pytest.approx([0, 6])
