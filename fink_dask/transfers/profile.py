"""Where the time of a transfer goes, stage by stage: what says where the next gain is."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fink_dask.errors import LedgerError
from fink_dask.transfers.events import Event, Observer, RangeCommitted, RangeProgress

#: What a range does, in order: waiting for Kafka (and then for its turn) and taking messages, joining their values,
#: decoding, finding partition keys, encoding Parquet, bringing files to the disk with their hashes, and making them
#: part of the dataset.
STAGES = ("poll", "copy", "decode", "split", "write", "fsync", "commit")


class Stopwatch:
    """Adds up the seconds of each stage of a range.

    Attributes
    ----------
    seconds : dict of str to float
        Seconds of each of `STAGES`.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._since = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Count the time since the last lap as that of a stage."""
        now = time.perf_counter()
        self.seconds[stage] += now - self._since
        self._since = now

    def skip(self) -> None:
        """Count the time since the last lap as nobody's."""
        self._since = time.perf_counter()

    def move(self, seconds: float, before: str, stage: str) -> None:
        """Count as that of `stage` what was counted as that of `before`."""
        self.seconds[before] -= seconds
        self.seconds[stage] += seconds


@dataclass(frozen=True)
class Profile:
    """Where the time of one run went.

    Parameters
    ----------
    start_seconds, work_seconds, finish_seconds : float
        From the beginning to the first batch, from there to the last commit, and from there to the end.
    stage_seconds : mapping of str to float
        Seconds of each of `STAGES`, of all consumers together.
    ranges, alerts, raw_bytes : int
        What this run has committed.
    """

    start_seconds: float
    work_seconds: float
    finish_seconds: float
    stage_seconds: Mapping[str, float]
    ranges: int
    alerts: int
    raw_bytes: int

    @property
    def seconds(self) -> float:
        """The whole run."""
        return round(self.start_seconds + self.work_seconds + self.finish_seconds, 3)

    def to_json(self) -> dict[str, Any]:
        """Return the profile as the ledger and ``--json`` hold it."""
        return asdict(self) | {"stage_seconds": dict(self.stage_seconds)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Profile:
        """Read the profile from JSON.

        Raises
        ------
        LedgerError
            If something is missing or of another type.
        """
        try:
            seconds = {stage: float(content["stage_seconds"].get(stage, 0)) for stage in STAGES}
            phases = [float(content[f"{phase}_seconds"]) for phase in ("start", "work", "finish")]
            counts = [int(content[name]) for name in ("ranges", "alerts", "raw_bytes")]
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise LedgerError(f"a profile can't be read: {error}") from error
        if not all(map(math.isfinite, (*seconds.values(), *phases))):
            raise LedgerError("a profile holds numbers that are none")
        start, work, finish = phases
        ranges, alerts, raw_bytes = counts
        return cls(start, work, finish, seconds, ranges, alerts, raw_bytes)


class Profiler:
    """An observer that takes the time and passes every event on.

    Parameters
    ----------
    observe : callable
        Takes the events.
    began : float, optional
        When the run began, on the clock of `time.monotonic`; now otherwise.
    """

    def __init__(self, observe: Observer, began: float | None = None) -> None:
        self._observe = observe
        self._began = time.monotonic() if began is None else began
        self._first: float | None = None
        self._last: float | None = None
        self._seconds = dict.fromkeys(STAGES, 0.0)
        self._ranges = self._alerts = self._raw_bytes = 0

    def __call__(self, event: Event) -> None:
        """Take an event."""
        if isinstance(event, RangeProgress | RangeCommitted) and self._first is None:
            self._first = time.monotonic()
        if isinstance(event, RangeCommitted):
            self._last = time.monotonic()
            self._ranges += 1
            self._alerts += event.rows
            self._raw_bytes += event.raw_bytes
            for stage, seconds in event.seconds.items():
                self._seconds[stage] += seconds
        self._observe(event)

    def profile(self) -> Profile:
        """Return the profile of the run, which ends now."""
        now = time.monotonic()
        first, last = self._first or now, self._last or now
        return Profile(
            start_seconds=round(first - self._began, 3),
            work_seconds=round(last - first, 3),
            finish_seconds=round(now - last, 3),
            stage_seconds={stage: round(seconds, 3) for stage, seconds in self._seconds.items()},
            ranges=self._ranges,
            alerts=self._alerts,
            raw_bytes=self._raw_bytes,
        )
