"""How often a range is tried, when it is tried again, and when Kafka is given up."""

from __future__ import annotations

import time
from collections import Counter

from fink_dask.kafka.offsets import Range
from fink_dask.transfers.events import RangeProgress
from fink_dask.transfers.work import Work

#: How often a range is tried when the cause may pass: an absent broker, a killed worker.
_TRIES = 4
#: Seconds before a range is tried again; doubled each time.
_PAUSE_S = 1.0
#: Seconds for which what has arrived is fresh: a range reports once a second.
_FRESH_S = 2.0


class Tries:
    """Counts the tries at each range of each topic.

    Parameters
    ----------
    excused_s : float
        Seconds after a range's first excused failure in which such tries do not count, if nothing has come for it
        since.
    """

    def __init__(self, excused_s: float = 0.0) -> None:
        self._excused_s = excused_s
        self._excused_since: dict[tuple[str, Range], float] = {}
        self._tries: Counter[tuple[str, Range]] = Counter()
        self._ready_at: dict[tuple[str, Range], float] = {}

    def is_ready(self, item: Work) -> bool:
        """Tell whether the pause after the last try is over."""
        return self._ready_at.get(_key(item), 0.0) <= time.monotonic()

    def begin(self, item: Work) -> None:
        """Count a try."""
        self._tries[_key(item)] += 1

    def allow(self, item: Work) -> bool:
        """Tell whether there may be another try, which then has to wait a little."""
        tries = self._tries[_key(item)]
        if tries >= _TRIES:
            return False
        self._ready_at[_key(item)] = time.monotonic() + _PAUSE_S * 2**tries
        return True

    def see(self, progress: RangeProgress) -> None:
        """Take a report: once something has come for a range, its next failure is the first of its kind."""
        if _is_sign_of_life(progress):
            self._excused_since.pop((progress.topic, progress.range), None)

    def end(self, item: Work) -> None:
        """Forget a range that is done: a topic may be followed for months."""
        for known in (self._tries, self._excused_since, self._ready_at):
            known.pop(_key(item), None)

    def forgive(self, item: Work) -> None:
        """Do not count the last try."""
        self._tries[_key(item)] -= 1

    def excuse(self, item: Work) -> bool:
        """Do not count the last try, unless this has gone on for too long; the next one has to wait a little."""
        now = time.monotonic()
        if now - self._excused_since.setdefault(_key(item), now) >= self._excused_s:
            return False
        self.forgive(item)
        self._ready_at[_key(item)] = now + _PAUSE_S
        return True


class Silence:
    """Tells a Kafka that is gone from one that sends nothing of one partition, or for a moment.

    Parameters
    ----------
    gone_s : float
        Seconds of silence after which Kafka is taken to be gone.
    """

    def __init__(self, gone_s: float) -> None:
        self._gone_s = gone_s
        self._ranges = 0
        self._since = time.monotonic()

    def see(self, progress: RangeProgress) -> None:
        """Take a report: one of something that has just arrived is a sign of life."""
        if _is_sign_of_life(progress):
            self.end()

    def end(self) -> None:
        """Take a sign of life."""
        self._ranges, self._since = 0, time.monotonic()

    def is_final(self, is_last: bool) -> bool:
        """Count a range that gave up; True once the silence has lasted, if it was not the only one that could be read.

        Parameters
        ----------
        is_last : bool
            Whether no other range is left that might be read.
        """
        self._ranges += 1
        return (self._ranges > 1 or is_last) and time.monotonic() - self._since >= self._gone_s - _FRESH_S


def _is_sign_of_life(progress: RangeProgress) -> bool:
    return bool(progress.received) and progress.quiet_s < _FRESH_S


def _key(item: Work) -> tuple[str, Range]:
    return item.topic, item.range
