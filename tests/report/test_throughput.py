"""How fast a dataset came to be, where there were pauses as well."""

from __future__ import annotations

import numpy as np
import pytest

from fink_dask.report.facts import Commit, pace_of


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


def test_commits_before_every_known_begin_or_all_at_once_are_no_error() -> None:
    pace = pace_of(commits(*[5.0] * 9), [100.0])
    assert pace.seconds > 0
    assert np.isfinite(pace.alerts_per_second).all()
