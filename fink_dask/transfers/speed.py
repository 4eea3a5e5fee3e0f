"""How fast a sum grows lately, also where it grows in few large steps, as over a slow line."""

from __future__ import annotations

import math
from collections import deque
from itertools import pairwise

#: Seconds over which it is measured.
_OVER_S = 20.0
#: The fewest steps that it is measured over, however long they take.
_STEPS = 3
#: What comes within so many seconds is one step: over a slow line, the responses to several consumers come together.
_APART_S = 3.0
#: A step that is quicker than so many seconds is never overdue.
_LEAST_S = 5.0
#: After so many of the longest steps, one is overdue, and there is none under way.
_OVERDUE, _LATE = 1.25, 2.0


class Speed:
    """What a sum gains in a second; it is told the sum whenever that may have grown."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, float]] = deque()
        self._step_began = -math.inf

    def begin(self, now: float, total: float = 0) -> None:
        """Start the clock, if it is not running yet: from here on, what is gained has taken its time."""
        if not self._points:
            self._points.append((now, total))

    def add(self, now: float, total: float) -> None:
        """Take the sum; only one that has grown is a step."""
        points = self._points
        self.begin(now, total)
        if total <= points[-1][1]:
            return
        if len(points) > 1 and now - points[-1][0] > max(_OVER_S, self.late_s()):
            points.clear()  # a pause, of which the line is not slower
        if points and now - self._step_began < _APART_S:
            points.pop()
        else:
            self._step_began = now
        points.append((now, total))
        while len(points) > _STEPS + 1 and points[1][0] <= now - _OVER_S:
            points.popleft()

    def step_s(self) -> float:
        """Return how long a step takes, on average; zero before the first one."""
        points = self._points
        return (points[-1][0] - points[0][0]) / (len(points) - 1) if len(points) > 1 else 0.0

    def late_s(self) -> float:
        """Return how long it may take until the next step; zero before the first one."""
        return _LATE * self._longest_s()

    def is_overdue(self, now: float) -> bool:
        """Tell whether the next step takes longer than usual."""
        return bool(self._points) and now - self._points[-1][0] > max(_LEAST_S, _OVERDUE * self._longest_s())

    def _longest_s(self) -> float:
        times = [time for time, _ in self._points]
        return max((after - before for before, after in pairwise(times)), default=0.0)

    def quiet_s(self, now: float) -> float | None:
        """Return how long ago the last step was; None before the first one."""
        return now - self._points[-1][0] if len(self._points) > 1 else None

    def per_second(self, now: float) -> float:
        """Return the speed; zero before the first step, and when no other came for long."""
        points, step_s = self._points, self.step_s()
        if len(points) < 2 or now - points[-1][0] > max(_OVER_S, self.late_s()):
            return 0.0
        # A step is not late before it has taken longer than usual.
        until = max(points[-1][0], now - step_s)
        return (points[-1][1] - points[0][1]) / max(until - points[0][0], 1e-3)
