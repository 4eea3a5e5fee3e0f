"""Divide the rate that all consumers together may read at among the processes that run their ranges.

Each process keeps to its share by itself, whatever its threads do; so what has to be known is only how many processes
there are at work, and each time that changes, all of them are told.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from threading import Lock


@dataclass(frozen=True)
class Share:
    """What part of the rate a process may use.

    Parameters
    ----------
    number : int
        The later of two shares has the higher one: a range may begin long after it was handed out.
    part : float
        1 for all of it.
    """

    number: int = 0
    part: float = 1.0


class Shares:
    """Knows where ranges run, and what share of the rate each process has.

    Attributes
    ----------
    share : Share
        That of each process, as it was last said.
    """

    def __init__(self) -> None:
        self.share = Share()
        #: The worker that each range was last seen on; none for a range that may begin anywhere.
        self._running: dict[Hashable, str | None] = {}
        self._told: frozenset[str] = frozenset()

    def begin(self, range_: Hashable) -> None:
        """Take note of a range that is handed out, and may begin on any worker."""
        self._running[range_] = None

    def see(self, range_: Hashable, worker: str) -> None:
        """Take note of where a range runs."""
        if range_ in self._running:
            self._running[range_] = worker

    def end(self, range_: Hashable) -> None:
        """Take note of a range that has ended, or has to begin again."""
        self._running.pop(range_, None)

    def divide(self, here: int, coming: int = 0) -> frozenset[str]:
        """Divide the rate again, if it has to be.

        Parameters
        ----------
        here : int
            How many workers there are.
        coming : int
            Ranges that are about to be handed out.

        Returns
        -------
        frozenset of str
            The workers to be told of the new share; none where all know it.
        """
        at_work = frozenset(worker for worker in self._running.values() if worker is not None)
        anywhere = coming + sum(worker is None for worker in self._running.values())
        # A range that was not seen yet may begin where none of the others run.
        processes = max(1, len(at_work), min(len(at_work) + anywhere, here))
        is_new = 1 / processes != self.share.part
        if is_new:
            self.share = Share(self.share.number + 1, 1 / processes)
        # A worker that is new may have begun with an older share, which was larger.
        told, self._told = self._told, at_work
        return at_work if is_new else at_work - told


class Portions:
    """What part of the rate is this process's, for each run that has ranges here; any thread may use it."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[Share, int]] = {}
        self._lock = Lock()

    @property
    def part(self) -> float:
        """The part; the smallest where several runs have ranges here."""
        with self._lock:
            return min((share.part for share, _ in self._of.values()), default=1.0)

    def enter(self, run: str, share: Share) -> None:
        """Take note that a range begins, and of the share that it came with."""
        with self._lock:
            known, ranges = self._of.get(run, (share, 0))
            self._of[run] = (max(known, share, key=lambda each: each.number), ranges + 1)

    def leave(self, run: str) -> None:
        """Take note that a range has ended."""
        with self._lock:
            share, ranges = self._of.pop(run)
            if ranges > 1:
                self._of[run] = (share, ranges - 1)

    def take(self, run: str, share: Share) -> None:
        """Take note of a share that was told, if it is the latest and there are ranges that it concerns."""
        with self._lock:
            if run in self._of and share.number > self._of[run][0].number:
                self._of[run] = (share, self._of[run][1])
