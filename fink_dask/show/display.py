"""Show a running transfer on stderr: live on a terminal or in a notebook, otherwise a line now and then."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from fink_dask.show.lines import Part, flow, lag_of, line_parts, number_parts, share, waiting_words
from fink_dask.show.screen import is_live
from fink_dask.show.words import forecast_words
from fink_dask.transfers.events import (
    Doing,
    Event,
    Note,
    RangeCommitted,
    RangeFailed,
    RangeProgress,
    TopicLooked,
    TransferStarted,
)
from fink_dask.transfers.tally import Tally
from fink_dask.units import counted

#: Seconds between two lines where there is no terminal; what fails earlier is one line.
_LINE_S = 10.0
#: Seconds between two looks at whether a line is due.
_LOOK_S = 0.5
#: How often a second the terminal is drawn again.
_DRAWN = 8
#: The bar's part of the columns, its bounds, and what stands beside it: a spinner, and the share.
_BAR, _LEAST, _MOST, _BESIDE = 5, 8, 40, 9


class Display:
    """An observer of a transfer, and a context manager that leaves the terminal as it was.

    It draws in a thread of its own, so that time passes on the screen also while nothing happens; any thread may call
    it.

    Parameters
    ----------
    console : rich.console.Console, optional
        Where to show it; stderr by default.
    clock : callable
        Tells the time.
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._is_live = is_live(self._console)
        self._clock = clock
        self._tally = Tally(clock)
        #: Nothing is printed while it is held: what draws has a lock of its own, and asks for this one.
        self._lock = threading.Lock()
        self._doing, self._since = "connecting to Kafka", clock()
        self._topics: set[str] = set()
        self._looked: dict[str, TopicLooked] = {}
        self._live = Live(
            _Picture(self._draw), console=self._console, transient=True, refresh_per_second=_DRAWN, auto_refresh=True
        )
        self._over = threading.Event()
        self._line_at = clock() + _LINE_S
        self._lines = threading.Thread(target=self._say_lines, name="fink-dask-lines", daemon=True)

    def __enter__(self) -> Self:
        if self._is_live:
            self._live.start(refresh=True)
        else:
            self._lines.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        if self._is_live:
            self._live.stop()
        else:
            self._lines.join()

    def __call__(self, event: Event) -> None:
        """Take an event."""
        with self._lock:
            said = list(self._take(event))
        for text, style in said:
            self._say(text, style)

    def _take(self, event: Event) -> Iterator[tuple[str, str]]:
        """Take an event; yield what is to be said of it, and in which style."""
        match event:
            case Note():
                yield f"{'warning: ' if event.warning else ''}{event.text}", "yellow" if event.warning else ""
            case Doing():
                self._doing, self._since = event.words, self._clock()
            case TransferStarted():
                self._since = self._clock()
                self._tally.start(event)
                if event.topic not in self._topics:
                    self._topics.add(event.topic)
                    self._line_at = self._clock() + _LINE_S
                    yield from self._start_words(event)
            case RangeProgress():
                self._tally.progress(event)
            case RangeCommitted():
                self._tally.commit(event)
            case RangeFailed():
                self._tally.fail(event)
            case TopicLooked():
                self._looked[event.topic] = event
                self._tally.grow(event.topic, event.offsets)

    def _start_words(self, event: TransferStarted) -> Iterator[tuple[str, str]]:
        if not event.ranges and len(self._topics) > 1:
            return  # created while others are followed, which a note says
        left = counted(event.ranges - event.ranges_committed, "range")
        words = f"{event.topic}: {counted(event.offsets - event.offsets_committed, 'offset')} to read in {left}"
        if event.ranges_committed:
            words += f"; {counted(event.ranges_committed, 'range')} already committed"
        if event.forecast is not None:
            words += f"; {forecast_words(event.forecast)}"
        yield words, ""
        if event.dashboard and len(self._topics) == 1:
            yield f"Dask dashboard: {event.dashboard}", ""

    def _say(self, text: str, style: str = "") -> None:
        try:
            # A terminal would break a line within a word; whatever else reads it wants it whole.
            self._console.print(escape(text), style=style or None, soft_wrap=not self._console.is_terminal)
        except BrokenPipeError:
            # Nobody reads the progress any more; the transfer is worth more than its bar.
            self._console.file = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115

    def _say_lines(self) -> None:
        """Say now and then how far it is, also while nothing comes."""
        while not self._over.wait(_LOOK_S):
            with self._lock:
                is_due = self._clock() >= self._line_at
                words = self._line() if is_due else ""
                if is_due:
                    self._line_at = self._clock() + _LINE_S
            if words:
                self._say(words)

    def _line(self) -> str:
        """Say in one line how far it is."""
        if not self._topics:
            return waiting_words(self._doing, self._clock() - self._since)
        beside, below = self._parts()
        words = [part.words for part in (*below, *beside)]
        return f"{share(self._tally)} %: {', '.join(words)}"

    def _draw(self, width: int, joint: str) -> tuple[int | None, list[str]]:
        """Return the share that has arrived, where there is one, and the lines beside and below its bar."""
        with self._lock:
            if not self._topics:
                return None, [waiting_words(self._doing, self._clock() - self._since)]
            beside, below = self._parts()
            first = flow(beside, width - _BESIDE - _bar(width), joint) or [""]
            return share(self._tally), [*first, *flow(below, width - 2, joint)]

    def _parts(self) -> tuple[list[Part], list[Part]]:
        """Return what is said beside the bar, and what below it."""
        arrival = self._tally.arrival
        beside = line_parts(arrival, self._clock() - self._since)
        if self._looked:
            beside += lag_of(self._looked)
        return beside, number_parts(self._tally, arrival, self._looked)


def _bar(width: int) -> int:
    """Return the width of the bar on so many columns, so that it does not change with the words beside it."""
    return min(max(width // _BAR, _LEAST), _MOST)


class _Picture:
    """Draws a bar with words beside and below it, whenever rich asks for it.

    Parameters
    ----------
    draw : callable
        Returns the share and the lines for so many columns, with a text between their parts.
    """

    def __init__(self, draw: Callable[[int, str], tuple[int | None, list[str]]]) -> None:
        self._draw = draw
        self._spinner = Spinner("dots")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        done, (beside, *below) = self._draw(width, ", " if options.ascii_only else " \N{MIDDLE DOT} ")
        first = Table.grid(padding=(0, 1))
        cells = [self._spinner]
        if done is None:
            first.add_row(*cells, Text(beside))
        else:
            room = min(_bar(width), width - _BESIDE - len(beside))  # what stands beside it may be too long
            bar = [ProgressBar(100, done, width=room)] if room >= _LEAST else []
            first.add_row(*cells, *bar, Text(f"{done:>3} %", no_wrap=True), Text(beside))
        yield first
        for line in below:
            yield Text(f"  {line}")
