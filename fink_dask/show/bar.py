"""How many bytes, or things, are done, and of how many: a bar on a terminal, otherwise a line now and then."""

from __future__ import annotations

import sys
import threading
import time
from importlib.util import find_spec
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.filesize import decimal

from fink_dask.units import lasting, pluralize

#: Seconds before the first line where there is no terminal: whoever waits for longer is told how far it is.
FIRST_LINE_S = 2.0
#: Seconds between two lines, and without anything new that are worth mentioning.
_LINE_S = 10.0
#: Seconds between two looks at whether a line is due.
_LOOK_S = 0.25
#: Columns of the bar: with words, numbers and the time left beside it, 80 are enough.
_BAR = 20


def is_live(console: Console) -> bool:
    """Tell whether a drawing can be updated in place: on a terminal, or in a notebook that has widgets."""
    if console.is_terminal:
        return not console.is_dumb_terminal
    return console.is_jupyter and find_spec("ipywidgets") is not None


def pass_on_prints(console: Console) -> None:
    """Pass on what a notebook's user has printed, before a drawing begins.

    A notebook keeps that back for a moment, and takes what it passes on while something is drawn for a part of the
    drawing, which is removed in the end. rich takes the streams over, and does not flush those behind them.
    """
    if console.is_jupyter:
        sys.stdout.flush()
        sys.stderr.flush()


class CountBar:
    """Shows the progress of something countable; a context manager that leaves the terminal as it was.

    `total`: how many bytes, or things, there are.
    """

    def __init__(self, words: str, total: int | None = None, noun: str | None = None) -> None:
        # Here, as a transfer draws a bar of its own.
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        console = Console(stderr=True, highlight=False)
        # What is being done.
        self._words = words
        self._console = console
        self._is_live = is_live(console)
        # What is counted, if not bytes.
        self._noun = noun
        numbers = DownloadColumn() if noun is None else MofNCompleteColumn()
        columns = (TextColumn("{task.description}"), BarColumn(_BAR), numbers, TimeRemainingColumn(compact=True))
        self._bar = Progress(*columns, console=console, transient=True, disable=not self._is_live)
        self._task = self._bar.add_task(words, total=total)
        self._total, self._done = total, 0
        self._began = time.monotonic()
        self._due = self._began + FIRST_LINE_S
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._lines = threading.Thread(target=self._say_lines, name="fink-dask-lines", daemon=True)

    def __enter__(self) -> Self:
        pass_on_prints(self._console)
        self._bar.start()
        if not self._is_live:
            self._lines.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Remove the bar, so that others can use the terminal."""
        self._bar.stop()
        self._over.set()
        if self._lines.is_alive():
            self._lines.join()

    def plan(self, total: int) -> None:
        """Set how many bytes, or things, there are."""
        self._total = total
        self._bar.update(self._task, total=total)

    def begin(self, words: str, total: int, noun: str | None = None) -> None:
        """Begin something else, and count anew; only whether bytes are counted stays as it is."""
        with self._lock:
            self._words, self._noun, self._total, self._done = words, noun, total, 0
            self._began = time.monotonic()
        self._bar.reset(self._task, total=total, description=words)

    def advance(self, size: int) -> None:
        """Add bytes, or things, that are done; any thread may call this."""
        self._bar.update(self._task, advance=size, description=self._words)
        with self._lock:
            self._done += size
            self._say(self._how_far())

    def wait(self, quiet_s: float) -> None:
        """Say for how long nothing new has come, if that is worth mentioning; may be called at any time."""
        if quiet_s < _LINE_S:
            return
        words = f"nothing for {lasting(quiet_s)}"
        self._bar.update(self._task, description=f"{self._words}: {words}")
        with self._lock:
            self._say(f"{self._how_far()}, {words}")

    def _say_lines(self) -> None:
        """Say how far it is also while nothing is done."""
        while not self._over.wait(_LOOK_S):
            with self._lock:
                self._say(self._how_far())

    def _say(self, words: str) -> None:
        """Say it where there is no terminal, unless something was said a moment ago."""
        now = time.monotonic()
        if not self._is_live and now >= self._due:
            self._due = now + _LINE_S
            self._console.print(f"{self._words}: {words}", soft_wrap=True)

    def _how_far(self) -> str:
        if not self._total:
            return self._in_words(self._done)
        done = decimal(self._done) if self._noun is None else f"{self._done:,}"
        words = f"{done} of {self._in_words(self._total)}"
        left = self._total - self._done
        if not self._done or not left:
            return words
        return f"{words}, about {lasting(left / self._done * (time.monotonic() - self._began))} left"

    def _in_words(self, size: int) -> str:
        return decimal(size) if self._noun is None else pluralize(size, self._noun)
