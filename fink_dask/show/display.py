"""Show a running transfer on stderr: a live bar on a terminal or in a notebook, otherwise a line now and then."""

from __future__ import annotations

import os
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from fink_dask.nouns import counted
from fink_dask.show.screen import is_live
from fink_dask.show.words import forecast_words, lags_words
from fink_dask.transfers.events import (
    Event,
    Note,
    RangeCommitted,
    RangeFailed,
    RangeProgress,
    TopicLooked,
    TransferStarted,
)
from fink_dask.transfers.tally import Tally

#: Seconds between two lines where there is no terminal.
_LINE_S = 10.0
#: Seconds of silence that are worth mentioning while a topic is followed.
_QUIET_S = 5.0


class Display:
    """An observer of a transfer, and a context manager that leaves the terminal as it was.

    Parameters
    ----------
    console : rich.console.Console, optional
        Where to show it; stderr by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._is_live = is_live(self._console)
        self._tally = Tally()
        self._last_line = time.monotonic()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._topics: set[str] = set()
        self._looked: dict[str, TopicLooked] = {}
        self._waiting = self._console.status("looking at the topic, and starting workers")

    def __enter__(self) -> Self:
        if self._is_live:
            self._waiting.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._waiting.stop()
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, event: Event) -> None:
        """Take an event."""
        try:
            self._show(event)
        except BrokenPipeError:
            # Nobody reads the progress any more; the transfer is worth more than its bar.
            self._console.file = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115

    def _show(self, event: Event) -> None:
        match event:
            case Note():
                style = "yellow" if event.warning else ""
                self._say(f"{'warning: ' if event.warning else ''}{event.text}", style)
            case TransferStarted():
                self._start(event)
            case RangeProgress():
                self._tally.progress(event)
            case RangeCommitted():
                self._tally.commit(event)
            case RangeFailed():
                self._tally.fail(event)
            case TopicLooked():
                self._look(event)
        self._redraw()

    def _say(self, text: str, style: str = "") -> None:
        console = self._bar.console if self._bar is not None else self._console
        console.print(escape(text), style=style or None, soft_wrap=True)

    def _start(self, event: TransferStarted) -> None:
        self._waiting.stop()
        self._tally.start(event)
        if event.topic not in self._topics:
            self._topics.add(event.topic)
            self._say_start(event)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, total=self._tally.offsets)
        elif self._is_live:
            self._bar = Progress(
                SpinnerColumn(),
                # On a narrow terminal only the end of the numbers is cut off.
                BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=4)),
                TextColumn("{task.percentage:>3.0f}%", table_column=Column(no_wrap=True, min_width=4)),
                TextColumn("{task.fields[numbers]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
                TimeRemainingColumn(compact=True),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task("transfers", total=event.offsets, numbers="")
            self._bar.start()

    def _say_start(self, event: TransferStarted) -> None:
        if not event.ranges and len(self._topics) > 1:
            return  # created while others are followed, which a note says
        left = counted(event.ranges - event.ranges_committed, "range")
        words = f"{event.topic}: {counted(event.offsets - event.offsets_committed, 'offset')} to read in {left}"
        if event.ranges_committed:
            words += f"; {counted(event.ranges_committed, 'range')} already committed"
        if event.forecast is not None:
            words += f"; {forecast_words(event.forecast)}"
        self._say(words)
        if event.dashboard and len(self._topics) == 1:
            self._say(f"Dask dashboard: {event.dashboard}")

    def _look(self, event: TopicLooked) -> None:
        if not self._looked and self._bar is not None:
            self._bar.columns = self._bar.columns[:-1]  # nobody knows how long it will take
        self._looked[event.topic] = event
        self._tally.grow(event.topic, event.offsets)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, total=self._tally.offsets)

    def _redraw(self) -> None:
        tally = self._tally
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=tally.offsets_done, numbers=self._numbers())
        elif tally.offsets and time.monotonic() - self._last_line >= _LINE_S:
            self._last_line = time.monotonic()
            share = 100 * tally.offsets_done // tally.offsets  # rounded down: 100 % means all
            left = f", about {self._seconds_left():.0f} s left" if not self._looked else ""
            self._say(f"{share} %, {self._numbers()}{left}")

    def _numbers(self) -> str:
        tally = self._tally
        alerts = counted(tally.rows, "alert")
        if tally.topics > 1:
            alerts = f"{counted(tally.topics, 'topic')}, {alerts}"
        if tally.read > tally.rows:
            alerts += f" of {tally.read:,}"
        if self._looked:
            lags = {topic: looked.lag for topic, looked in self._looked.items()}
            quiet_s = min(looked.quiet_s for looked in self._looked.values())
            quiet = f", nothing new for {quiet_s:.0f} s" if quiet_s > _QUIET_S else ""
            speed = sum(lag.alerts_per_second for lag in lags.values())
            return f"{alerts}, {speed:,.0f} alerts/s, {lags_words(lags)}{quiet}"
        megabytes = tally.raw_bytes / 1e6 / tally.seconds
        return f"{alerts}, {megabytes:,.1f} MB/s, {tally.read / tally.seconds:,.0f} alerts/s"

    def _seconds_left(self) -> float:
        tally = self._tally
        left = tally.offsets - tally.offsets_done
        return tally.seconds * left / max(tally.offsets_of_this_run, 1)
