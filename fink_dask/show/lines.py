"""What is said of a running transfer, in as many columns as there are: whole parts, the most important ones first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rich.cells import cell_len

from fink_dask.ledger.progress import Arrival, Phase
from fink_dask.show.words import lag_parts
from fink_dask.transfers.events import TopicLooked
from fink_dask.transfers.tally import Tally
from fink_dask.units import amount, counted, lasting, per_second

#: Seconds without a response, and without anything new in a topic that is followed, that are worth mentioning.
_QUIET_S = 2.0
_NOTHING_NEW_S = 5.0
#: No more than this is said of the time left.
_MOST_S = 30 * 86_400
#: What arrived in vain is mentioned from this share of what arrived on.
_WASTED = 0.02


@dataclass(frozen=True)
class Part:
    """Some words that belong together.

    Parameters
    ----------
    words : str
        The words.
    is_needed : bool
        Whether they get a line of their own rather than be left out.
    """

    words: str
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
    words = f"{amount(arrival.received_bytes)} received"
    if arrival.bytes_per_second and not arrival.is_cut:
        words += f" ({amount(round(arrival.bytes_per_second))}/s)"
    return words


def lag_of(looked: Mapping[str, TopicLooked]) -> list[Part]:
    """Say how far a dataset is behind, and whether anything new comes."""
    lag, *_ = lag_parts({topic: each.lag for topic, each in looked.items()})
    new_s = min(each.quiet_s for each in looked.values())
    return [Part(lag), *([Part(f"nothing new for {lasting(new_s)}")] if new_s > _NOTHING_NEW_S else [])]


def number_parts(tally: Tally, arrival: Arrival, looked: Mapping[str, TopicLooked]) -> list[Part]:
    """Say what has arrived, and beside it what is committed."""
    committed = f"{tally.committed:,} of {counted(tally.offsets, 'alert')} committed"
    parts = [Part(received_words(arrival)), Part(committed)]
    if arrival.is_cut and arrival.received_bytes:
        parts.append(Part("what came is kept meanwhile"))
    if tally.topics > 1:
        parts.append(Part(counted(tally.topics, "topic"), False))
    if tally.read > tally.rows:
        parts.append(Part(f"{tally.rows:,} of {tally.read:,} wanted", False))
    if looked:
        lags = {topic: each.lag for topic, each in looked.items()}
        speed = sum(lag.alerts_per_second for lag in lags.values())
        _, *more = lag_parts(lags)
        parts += [Part(per_second(speed, "alert")), *(Part(words, False) for words in more)]
    elif tally.alerts_per_second:
        parts.append(Part(per_second(tally.alerts_per_second, "alert"), False))
    if arrival.wasted_bytes > _WASTED * tally.bytes_received:
        parts.append(Part(f"{amount(arrival.wasted_bytes)} came in vain", False))
    return parts


def waiting_words(words: str, seconds: float) -> str:
    """Say what a run does before it transfers anything, and for how long if that is worth mentioning."""
    return f"{words}{_so_long(seconds)}"


def _so_long(seconds: float | None) -> str:
    return f" for {lasting(seconds)}" if seconds is not None and seconds > _QUIET_S else ""
