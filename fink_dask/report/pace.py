"""What was committed when, and so how fast: pauses between runs are left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

#: Seconds without a commit that are a pause, where commits are not rare anyhow.
_PAUSE_S = 60.0
_RARE = 20
#: Commits of a step of the curve, at least, and steps of it at most.
_STEP_COMMITS, _STEPS = 3, 100
_LEAST_S = 1e-3


@dataclass(frozen=True)
class Commit:
    """A range became part of the dataset.

    Parameters
    ----------
    at : float
        When, in seconds since 1970-01-01 UTC.
    alerts, raw_bytes : int
        What was read for it.
    """

    at: float
    alerts: int
    raw_bytes: int


@dataclass(frozen=True)
class Pace:
    """How fast it went.

    Parameters
    ----------
    began, ended : float or None
        The first plan, or what is known to be first, and the last commit, in seconds since 1970-01-01 UTC.
    seconds : float
        Time at work, pauses left out.
    pauses : int
        Times in which nothing was committed.
    edges : numpy.ndarray
        Seconds at work at which steps begin and end.
    alerts_per_second, bytes_per_second : numpy.ndarray
        What was committed in each step.
    """

    began: float | None
    ended: float | None
    seconds: float
    pauses: int
    edges: Floats
    alerts_per_second: Floats
    bytes_per_second: Floats


def pace_of(commits: Sequence[Commit], begins: Sequence[float]) -> Pace:
    """Find out how fast a dataset came to be.

    Parameters
    ----------
    commits : sequence of Commit
        In any order.
    begins : sequence of float
        When runs are known to have begun, or plans to have been made.
    """
    if not commits:
        return Pace(min(begins, default=None), None, 0.0, 0, *(np.empty(0) for _ in range(3)))
    ordered = sorted(commits, key=lambda commit: commit.at)
    at = np.array([commit.at for commit in ordered])
    gaps = np.diff(at)
    usual = float(np.median(gaps)) if len(gaps) else 0.0
    # Where each stretch of work has its first commit.
    firsts = np.flatnonzero(np.concatenate([[True], gaps > max(_PAUSE_S, _RARE * usual)]))
    worked = np.zeros(len(at))
    seconds = 0.0
    for number, first in enumerate(firsts):
        last = firsts[number + 1] if number + 1 < len(firsts) else len(at)
        before = at[first - 1] if first else -np.inf
        begin = max((each for each in begins if before < each <= at[first]), default=at[first] - max(usual, _LEAST_S))
        if not number:
            begin = min((each for each in begins if each <= at[first]), default=begin)
            began = begin
        worked[first:last] = seconds + at[first:last] - begin
        seconds = float(worked[last - 1])
    seconds = max(seconds, _LEAST_S)
    edges = np.linspace(0, seconds, int(np.clip(len(at) // _STEP_COMMITS, 1, _STEPS)) + 1)
    step_s = edges[1]
    sums = [
        np.histogram(worked, edges, weights=np.array([float(value) for value in values]))[0] / step_s
        for values in ([each.alerts for each in ordered], [each.raw_bytes for each in ordered])
    ]
    return Pace(float(began), float(at[-1]), seconds, len(firsts) - 1, edges, *sums)
