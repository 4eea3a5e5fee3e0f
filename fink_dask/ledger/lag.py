"""How far a dataset is behind a topic that is followed: kept in the ledger for `status`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.notes import read_note, write_note

_NAME = "lag.json"
#: No offset is greater, nor any time in this or the next millennium.
_MOST = 2**62


@dataclass(frozen=True)
class Lag:
    """The lag of each partition, in offsets that are not committed, at one moment.

    Parameters
    ----------
    at : float
        When, in seconds since 1970-01-01 UTC.
    partitions : mapping of int to int
        Offsets of each partition between what is committed and its last stable offset.
    alerts_per_second : float
        Alerts added to the dataset per second, over the last minute or so.
    newest_ms : int or None
        Newest timestamp of what is committed, in milliseconds since 1970-01-01 UTC.
    """

    at: float
    partitions: Mapping[int, int]
    alerts_per_second: float = 0.0
    newest_ms: int | None = None

    @property
    def total(self) -> int:
        """Lag of all partitions together."""
        return sum(self.partitions.values())

    @property
    def worst(self) -> tuple[int, int]:
        """The partition that is furthest behind, and its lag."""
        return max(self.partitions.items(), key=lambda item: (item[1], -item[0]), default=(0, 0))

    @property
    def freshness_s(self) -> float | None:
        """Age of the newest committed alert, in seconds, at that moment."""
        return freshness_s(self.newest_ms, self.at)


def freshness_s(newest_ms: int | None, at: float) -> float | None:
    """Return the age of an alert with this timestamp, in seconds; never negative, where clocks disagree."""
    return None if newest_ms is None else max(0.0, at - newest_ms / 1000)


def write_lag(ledger: Ledger, lag: Lag) -> None:
    """Keep a lag in the ledger.

    Raises
    ------
    StorageError
        If the file system refuses.
    """
    write_note(ledger, _NAME, asdict(lag))


def read_lag(ledger: Ledger, not_older_s: float) -> Lag | None:
    """Read the lag, or None where there is none, or only one that is older than so many seconds."""
    return read_note(ledger, _NAME, _of_json, not_older_s)


def _of_json(content: Mapping[str, Any]) -> Lag:
    """Make a lag from JSON.

    Raises
    ------
    ValueError, KeyError, TypeError, AttributeError, OverflowError
        If it is something else.
    """
    lag = Lag(
        float(content["at"]),
        {int(partition): int(count) for partition, count in content["partitions"].items()},
        float(content["alerts_per_second"]),
        None if content["newest_ms"] is None else int(content["newest_ms"]),
    )
    numbers = (lag.alerts_per_second, lag.newest_ms or 0, *lag.partitions.values())
    if not all(math.isfinite(number) and abs(number) < _MOST for number in numbers):
        raise ValueError("numbers that can't be true")
    return lag
