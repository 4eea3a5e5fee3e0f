"""Who may decode: more ranges are read at once than there are cores, and a core does best with one at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock
from typing import Self

from fink_dask.errors import InterruptedTransferError

#: Seconds between two looks at whether the range is still wanted.
_LOOK_S = 0.2


class DecodeSlots:
    """The turns that the ranges of a process share: so many at once, first come, first served.

    A semaphore has no order: of many threads that wait and look up now and then, some would wait for minutes.

    `count`: how many turns there are at once.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._queue: deque[Event] = deque()
        self._lock = Lock()

    def take(self, should_stop: Callable[[], bool]) -> None:
        """Wait for a turn.

        Raises InterruptedTransferError if `should_stop` said so.
        """
        with self._lock:
            if self._free:
                self._free -= 1
                return
            mine = Event()
            self._queue.append(mine)
        try:
            while not mine.wait(_LOOK_S):
                if should_stop():
                    raise InterruptedTransferError("stopped")
        except BaseException:
            with self._lock:
                if mine.is_set():
                    self._hand_on()
                else:
                    self._queue.remove(mine)
            raise

    def give(self) -> None:
        """Give a turn back; whoever has waited longest gets it."""
        with self._lock:
            self._hand_on()

    def _hand_on(self) -> None:
        if self._queue:
            self._queue.popleft().set()
        else:
            self._free += 1


class DecodeSlot:
    """The right of a range to decode and write: a context manager that waits for it.

    Meanwhile librdkafka fetches the range's first records. A range whose records come slowly gives its turn away while
    it waits for them, so that many slow partitions are still read at once.

    Raises InterruptedTransferError if `should_stop` said so.
    """

    def __init__(self, turns: DecodeSlots | None = None, should_stop: Callable[[], bool] = lambda: False) -> None:
        # What the ranges of a process share; without it, it is always everybody's turn.
        self._turns = turns
        # Asked several times a second; True ends the wait.
        self._should_stop = should_stop
        self._has_it = False

    def __enter__(self) -> Self:
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        self._give()

    @contextmanager
    def given_away(self) -> Iterator[None]:
        """Let others have the turn while the block lasts."""
        self._give()
        try:
            yield
        finally:
            self._take()

    def _take(self) -> None:
        if self._turns is not None:
            self._turns.take(self._should_stop)
            self._has_it = True

    def _give(self) -> None:
        if self._turns is not None and self._has_it:
            self._has_it = False
            self._turns.give()
