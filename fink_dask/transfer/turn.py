"""Who may decode: more ranges are read at once than there are cores, and each core is better off with one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Semaphore
from typing import Self

from fink_dask.errors import InterruptedTransferError

#: Seconds between two looks at whether the range is still wanted.
_LOOK_S = 0.2


class Turn:
    """The right of a range to decode and write: a context manager that waits for it.

    Meanwhile librdkafka fetches the range's first records. A range whose records come slowly gives its turn away as
    long as it waits for them, so that many slow partitions are still read at once.

    Parameters
    ----------
    semaphore : threading.Semaphore, optional
        What the ranges of a process share; without it, it is always everybody's turn.
    should_stop : callable
        Asked several times a second; True ends the waiting.

    Raises
    ------
    InterruptedTransferError
        If `should_stop` said so.
    """

    def __init__(self, semaphore: Semaphore | None = None, should_stop: Callable[[], bool] = lambda: False) -> None:
        self._semaphore = semaphore
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
        if self._semaphore is not None:
            while not self._semaphore.acquire(timeout=_LOOK_S):
                if self._should_stop():
                    raise InterruptedTransferError("stopped")
            self._has_it = True

    def _give(self) -> None:
        if self._semaphore is not None and self._has_it:
            self._has_it = False
            self._semaphore.release()
