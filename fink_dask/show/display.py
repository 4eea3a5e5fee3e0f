"""Show a running transfer on stderr: live on a terminal or in a notebook, otherwise a line now and then.

What is said of it takes as many columns as there are: whole parts, the most important ones first.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.filesize import decimal
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from fink_dask.ledger.summary import Arrival, Phase
from fink_dask.progress.events import (
    Doing,
    Event,
    Note,
    TopicLooked,
    TransferStarted,
    seen_words,
)
from fink_dask.progress.tally import Progress, Tally
from fink_dask.show.bar import FIRST_LINE_S, is_live, pass_on_prints
from fink_dask.units import duration_words, format_bytes, lasting, per_second, pluralize

if TYPE_CHECKING:
    from fink_dask.ledger.summary import Lag
    from fink_dask.progress.events import Forecast


#: Seconds without a response, and without anything new in a topic that is followed, that are worth mentioning.
_QUIET_S = 2.0
_NOTHING_NEW_S = 5.0
#: No more than this is said of the time left.
_MOST_S = 30 * 86_400
#: What arrived in vain is mentioned from this share of what arrived on.
_WASTED = 0.02

#: Seconds between two lines where there is no terminal; what fails earlier is one line.
_LINE_S = 10.0
#: Seconds between two looks at whether a line is due.
_LOOK_S = 0.5
#: How often a second the terminal is drawn again.
_DRAWN = 8
#: The bar's part of the columns, its bounds, and what stands beside it: a spinner, and the share.
_BAR, _LEAST, _MOST, _BESIDE = 5, 8, 40, 9


def forecast_words(forecast: Forecast) -> str:
    """Say how much work a run has: "about 66.8 MB in 3 s, bound by the cores, 12.1 GB of disk free"."""
    if forecast.raw_bytes is None or forecast.seconds is None:
        words = "how much and how long is not known, as no alert came in time"
    else:
        words = f"about {decimal(forecast.raw_bytes)} in {forecast.took}"
    if forecast.free_bytes is not None:
        words += f", {decimal(forecast.free_bytes)} of disk free"
    return f"{words}; {forecast.warning}" if forecast.warning else words


def lag_words(lag: Lag, seen_s: float = 0.0) -> str:
    """Say how far a dataset is behind: "lag 1,200 (most in partition 3: 700), newest alert 4 s old"."""
    return ", ".join(lag_parts({"": lag}, seen_s))


def lags_words(lags: Mapping[str, Lag], seen_s: float = 0.0) -> str:
    """Say how far the datasets of topics are behind: "lag 1,200, newest alert 4 s old, most in TOPIC: 700"."""
    return ", ".join(lag_parts(lags, seen_s))


def lag_parts(lags: Mapping[str, Lag], seen_s: float = 0.0) -> list[str]:
    """Say the same in parts, the most important first; and how long ago it was so, if that is no longer now."""
    topic, worst = max(lags.items(), key=lambda item: item[1].total)
    partition, most = worst.worst
    where = f" (most in partition {partition}: {most:,})" if len(lags) == 1 and most else ""
    words = [f"lag {sum(lag.total for lag in lags.values()):,}{where}{seen_words(seen_s)}"]
    ages = [lag.freshness_s for lag in lags.values() if lag.freshness_s is not None]
    if ages:
        words.append(f"newest alert {duration_words(min(ages))} old")
    if len(lags) > 1 and worst.total:  # last, as topic names are long and a terminal may be narrow
        words.append(f"most in {topic}: {worst.total:,}")
    return words


@dataclass(frozen=True)
class Part:
    """Some words that belong together."""

    words: str
    #: Whether they get a line of their own rather than be left out.
    is_needed: bool = True


def flow(parts: Iterable[Part], width: int, joint: str = " \N{MIDDLE DOT} ") -> list[str]:
    """Put parts into lines of so many columns; what is not needed is left out where it does not fit."""
    lines: list[str] = []
    for part in parts:
        if lines and cell_len(lines[-1] + joint + part.words) <= width:
            lines[-1] += joint + part.words
        elif not lines or part.is_needed:
            lines.append(part.words)
    return lines


def share(tally: Tally) -> int:
    """Return how much has arrived or is committed, in per cent, rounded down: 100 means all."""
    return min(100, 100 * tally.arrived // tally.offsets) if tally.offsets else 100


def line_parts(arrival: Arrival, connecting_s: float = 0.0) -> list[Part]:
    """Say whether something comes, and how long the rest will take."""
    phase, quiet_s = arrival.phase, arrival.quiet_s
    parts = []
    if phase is Phase.CONNECTING:
        parts.append(Part(f"{phase}{_so_long(connecting_s)}"))
    elif phase is Phase.WAITING:
        parts.append(Part(f"{phase}{_so_long(quiet_s)}"))
    elif phase is not Phase.RECEIVING:
        parts.append(Part(phase))
    elif quiet_s is not None and arrival.is_cut:
        parts.append(Part(f"nothing for {lasting(quiet_s)}"))
    else:
        left_s = arrival.seconds_left
        if left_s is not None:
            more = "" if left_s < _MOST_S else "more than "
            parts.append(Part(f"{more}{lasting(min(left_s, _MOST_S))} left"))
        if quiet_s is not None and quiet_s > _QUIET_S:
            parts.append(Part(f"last response {lasting(quiet_s)} ago"))
    more_s = (arrival.reconnect_timeout_s or 0.0) - (quiet_s or 0.0)
    if arrival.is_cut and more_s > 0:
        parts.append(Part(f"waits for {lasting(more_s)} more at most"))
    return parts


def received_words(arrival: Arrival) -> str:
    """Say what has arrived, and how fast: "8.0 MB received (119.9 kB/s)"."""
    words = f"{format_bytes(arrival.received_bytes)} received"
    if arrival.bytes_per_second and not arrival.is_cut:
        words += f" ({format_bytes(round(arrival.bytes_per_second))}/s)"
    return words


def lag_of(looked: Mapping[str, TopicLooked], seen_s: float = 0.0) -> list[Part]:
    """Say how far a dataset is behind, and whether anything new comes."""
    lag, *_ = lag_parts({topic: each.lag for topic, each in looked.items()}, seen_s)
    last = min(looked.values(), key=lambda each: each.quiet_s)
    if last.quiet_s <= _NOTHING_NEW_S or seen_words(seen_s):
        return [Part(lag)]
    # The countdown first: it is what somebody who waits looks for.
    ends = [] if last.left_s is None else [Part(f"ends in {lasting(last.left_s)} unless more comes")]
    return [*ends, Part(lag), Part(f"nothing new for {lasting(last.quiet_s)}")]


def number_parts(tally: Tally, arrival: Arrival) -> list[Part]:
    """Say what has arrived, and beside it what is committed."""
    committed = f"{tally.committed:,} of {pluralize(tally.offsets, 'alert')} committed"
    parts = [Part(received_words(arrival)), Part(committed)]
    if arrival.is_cut and arrival.received_bytes:
        parts.append(Part("what came is kept meanwhile"))
    if tally.topics > 1:
        parts.append(Part(pluralize(tally.topics, "topic"), False))
    if tally.read > tally.rows:
        parts.append(Part(f"{tally.rows:,} of {tally.read:,} wanted", False))
    if tally.looks:
        lags = {topic: each.lag for topic, each in tally.looks.items()}
        speed = sum(lag.alerts_per_second for lag in lags.values())
        _, *more = lag_parts(lags)
        parts += [Part(per_second(speed, "alert")), *(Part(words, False) for words in more)]
    elif tally.alerts_per_second:
        parts.append(Part(per_second(tally.alerts_per_second, "alert"), False))
    if arrival.wasted_bytes > _WASTED * tally.bytes_received:
        parts.append(Part(f"{format_bytes(arrival.wasted_bytes)} came in vain", False))
    return parts


def waiting_words(words: str, seconds: float) -> str:
    """Say what a run does before it transfers anything, and for how long if that is worth mentioning."""
    return f"{words}{_so_long(seconds)}"


def _so_long(seconds: float | None) -> str:
    return f" for {lasting(seconds)}" if seconds is not None and seconds > _QUIET_S else ""


class Display:
    """Shows the progress of a run, to which it may be told; a context manager that leaves the terminal as it was.

    It draws in a thread of its own, so that time passes on the screen also while nothing happens.
    """

    def __init__(
        self,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
        began: float | None = None,
        first_line_s: float | None = None,
    ) -> None:
        # Where to show it; stderr by default.
        self._console = console or Console(stderr=True, highlight=False)
        self._is_live = is_live(self._console)
        self._clock = clock
        #: What it shows. Nothing is printed while its lock is held: what draws has a lock of its own, and asks for this
        #: one.
        self.progress = Progress(self._take, began, clock)
        self._tally, self._lock = self.progress.whole, self.progress.lock
        self._doing, self._since = "connecting to Kafka", clock()
        self._topics: set[str] = set()
        self._live = Live(_Picture(self._draw), console=self._console, transient=True, auto_refresh=False)
        # Held while something is drawn or said: in a notebook, what is said meanwhile would become part of the drawing,
        # and be gone with it. A signal may have something said by a thread that says something.
        self._shown = threading.RLock()
        self._over = threading.Event()
        # Without a terminal; what a transfer does is said when it begins.
        self._line_at = clock() + (_LINE_S if first_line_s is None else first_line_s)
        shows = self._draw_again if self._is_live else self._say_lines
        self._shows = threading.Thread(target=shows, name="fink-dask-display", daemon=True)

    def __enter__(self) -> Progress:
        if self._is_live:
            pass_on_prints(self._console)
            self._live.start(refresh=True)
        self._shows.start()
        return self.progress

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.progress.pass_on()
        self._over.set()
        self._shows.join()
        if self._is_live:
            self._live.stop()

    def _take(self, event: Event) -> None:
        """Say what is to be said of an event."""
        if isinstance(event, Note):
            self._say(f"{'warning: ' if event.warning else ''}{event.text}", "yellow" if event.warning else "")
        elif isinstance(event, Doing):
            with self._lock:
                self._doing, self._since = event.words, self._clock()
        elif isinstance(event, TransferStarted):
            with self._lock:
                self._since = self._clock()
                is_new = event.topic not in self._topics
                if is_new:
                    self._topics.add(event.topic)
                    self._line_at = self._clock() + _LINE_S
            for text in self._start_words(event) if is_new else ():
                self._say(text)

    def _start_words(self, event: TransferStarted) -> Iterator[str]:
        if not event.ranges and len(self._topics) > 1:
            return  # created while others are followed, which a note says
        left = pluralize(event.ranges - event.ranges_committed, "range")
        words = f"{event.topic}: {pluralize(event.offsets - event.offsets_committed, 'offset')} to read in {left}"
        if event.ranges_committed:
            words += f"; {pluralize(event.ranges_committed, 'range')} already committed"
        if event.forecast is not None:
            words += f"; {forecast_words(event.forecast)}"
        yield words
        if event.dashboard and len(self._topics) == 1:
            yield f"Dask dashboard: {event.dashboard}"

    def _say(self, text: str, style: str = "") -> None:
        # A terminal would break a line within a word; whatever else reads it wants it whole.
        soft_wrap = not self._console.is_terminal
        self._show(lambda: self._console.print(escape(text), style=style or None, soft_wrap=soft_wrap))

    def _draw_again(self) -> None:
        """Draw several times a second."""
        while not self._over.wait(1 / _DRAWN):
            self._show(self._live.refresh)

    def _show(self, show: Callable[[], None]) -> None:
        try:
            with self._shown:
                show()
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
        if self._tally.looks:
            if arrival.phase is Phase.DONE and any(each.lag.total for each in self._tally.looks.values()):
                beside = []  # all that is planned is committed, and more has come
            beside += lag_of(self._tally.looks, self._clock() - self._tally.looked_at)
        return beside, number_parts(self._tally, arrival)


@contextmanager
def doing(words: str) -> Iterator[Callable[[str], None]]:
    """Say what a command does as long as the block lasts, and for how long: over a slow line, or a cut one.

    Yields: what says that it does something else now.
    """
    with Display(first_line_s=FIRST_LINE_S) as progress:
        progress(Doing(words))
        yield lambda other: progress(Doing(other))


def _bar(width: int) -> int:
    """Return the width of the bar on so many columns, so that it does not change with the words beside it."""
    return min(max(width // _BAR, _LEAST), _MOST)


class _Picture:
    """Draws a bar with words beside and below it, whenever rich asks for it."""

    def __init__(self, draw: Callable[[int, str], tuple[int | None, list[str]]]) -> None:
        # Returns the share and the lines for so many columns, with a text between their parts.
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
