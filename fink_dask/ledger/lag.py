"""How far a dataset is behind a topic that is followed: kept in the ledger for `status`, and for nothing else."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fink_dask.errors import StorageError
from fink_dask.ledger.ledger import Ledger, storage_error
from fink_dask.store.location import is_remote

_NAME = "lag.json"
_MAX_BYTES = 2**20
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
    """Keep a lag in the ledger; nothing depends on it, so it need not survive a power cut.

    Raises
    ------
    StorageError
        If the file system refuses.
    """
    path = ledger.path / _NAME
    if is_remote(path):
        path.write_text(json.dumps(asdict(lag)), encoding="utf-8")
        return
    aside = path.with_name(f".{_NAME}.{os.getpid()}")
    try:
        aside.write_text(json.dumps(asdict(lag)), encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise storage_error(error, path) from error


def read_lag(ledger: Ledger, not_older_s: float) -> Lag | None:
    """Read the lag, or None where there is none, or only one that is older than so many seconds."""
    try:
        with (ledger.path / _NAME).open("rb") as file:
            content: dict[str, Any] = json.loads(file.read(_MAX_BYTES))
        lag = Lag(
            float(content["at"]),
            {int(partition): int(count) for partition, count in content["partitions"].items()},
            float(content["alerts_per_second"]),
            None if content["newest_ms"] is None else int(content["newest_ms"]),
        )
    except (OSError, StorageError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    numbers = (lag.alerts_per_second, lag.newest_ms or 0, *lag.partitions.values())
    is_sound = all(math.isfinite(number) and abs(number) < _MOST for number in numbers)
    # Clocks differ a little; a time far in the future would never become old.
    return lag if is_sound and abs(time.time() - lag.at) <= not_older_s else None
