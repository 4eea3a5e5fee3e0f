"""How complete a dataset is, read off its ledger; and what a running transfer notes there for `status`.

The notes, of what has arrived and of how far a dataset is behind a topic that is followed, are for nothing else.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Literal, Protocol, TypeVar

from fink_dask.errors import FinkDaskError, StorageError
from fink_dask.kafka.offsets import Interval, merge, total
from fink_dask.ledger.ledger import Ledger, storage_error
from fink_dask.ledger.records import Marker, Plan, check_types
from fink_dask.units import pluralize

#: ``complete``: every offset of the plan is in the dataset. ``partial``: finished, but records were quarantined or
#: lost. ``failed``: it ended with an error, or the files are not what the ledger says. ``interrupted``: offsets are
#: missing, and the same command fetches them.
State = Literal["complete", "partial", "failed", "interrupted"]

_MAX_BYTES = 2**20

_ARRIVAL = "arrival.json"

_LAG = "lag.json"


@dataclass(frozen=True)
class Summary:
    """What a dataset holds, and what the last run added; the fields of ``--json``."""

    topic: str
    state: State
    #: Alerts in the dataset, left out by the condition, left out because another one has the same identifier, handed
    #: over, not decodable, removed by Kafka before they could be read.
    alerts: int = 0
    filtered: int = 0
    duplicates: int = 0
    handed_over: int = 0
    quarantined: int = 0
    lost: int = 0
    #: raw_bytes, written_bytes: bytes consumed from Kafka and bytes of the files.
    raw_bytes: int = 0
    written_bytes: int = 0
    #: files, ranges: files of the dataset and committed ranges.
    files: int = 0
    ranges: int = 0
    #: Alerts that this run added.
    run_alerts: int = 0
    #: run_received_bytes, run_wasted_bytes: bytes that arrived from Kafka in this run, and how many of them in vain, as
    #: an attempt at a range failed.
    run_received_bytes: int = 0
    run_wasted_bytes: int = 0
    #: How long this run took.
    run_seconds: float = 0.0
    #: since, until: the times, in UTC (ISO 8601), of the first alerts in Kafka that were asked for, and of the first
    #: ones that were not asked for any more, in the last run that planned any.
    since: str | None = None
    until: str | None = None
    #: The most alerts that the last run was to take, where the topic held more.
    limit: int | None = None

    @property
    def transferred(self) -> int:
        """Alerts that were written, whether they are still in the dataset or were handed over."""
        return self.alerts + self.handed_over

    @property
    def exit_code(self) -> int:
        """The exit status that tells a script the same."""
        return {"complete": 0, "partial": 3, "failed": 1, "interrupted": 1}[self.state]


@dataclass(frozen=True)
class Completeness:
    """The summary of a ledger, with what is still missing."""

    #: The sums over all committed ranges.
    summary: Summary
    #: planned_ranges, planned_offsets, estimated_bytes: what all generations of the plan hold.
    planned_ranges: int
    planned_offsets: int
    estimated_bytes: int
    #: Planned offsets that are not committed, for each partition that has some.
    missing: dict[int, list[Interval]]
    #: Offsets that are declared lost, for each partition that has some.
    lost: dict[int, list[Interval]]
    #: Newest timestamp of what is committed, in milliseconds since 1970-01-01 UTC.
    newest_ms: int | None

    @property
    def missing_offsets(self) -> int:
        """Planned offsets that are not committed."""
        return sum(total(intervals) for intervals in self.missing.values())


def absent_words(summary: Summary) -> str:
    """Say which alerts came and are not in a dataset, for the end of a message that something is not found there."""
    handed_over, filtered = summary.handed_over, summary.filtered
    parts = [f"{handed_over:,} handed over, whose files are elsewhere now"] if handed_over else []
    parts += [f"{filtered:,} filtered by the condition of the transfer"] if filtered else []
    came = pluralize(summary.alerts + handed_over + filtered, "alert")
    return f" (of {came} that came: {'; '.join(parts)})" if parts else ""


def summarise(ledger: Ledger) -> Completeness:
    """Read how complete a dataset is.

    Raises LedgerError if the ledger is damaged.
    """
    plans = ledger.plans()
    return completeness_of(plans, ledger.markers(plans))


def without_figures(ledger: Ledger, state: State = "failed") -> Summary:
    """Return what is left to say of a dataset that could not be read; without a plan its name is the directory's."""
    try:
        plans = ledger.plans()
    except FinkDaskError:
        plans = []
    return Summary(plans[0].identity.topic if plans else ledger.outdir.name, state)


def completeness_of(plans: Sequence[Plan], markers: Sequence[Marker]) -> Completeness:
    """Sum up plans and markers."""
    committed = {marker.range for marker in markers}
    missing = _by_partition(
        (offset_range.partition, (offset_range.start, offset_range.end))
        for plan in plans
        for offset_range in plan.ranges
        if offset_range not in committed
    )
    lost = _by_partition((marker.range.partition, interval) for marker in markers for interval in marker.lost)
    quarantined = sum(marker.quarantined for marker in markers)
    lost_offsets = sum(total(intervals) for intervals in lost.values())
    files = {file.path: file.size for marker in markers for file in marker.files}
    finished: State = "partial" if quarantined or lost_offsets else "complete"
    summary = Summary(
        topic=plans[0].identity.topic if plans else "",
        state="interrupted" if missing else finished,
        alerts=sum(marker.rows for marker in markers),
        filtered=sum(marker.filtered for marker in markers),
        duplicates=sum(total(marker.duplicates) for marker in markers if marker.duplicates),
        handed_over=sum(total(marker.handed_over) for marker in markers if marker.handed_over),
        quarantined=quarantined,
        lost=lost_offsets,
        raw_bytes=sum(marker.raw_bytes for marker in markers),
        written_bytes=sum(files.values()),
        files=len(files),
        ranges=len(markers),
        since=plans[0].identity.since if plans else None,
        until=plans[-1].until if plans else None,
        limit=plans[-1].limit if plans else None,
    )
    return Completeness(
        summary=summary,
        planned_ranges=sum(len(plan.ranges) for plan in plans),
        planned_offsets=sum(len(offset_range) for plan in plans for offset_range in plan.ranges),
        estimated_bytes=sum(plan.estimated_bytes for plan in plans),
        missing=missing,
        lost=lost,
        newest_ms=max((marker.newest_ms for marker in markers if marker.newest_ms is not None), default=None),
    )


def written_bytes(ledger: Ledger) -> int:
    """Sum up the bytes of the dataset's files, leaving out markers that can't be read."""
    markers = ledger.markers(ledger.plans(), [])
    return sum({file.path: file.size for marker in markers for file in marker.files}.values())


def _by_partition(pairs: Iterable[tuple[int, Interval]]) -> dict[int, list[Interval]]:
    grouped: dict[int, list[Interval]] = {}
    for partition, interval in pairs:
        grouped.setdefault(partition, []).append(interval)
    return {partition: merge(intervals) for partition, intervals in sorted(grouped.items())}


class Note(Protocol):
    """What is true at one moment."""

    @property
    def at(self) -> float:
        """When, in seconds since 1970-01-01 UTC."""
        ...


Kept = TypeVar("Kept", bound=Note)


def write_note(ledger: Ledger, name: str, content: Mapping[str, Any]) -> None:
    """Keep a note in the ledger; nothing depends on it, so it need not survive a power cut.

    Raises StorageError if the file system refuses.
    """
    path = ledger.path / name
    try:
        ledger.store.note(path, json.dumps(content).encode())
    except OSError as error:
        raise storage_error(error, path) from error


def read_note(ledger: Ledger, name: str, make: Callable[[dict[str, Any]], Kept], not_older_s: float) -> Kept | None:
    """Read a note; None where there is none, only an old one, or something else.

    `make`: makes the note from JSON; whatever it raises for wrong content means that this is no note.
    """
    try:
        with (ledger.path / name).open("rb") as file:
            note = make(json.loads(file.read(_MAX_BYTES)))
    except (OSError, StorageError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    # Clocks differ a little; a time far in the future would never become old.
    return note if abs(time.time() - note.at) <= not_older_s else None


class Phase(StrEnum):
    """How far a transfer is, in words where there are no numbers yet."""

    CONNECTING = "connecting"
    WAITING = "waiting for the first response"
    RECEIVING = "receiving"
    WRITING = "all received, writing it"
    DONE = "all committed"


@dataclass(frozen=True)
class Arrival:
    """What has arrived at one moment."""

    #: When, in seconds since 1970-01-01 UTC.
    at: float
    #: How far it is.
    phase: Phase
    #: Offsets that are committed, also by earlier runs, or have arrived.
    offsets: int
    #: received_bytes, wasted_bytes: bytes of these that this run has received, and bytes that came in vain.
    received_bytes: int
    wasted_bytes: int
    #: How fast they arrive, lately.
    bytes_per_second: float
    #: About the bytes that have not arrived yet; None if unknown.
    bytes_left: int | None
    #: About how long these take; None if unknown.
    seconds_left: float | None
    #: Seconds since Kafka last sent something; None where nothing is expected of it.
    quiet_s: float | None
    #: Whether that is longer than a slow line explains.
    is_cut: bool
    #: How long nothing may come before that is an error.
    reconnect_timeout_s: float | None
    #: The bytes a second that the run keeps to, if it was told so.
    limit_rate: int | None = None


def write_arrival(ledger: Ledger, arrival: Arrival) -> None:
    """Keep it in the ledger.

    Raises StorageError if the file system refuses.
    """
    write_note(ledger, _ARRIVAL, asdict(arrival))


def read_arrival(ledger: Ledger, not_older_s: float) -> Arrival | None:
    """Read it, or None where there is none, or only one that is older than so many seconds.

    What was quiet when it was written is taken to be quiet since.
    """
    arrival = read_note(ledger, _ARRIVAL, _arrival_of, not_older_s)
    if arrival is None or arrival.quiet_s is None:
        return arrival
    return replace(arrival, quiet_s=arrival.quiet_s + max(0.0, time.time() - arrival.at))


def _arrival_of(content: Mapping[str, Any]) -> Arrival:
    """Make it from JSON.

    Raises ValueError, KeyError, TypeError if it is something else.
    """
    arrival = Arrival(**{**content, "phase": Phase(content["phase"])})
    check_types(arrival)
    return arrival


@dataclass(frozen=True)
class Lag:
    """The lag of each partition, in offsets that are not committed, at one moment."""

    #: When, in seconds since 1970-01-01 UTC.
    at: float
    #: Offsets of each partition between what is committed and its last stable offset.
    partitions: Mapping[int, int]
    #: Alerts that are read in a second, lately.
    alerts_per_second: float = 0.0
    #: Newest timestamp of what is committed, in milliseconds since 1970-01-01 UTC.
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

    Raises StorageError if the file system refuses.
    """
    write_note(ledger, _LAG, asdict(lag))


def forget_lag(ledger: Ledger) -> None:
    """Remove the lag, as whatever comes now is not followed.

    Raises StorageError if the file system refuses.
    """
    path = ledger.path / _LAG
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(error, path) from error


def read_lag(ledger: Ledger, not_older_s: float) -> Lag | None:
    """Read the lag, or None where there is none, or only one that is older than so many seconds."""
    return read_note(ledger, _LAG, _lag_of, not_older_s)


def _lag_of(content: Mapping[str, Any]) -> Lag:
    """Make a lag from JSON.

    Raises ValueError, KeyError, TypeError, AttributeError if it is something else.
    """
    lag = Lag(**{**content, "partitions": {int(number): count for number, count in content["partitions"].items()}})
    check_types(lag)
    return lag
