"""Where the time of a transfer goes, stage by stage: it shows where there is something to gain."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fink_dask.errors import LedgerError
from fink_dask.progress.tally import Tally

#: What a range does, in order: waiting for Kafka (and then for its turn) and taking messages, joining their values,
#: decoding, finding partition keys, encoding and hashing Parquet, syncing files to disk, and making them part of the
#: dataset.
STAGES = ("poll", "copy", "decode", "split", "write", "fsync", "commit")
#: The colour of each, on every page.
STAGE_COLOURS = dict(
    zip(STAGES, ("#1864ab", "#4dabf7", "#2b8a3e", "#8ce99a", "#e67700", "#862e9c", "#868e96"), strict=True)
)

#: No run takes so many seconds: thirty years.
_MAX_S = 1e9


class Stopwatch:
    """Adds up the seconds of each stage of a range."""

    def __init__(self) -> None:
        #: Seconds of each of `STAGES`.
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._since = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Count the time since the last lap for a stage."""
        now = time.perf_counter()
        self.seconds[stage] += now - self._since
        self._since = now

    def skip(self) -> None:
        """Count the time since the last lap for no stage."""
        self._since = time.perf_counter()

    def move(self, seconds: float, before: str, stage: str) -> None:
        """Count for `stage` what was counted for `before`."""
        self.seconds[before] -= seconds
        self.seconds[stage] += seconds


@dataclass(frozen=True)
class Profile:
    """Where the time of one run went."""

    #: start_seconds, work_seconds, finish_seconds: from the beginning to the first batch, from there to the last
    #: commit, and from there to the end.
    start_seconds: float
    work_seconds: float
    finish_seconds: float
    #: Seconds of each of `STAGES`, for all consumers together.
    stage_seconds: Mapping[str, float]
    #: ranges, alerts, raw_bytes: what this run committed.
    ranges: int
    alerts: int
    raw_bytes: int
    #: received_bytes, wasted_bytes: bytes that have arrived from Kafka, and how many of them in vain; zero where that
    #: was not counted.
    received_bytes: int = 0
    wasted_bytes: int = 0

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

        Raises LedgerError if something is missing or of another type.
        """
        try:
            # Profiles once had "steps" as well, which nobody reads any more.
            seconds = {stage: float(content["stage_seconds"].get(stage, 0)) for stage in STAGES}
            phases = [float(content[f"{phase}_seconds"]) for phase in ("start", "work", "finish")]
            counts = [int(content[name]) for name in ("ranges", "alerts", "raw_bytes")]
            received = [int(content.get(name, 0)) for name in ("received_bytes", "wasted_bytes")]
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise LedgerError(f"a profile can't be read: {error}") from error
        if not all(abs(value) < _MAX_S for value in (*seconds.values(), *phases)):  # NaN is not
            raise LedgerError("a profile holds numbers that can't be true")
        start, work, finish = phases
        ranges, alerts, raw_bytes = counts
        return cls(start, work, finish, seconds, ranges, alerts, raw_bytes, *received)


def profile_of(tally: Tally, began: float) -> Profile:
    """Return the profile of a run that began then, by the clock of the tally, and ends now."""
    now = time.monotonic()
    first, last = tally.first_at or now, tally.last_at or now
    return Profile(
        start_seconds=round(first - began, 3),
        work_seconds=round(last - first, 3),
        finish_seconds=round(now - last, 3),
        stage_seconds={stage: round(tally.stage_seconds.get(stage, 0.0), 3) for stage in STAGES},
        ranges=tally.ranges_run,
        alerts=tally.committed_rows,
        raw_bytes=tally.committed_bytes,
        received_bytes=tally.bytes_received,
        wasted_bytes=tally.bytes_wasted,
    )
