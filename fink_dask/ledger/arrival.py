"""What has arrived of a transfer that runs, beside what is committed: kept in the ledger for `status`."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.notes import read_note, write_note

_NAME = "arrival.json"
#: No count, and no time in this or the next millennium, is greater.
_MOST = 2**62


class Phase(StrEnum):
    """How far a transfer is, in words where there are no numbers yet."""

    CONNECTING = "connecting"
    WAITING = "waiting for the first response"
    RECEIVING = "receiving"
    WRITING = "all received, writing it"
    DONE = "all committed"


@dataclass(frozen=True)
class Arrival:
    """What has arrived at one moment.

    Parameters
    ----------
    at : float
        When, in seconds since 1970-01-01 UTC.
    phase : Phase
        How far it is.
    offsets : int
        Offsets that are committed, also by earlier runs, or have arrived.
    received_bytes, wasted_bytes : int
        Bytes of these that this run has received, and bytes that came in vain.
    bytes_per_second : float
        How fast they arrive, lately.
    bytes_left : int or None
        About the bytes that have not arrived yet; None if unknown.
    seconds_left : float or None
        About how long these take; None if unknown.
    quiet_s : float or None
        Seconds since Kafka last sent something; None where nothing is expected of it.
    is_cut : bool
        Whether that is longer than a slow line explains.
    reconnect_timeout_s : float or None
        How long nothing may come before that is an error.
    """

    at: float
    phase: Phase
    offsets: int
    received_bytes: int
    wasted_bytes: int
    bytes_per_second: float
    bytes_left: int | None
    seconds_left: float | None
    quiet_s: float | None
    is_cut: bool
    reconnect_timeout_s: float | None


def write_arrival(ledger: Ledger, arrival: Arrival) -> None:
    """Keep it in the ledger.

    Raises
    ------
    StorageError
        If the file system refuses.
    """
    write_note(ledger, _NAME, asdict(arrival))


def read_arrival(ledger: Ledger, not_older_s: float) -> Arrival | None:
    """Read it, or None where there is none, or only one that is older than so many seconds.

    What was quiet when it was written is taken to be quiet since.
    """
    arrival = read_note(ledger, _NAME, _of_json, not_older_s)
    if arrival is None or arrival.quiet_s is None:
        return arrival
    return replace(arrival, quiet_s=arrival.quiet_s + max(0.0, time.time() - arrival.at))


def _of_json(content: Mapping[str, Any]) -> Arrival:
    """Make it from JSON.

    Raises
    ------
    ValueError, KeyError, TypeError
        If it is something else.
    """
    arrival = Arrival(**{**content, "phase": Phase(content["phase"]), "is_cut": bool(content["is_cut"])})
    numbers = [value for name, value in vars(arrival).items() if name not in {"phase", "is_cut"} and value is not None]
    needed = (arrival.at, arrival.offsets, arrival.received_bytes, arrival.wasted_bytes, arrival.bytes_per_second)
    if None in needed or not all(math.isfinite(number) and abs(number) < _MOST for number in numbers):
        raise ValueError("numbers that can't be true")
    return arrival
