"""Who may decode: more ranges are read at once than there are cores, and a core does best with one at a time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock
from typing import Self

from fink_dask.errors import InterruptedTransferError

#: Seconds between two looks at whether the range is still wanted, and whether it may begin.
_LOOK_S = 0.1
#: A turn that nobody has taken for so many seconds says that the ranges in the making wait for Kafka, not for cores.
_IDLE_S = 0.1


class DecodeSlots:
    """The turns that the ranges of a process share: so many at once, first come, first served.

    A semaphore has no order: of many threads that wait and look up now and then, some would wait for minutes.

    A range in the making holds its decoded rows, which are most of what a transfer takes of memory, so ranges that have
    begun come before those that have not. Of these one begins beyond the turns, to take the turn while another one
    waits for Kafka; more begin where that leaves a turn idle, as over a slow line.

    `count`: how many turns there are at once.
    """

    def __init__(self, count: int) -> None:
        self._count = self._free = count
        # How many ranges have begun, and have not ended.
        self._begun = 0
        self._idle_since = time.monotonic()
        # Who waits: ranges that have begun, and those that have not.
        self._again, self._first = deque[Event](), deque[Event]()
        self._lock = Lock()

    def begin(self, should_stop: Callable[[], bool]) -> None:
        """Wait for the first turn of a range, which then has to `end`.

        Raises InterruptedTransferError if `should_stop` said so.
        """
        self._wait(self._first, should_stop)

    def take(self, should_stop: Callable[[], bool]) -> None:
        """Wait for another turn.

        Raises InterruptedTransferError if `should_stop` said so.
        """
        self._wait(self._again, should_stop)

    def give(self) -> None:
        """Give a turn back; of those that come first, whoever has waited longest gets it."""
        with self._lock:
            self._give()

    def end(self) -> None:
        """Let another range begin."""
        with self._lock:
            self._begun -= 1
            self._hand_on()

    def _wait(self, queue: deque[Event], should_stop: Callable[[], bool]) -> None:
        mine = Event()
        with self._lock:
            queue.append(mine)
            self._hand_on()
        try:
            while not mine.wait(_LOOK_S):
                if should_stop():
                    raise InterruptedTransferError("stopped")
                with self._lock:
                    self._hand_on()
        except BaseException:
            with self._lock:
                if not mine.is_set():
                    queue.remove(mine)
                else:
                    self._begun -= queue is self._first
                    self._give()
            raise

    def _give(self) -> None:
        self._free += 1
        self._idle_since = time.monotonic()
        self._hand_on()

    def _hand_on(self) -> None:
        """Let those in whose turn it is."""
        while self._free:
            if self._again:
                self._again.popleft().set()
            elif self._first and self._may_begin():
                self._first.popleft().set()
                self._begun += 1
            else:
                break
            self._free -= 1
            self._idle_since = time.monotonic()

    def _may_begin(self) -> bool:
        return self._begun <= self._count or time.monotonic() - self._idle_since > _IDLE_S


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
        if self._turns is not None:
            self._turns.begin(self._should_stop)
            self._has_it = True
        return self

    def __exit__(self, *_: object) -> None:
        if self._turns is not None:
            self._give(self._turns)
            self._turns.end()

    @contextmanager
    def given_away(self) -> Iterator[None]:
        """Let others have the turn while the block lasts."""
        if self._turns is None:
            yield
            return
        self._give(self._turns)
        try:
            yield
        finally:
            self._turns.take(self._should_stop)
            self._has_it = True

    def _give(self, turns: DecodeSlots) -> None:
        if self._has_it:
            self._has_it = False
            turns.give()
