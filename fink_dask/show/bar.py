"""How many bytes, or things, are done, and of how many: a bar on a terminal, otherwise a line now and then."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fink_dask.nouns import counted
from fink_dask.show.screen import is_live

#: Seconds between two lines where there is no terminal.
_LINE_S = 10.0


class CountBar:
    """Shows the progress of something countable; a context manager that leaves the terminal as it was.

    Parameters
    ----------
    words : str
        What is being done.
    total : int, optional
        How many bytes, or things, there are.
    noun : str, optional
        What is counted, if not bytes.
    """

    def __init__(self, words: str, total: int | None = None, noun: str | None = None) -> None:
        console = Console(stderr=True, highlight=False)
        self._words = words
        self._console = console
        self._is_live = is_live(console)
        self._noun = noun
        numbers = DownloadColumn() if noun is None else MofNCompleteColumn()
        columns = (TextColumn("{task.description}"), BarColumn(), numbers, TimeRemainingColumn(compact=True))
        self._bar = Progress(*columns, console=console, transient=True, disable=not self._is_live)
        self._task = self._bar.add_task(words, total=total)
        self._total, self._done, self._said = total, 0, time.monotonic()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Remove the bar, so that others can use the terminal."""
        self._bar.stop()

    def plan(self, total: int) -> None:
        """Set how many bytes, or things, there are."""
        self._total = total
        self._bar.update(self._task, total=total)

    def advance(self, size: int) -> None:
        """Add bytes, or things, that are done; any thread may call this."""
        self._bar.advance(self._task, size)
        with self._lock:
            self._done += size
            now = time.monotonic()
            if self._is_live or now - self._said < _LINE_S:
                return
            self._said = now
            of = f" of {self._in_words(self._total)}" if self._total else ""
            self._console.print(f"{self._words}: {self._in_words(self._done)}{of}", soft_wrap=True)

    def _in_words(self, size: int) -> str:
        return decimal(size) if self._noun is None else counted(size, self._noun)
