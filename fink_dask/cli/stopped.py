"""Stopping, and going on: the signals that ask to stop, and how far what failed or was stopped has got.

The first signal stops in good order; a second one, or eight seconds, stops at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, TypeVar

from fink_dask.cli.output import say
from fink_dask.cli.several import ledgers_of, print_topics_json
from fink_dask.errors import FinkDaskError, bug_of
from fink_dask.kafka.topics import TopicChoice
from fink_dask.settings import TransferSettings
from fink_dask.units import pluralize

if TYPE_CHECKING:
    from fink_dask.ledger.ledger import Ledger
    from fink_dask.ledger.summary import State, Summary


Result = TypeVar("Result")

#: Seconds that an orderly stop may take.
_PATIENCE_S = 8.0
#: Seconds within which a second signal is the first one: `timeout` sends its own to the process, then to its group.
_SAME_S = 0.2
#: Seconds after which a signal is sent again that was dropped: by then Python does something else.
_AGAIN_S = 0.05
#: Seconds between two looks at whether what runs apart is done.
_LOOK_S = 0.5
#: Seconds after the end of a run in which it is looked at what it had noted.
_LATER_S = 1.0


class SignalReceivedError(KeyboardInterrupt):
    """A signal asked this process to stop."""

    def __init__(self, number: int, looks: bool = False) -> None:
        super().__init__(number)
        self.number = number
        #: Whether the command only looks at something.
        self.looks = looks
        #: Whether somebody has told the user.
        self.said = False

    @property
    def exit_code(self) -> int:
        """Exit status that a shell gives a process which ended by this signal."""
        return 128 + self.number


def handle_signals(looks: bool = False) -> None:
    """Turn the first signal that asks to stop into a `SignalReceivedError` in the main thread.

    `looks`: whether the command only looks at something, so that nothing of it is safe, or goes on.
    """
    received: float | None = None
    unraisable = sys.unraisablehook

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal received
        now = time.monotonic()
        if received is not None:
            if now - received < _SAME_S:
                return
            _end_at_once(number, looks)
        received = now
        # A broker or a file system that does not let go must not keep the user waiting. What is committed is safe
        # whenever the process ends, and workers end with it.
        watchdog = threading.Timer(_PATIENCE_S, _end_at_once, (number, looks))
        watchdog.daemon = True
        watchdog.start()
        raise SignalReceivedError(number, looks)

    def again(lost: sys.UnraisableHookArgs) -> None:
        """Send the signal again that came where Python drops errors, such as while it collects garbage."""
        nonlocal received
        if not isinstance(lost.exc_value, SignalReceivedError):
            unraisable(lost)
            return
        received = None
        sender = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), lost.exc_value.number))
        sender.daemon = True
        sender.start()

    sys.unraisablehook = again
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # What `nohup`, or a shell's `&`, has this process ignore from its start stays ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)


#: Count the alerts that are committed, where a transfer runs.
_COUNTS: list[Callable[[], int]] = []


@contextmanager
def counting(committed: Callable[[], int]) -> Iterator[None]:
    """Have the last words say how many alerts are safe, also where the process ends as it is."""
    _COUNTS.append(committed)
    try:
        yield
    finally:
        _COUNTS.pop()


def _end_at_once(number: int, looks: bool) -> None:
    """End the process as it is, and say so past whatever lock the other writers hold."""
    safe = "; what is committed is safe"
    with suppress(Exception):  # it is counted while others add to it
        safe = f"; {pluralize(_COUNTS[-1](), 'alert')} safe"
    words = "" if looks else f"{safe}; run the same command again to continue"
    with suppress(OSError):
        os.write(2, f"\nfink-dask: stopped at once{words}\n".encode())
    os._exit(128 + number)


def run_apart(work: Callable[[threading.Event], Result]) -> Result:
    """Run something in a thread, as only the main one gets signals: in the middle of fastavro one becomes its error.

    `work`: takes an event that is set when a signal asks to stop; its end is then waited for.
    Raises KeyboardInterrupt if it was asked to stop, once it has.
    """
    from concurrent.futures import ThreadPoolExecutor, wait

    stop, working = threading.Event(), threading.Lock()

    def apart() -> Result:
        with working:
            if stop.is_set():
                raise KeyboardInterrupt
            return work(stop)

    with ThreadPoolExecutor(1) as thread:
        try:
            running = thread.submit(apart)
            # Python does not heed a signal that comes just before it begins to wait, as long as it waits.
            while wait([running], timeout=_LOOK_S).not_done:
                pass
            return running.result()
        except KeyboardInterrupt:
            # A signal may come while the thread starts: the pool does not know of it yet, so would not wait for it.
            stop.set()
            with working:
                raise


@contextmanager
def failure_as_json(settings: TransferSettings, choice: TopicChoice, as_json: bool) -> Iterator[None]:
    """Print the summary of a transfer that failed or was stopped as well, and say how to continue."""
    began = time.monotonic()
    before = _find_alerts(_found(settings, choice)) if as_json else Counter()
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        stopped = isinstance(error, KeyboardInterrupt)
        state: State = "interrupted" if stopped else "failed"
        ledgers = _found(settings, choice)
        summaries = [_summary(ledger) for ledger in ledgers]
        alerts = sum(summary.alerts for summary in summaries)
        if stopped:
            where = "no range was complete yet, so what had arrived is fetched again; " if ledgers else ""
            if alerts:
                where = f"{pluralize(alerts, 'alert')} safe in {settings.outdir}; "
            say(f"fink-dask: stopped; {where}run the same command again to continue", err=True)
            if isinstance(error, SignalReceivedError):
                error.said = True
        elif alerts and isinstance(error, FinkDaskError) and error.transient:
            where = "" if error.partition is None else f", and partition {error.partition} is tried again"
            words = f"{pluralize(alerts, 'alert')} safe in {settings.outdir}; the same command continues{where}"
            say(f"fink-dask: {words}", err=True)
        if as_json:
            seconds = time.monotonic() - began
            # After a restart, the ledger is not the one that was counted before.
            ended = [
                replace(
                    _with_received(summary, ledger, seconds),
                    state=state,
                    run_alerts=sum((_find_alerts([ledger]) - before).values()),
                    run_seconds=seconds,
                )
                for summary, ledger in zip(summaries, ledgers, strict=True)
            ]
            _print(ended, settings, choice, state, seconds, _words(error))
        raise


@contextmanager
def ending_as_json(ledger: Ledger, as_json: bool) -> Iterator[None]:
    """Print also that a change of a dataset failed or was stopped, and say how to continue."""
    try:
        yield
    except FinkDaskError as error:
        if as_json:
            _print_end(ledger, "failed", error=str(error))
        raise
    except SignalReceivedError as error:
        say("fink-dask: stopped; run the same command again to continue", err=True)
        error.said = True
        if as_json:
            _print_end(ledger, "interrupted", error=_words(error))
        raise


@contextmanager
def ending_in_words(end: str) -> Iterator[None]:
    """Say how what was to be written is left, if this is stopped before it is there."""
    try:
        yield
    except SignalReceivedError as error:
        say(f"fink-dask: stopped; {end}", err=True)
        error.said = True
        raise


def _print_end(ledger: Ledger, state: State, **more: str) -> None:
    from fink_dask.cli.results import print_summary_json
    from fink_dask.ledger.summary import without_figures

    print_summary_json(without_figures(ledger, state), **more)


def _print(
    summaries: Sequence[Summary],
    settings: TransferSettings,
    choice: TopicChoice,
    state: State,
    seconds: float,
    error: str,
) -> None:
    from fink_dask.cli.results import print_summary_json
    from fink_dask.ledger.summary import Summary

    if choice.is_several:
        print_topics_json(summaries, run_seconds=seconds, state=state, error=error)
        return
    summary = summaries[0] if summaries else Summary(settings.topic, state, run_seconds=seconds)
    print_summary_json(replace(summary, topic=settings.topic), error=error)


def _words(error: BaseException) -> str:
    if isinstance(error, FinkDaskError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "stopped by a signal"
    return bug_of(error)


def _found(settings: TransferSettings, choice: TopicChoice) -> list[Ledger]:
    try:
        return ledgers_of(settings, choice)
    except (FinkDaskError, OSError):
        return []


def _with_received(summary: Summary, ledger: Ledger, seconds: float) -> Summary:
    """Add the bytes that a run of so many seconds had received when it last noted it."""
    from fink_dask.ledger.summary import read_arrival

    arrival = read_arrival(ledger, seconds + _LATER_S)
    if arrival is None:
        return summary
    received = arrival.received_bytes + arrival.wasted_bytes
    return replace(summary, run_received_bytes=received, run_wasted_bytes=arrival.wasted_bytes)


def _summary(ledger: Ledger) -> Summary:
    from fink_dask.ledger.summary import Summary, summarise

    try:
        return summarise(ledger).summary
    except FinkDaskError:
        return Summary(ledger.outdir.name, "failed")


def _find_alerts(ledgers: Sequence[Ledger]) -> Counter[int]:
    """Count the committed alerts of each ledger, by the ledger's number."""
    from fink_dask.ledger.summary import summarise

    found: Counter[int] = Counter()
    for ledger in ledgers:
        try:
            number = ledger.store.number(ledger.path)
            found[number] += summarise(ledger).summary.alerts
        except (FinkDaskError, OSError):
            continue
    return found
