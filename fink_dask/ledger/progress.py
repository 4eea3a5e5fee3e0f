"""How complete a dataset is, read off its ledger."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from fink_dask.kafka.offsets import Interval, merge, subtract, total
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.records import Marker, Plan

#: ``complete``: every offset of the plan is in the dataset. ``partial``: finished, but records were quarantined or
#: lost. ``failed``: it ended with an error, or the files are not what the ledger says. ``interrupted``: offsets are
#: missing, and the same command fetches them.
State = Literal["complete", "partial", "failed", "interrupted"]


@dataclass(frozen=True)
class Summary:
    """What a dataset holds, and what the last run added; the fields of ``--json``.

    Parameters
    ----------
    topic : str
        The topic.
    state : {"complete", "partial", "failed", "interrupted"}
        How it ended.
    alerts, filtered, duplicates, quarantined, lost : int
        Alerts in the dataset, left out by the condition, left out because another one has the same identifier, not
        decodable, removed by Kafka before they could be read.
    raw_bytes, written_bytes : int
        Bytes consumed from Kafka and bytes of the files.
    files, ranges : int
        Files of the dataset and committed ranges.
    run_alerts : int
        Alerts that this run added.
    run_received_bytes, run_wasted_bytes : int
        Bytes that arrived from Kafka in this run, and how many of them in vain, as an attempt at a range failed.
    run_seconds : float
        How long this run took.
    """

    topic: str
    state: State
    alerts: int = 0
    filtered: int = 0
    duplicates: int = 0
    quarantined: int = 0
    lost: int = 0
    raw_bytes: int = 0
    written_bytes: int = 0
    files: int = 0
    ranges: int = 0
    run_alerts: int = 0
    run_received_bytes: int = 0
    run_wasted_bytes: int = 0
    run_seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """The exit status that tells a script the same."""
        return {"complete": 0, "partial": 3, "failed": 1, "interrupted": 1}[self.state]


@dataclass(frozen=True)
class Progress:
    """The summary of a ledger, with what is still missing.

    Parameters
    ----------
    summary : Summary
        The sums over all committed ranges.
    planned_ranges, planned_offsets, estimated_bytes : int
        What all generations of the plan hold.
    missing : dict of int to list of (int, int)
        Planned offsets that are not committed, for each partition that has some.
    lost : dict of int to list of (int, int)
        Offsets that are declared lost, for each partition that has some.
    newest_ms : int or None
        Newest timestamp of what is committed, in milliseconds since 1970-01-01 UTC.
    """

    summary: Summary
    planned_ranges: int
    planned_offsets: int
    estimated_bytes: int
    missing: dict[int, list[Interval]]
    lost: dict[int, list[Interval]]
    newest_ms: int | None

    @property
    def missing_offsets(self) -> int:
        """Planned offsets that are not committed."""
        return sum(total(intervals) for intervals in self.missing.values())


def summarise(ledger: Ledger) -> Progress:
    """Read how complete a dataset is.

    Raises
    ------
    LedgerError
        If the ledger is damaged.
    """
    plans = ledger.plans()
    return progress_of(plans, list(ledger.markers(plans)))


def progress_of(plans: Sequence[Plan], markers: Sequence[Marker]) -> Progress:
    """Sum up plans and markers."""
    planned = _by_partition((range_.partition, (range_.start, range_.end)) for plan in plans for range_ in plan.ranges)
    committed = _by_partition((marker.range.partition, (marker.range.start, marker.range.end)) for marker in markers)
    missing = {partition: subtract(whole, committed.get(partition, [])) for partition, whole in planned.items()}
    missing = {partition: intervals for partition, intervals in missing.items() if intervals}
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
        duplicates=sum(total(marker.duplicates) for marker in markers),
        quarantined=quarantined,
        lost=lost_offsets,
        raw_bytes=sum(marker.raw_bytes for marker in markers),
        written_bytes=sum(files.values()),
        files=len(files),
        ranges=len(markers),
    )
    return Progress(
        summary=summary,
        planned_ranges=sum(len(plan.ranges) for plan in plans),
        planned_offsets=sum(total(intervals) for intervals in planned.values()),
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
