"""The signals that ask to stop: the first stops in good order; a second one, or eight seconds, stops at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

Result = TypeVar("Result")

#: Seconds that an orderly stop may take.
_PATIENCE_S = 8.0


class SignalReceivedError(KeyboardInterrupt):
    """A signal asked this process to stop.

    Parameters
    ----------
    number : int
        The signal.

    Attributes
    ----------
    said : bool
        Whether somebody has told the user.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.said = False

    @property
    def exit_code(self) -> int:
        """Exit status that a shell gives a process which ended by this signal."""
        return 128 + self.number


def handle_signals() -> None:
    """Turn the first of these signals into a `SignalReceivedError` in the main thread."""
    received = False

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal received
        if received:
            os._exit(128 + number)
        received = True
        # A broker or a file system that does not let go must not keep the user waiting. What is committed is safe
        # whenever the process ends, and workers end with it.
        watchdog = threading.Timer(_PATIENCE_S, os._exit, (128 + number,))
        watchdog.daemon = True
        watchdog.start()
        raise SignalReceivedError(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)


def run_apart(work: Callable[[threading.Event], Result]) -> Result:
    """Run something in a thread, as only the main one gets signals: in the middle of fastavro one becomes its error.

    Parameters
    ----------
    work : callable
        Takes an event that is set when a signal asks to stop; its end is then waited for.

    Raises
    ------
    KeyboardInterrupt
        If it was asked to stop, once it has.
    """
    from concurrent.futures import ThreadPoolExecutor, wait

    stop = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        working = thread.submit(work, stop)
        try:
            return working.result()
        except KeyboardInterrupt:
            stop.set()
            wait([working])
            raise
