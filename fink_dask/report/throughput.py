"""What was committed when, and hence how fast; pauses between runs are left out."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fink_dask.progress.profile import STAGES, Profile

Floats = npt.NDArray[np.float64]

#: Seconds without a commit that count as a pause, or so many times the usual gap if commits are rare anyway.
_PAUSE_S = 60.0
_RARE = 20
#: The fewest commits per step of the curve, and the most steps.
_STEP_COMMITS, _STEPS = 3, 100
_MIN_S = 1e-3


@dataclass(frozen=True)
class Commit:
    """A range that became part of the dataset.

    Parameters
    ----------
    at : float
        When, in seconds since 1970-01-01 UTC.
    alerts : int
        Alerts that it held, filtered ones too.
    """

    at: float
    alerts: int


@dataclass(frozen=True)
class Run:
    """A finished run: when it began, in seconds since 1970-01-01 UTC, and where its time went."""

    began: float
    profile: Profile


@dataclass(frozen=True)
class Throughput:
    """How fast it went.

    Parameters
    ----------
    began, ended : float or None
        The first plan, or else the first thing known, and the last commit, in seconds since 1970-01-01 UTC.
    seconds : float
        Working time: that between them, without pauses.
    pauses : int
        Periods in which nothing was committed.
    edges : numpy.ndarray
        Working time, in seconds, at which steps begin and end.
    alerts_per_second : numpy.ndarray
        What was committed in each step.
    stage_seconds : numpy.ndarray
        Seconds of each stage in each step, as far as known: a row for each of `STAGES`.
    """

    began: float | None
    ended: float | None
    seconds: float
    pauses: int
    edges: Floats
    alerts_per_second: Floats
    stage_seconds: Floats


def pace_of(commits: Sequence[Commit], plans: Sequence[float], runs: Sequence[Run] = ()) -> Throughput:
    """Find out how fast a dataset was written.

    Parameters
    ----------
    commits : sequence of Commit
        In any order.
    plans : sequence of float
        When plans were made.
    runs : sequence of Run
        The runs that are known.
    """
    begins = sorted([*plans, *(run.began for run in runs)])
    if not commits:
        nothing = np.empty(0)
        stages = np.empty((len(STAGES), 0))
        return Throughput(min(begins, default=None), None, 0.0, 0, nothing, nothing, stages)
    ordered = sorted(commits, key=lambda commit: commit.at)
    at = np.array([commit.at for commit in ordered])
    gaps = np.diff(at)
    usual = float(np.median(gaps)) if len(gaps) else 0.0
    # The first commit of each stretch of work.
    firsts = np.flatnonzero(np.concatenate([[True], gaps > max(_PAUSE_S, _RARE * usual)]))
    worked = np.zeros(len(at))
    seconds = 0.0
    starts = []
    for number, first in enumerate(firsts):
        last = firsts[number + 1] if number + 1 < len(firsts) else len(at)
        before = at[first - 1] if first else -np.inf
        latest = bisect_right(begins, at[first]) - 1
        has_begun = latest >= 0 and begins[latest] > before
        begin = begins[latest] if has_begun else at[first] - max(usual, _MIN_S)
        if not number:
            begin = min((each for each in begins if each <= at[first]), default=begin)
            began = begin
        starts.append((begin, seconds))
        worked[first:last] = seconds + at[first:last] - begin
        seconds = float(worked[last - 1])
    seconds = max(seconds, _MIN_S)
    edges = np.linspace(0, seconds, int(np.clip(len(at) // _STEP_COMMITS, 1, _STEPS)) + 1)
    step_s = edges[1]
    alerts = np.array([float(each.alerts) for each in ordered])
    alerts_per_second = np.histogram(worked, edges, weights=alerts)[0] / step_s
    # The working time at each moment.
    moments = sorted([*starts, *zip(at.tolist(), worked.tolist(), strict=True)])
    stages = sum((_stages(run, moments, edges) for run in runs), start=np.zeros((len(STAGES), len(edges) - 1)))
    pauses = len(firsts) - 1
    return Throughput(float(began), float(at[-1]), seconds, pauses, edges, alerts_per_second, stages)


def _stages(run: Run, moments: Sequence[tuple[float, float]], edges: Floats) -> Floats:
    """Find what the stages of a run took between the edges; work is spread over the time since the commit before.

    Until the first batch no stage took time: workers were being started.
    """
    steps = run.profile.steps
    if not steps:
        return np.zeros((len(STAGES), len(edges) - 1))
    times, worked = zip(*moments, strict=True)
    untils = [step.until_seconds for step in steps]
    ends = run.began + np.array([min(run.profile.start_seconds, untils[0]), *untils])
    places = np.interp(ends, times, worked)
    rows = []
    for stage in STAGES:
        sums = np.cumsum([0.0, *(step.stage_seconds[stage] for step in steps)])
        so_far = np.interp(edges, places, sums)
        # In case all of it is at the very beginning.
        so_far[0] = 0.0
        rows.append(np.diff(so_far))
    return np.array(rows)
