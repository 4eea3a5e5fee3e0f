"""What the ledger of a dataset says: how far it is, what became of each offset, its files, and when all that was."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from itertools import count
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt

from fink_dask.dataset.quarantine import read_quarantine
from fink_dask.errors import FinkDaskError
from fink_dask.kafka.offsets import total
from fink_dask.ledger.commit import gone_files
from fink_dask.ledger.lease import is_held
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.outdir import check_dataset, total_of
from fink_dask.ledger.records import DamagedMarker, Identity, Marker, Plan, unseal
from fink_dask.ledger.summary import Completeness, completeness_of
from fink_dask.progress.profile import Profile

Floats = npt.NDArray[np.float64]

#: Seconds without a commit that count as a pause, or so many times the usual gap if commits are rare anyway.
_PAUSE_S = 60.0
_RARE = 20
#: The fewest commits per step of the curve, and the most steps.
_STEP_COMMITS, _STEPS = 3, 100
_MIN_S = 1e-3

#: How many profiles, and quarantined records, are looked at.
_PROFILES, _QUARANTINED = 200, 100_000


@dataclass(frozen=True)
class Commit:
    """A range that became part of the dataset."""

    #: When, in seconds since 1970-01-01 UTC.
    at: float
    #: Alerts that it held, filtered ones too.
    alerts: int


@dataclass(frozen=True)
class Run:
    """A finished run: when it began, in seconds since 1970-01-01 UTC, and where its time went."""

    began: float
    profile: Profile


@dataclass(frozen=True)
class Throughput:
    """How fast it went."""

    #: began, ended: the first plan, or else the first thing known, and the last commit, in seconds since 1970-01-01
    #: UTC.
    began: float | None
    ended: float | None
    #: Working time: that between them, without pauses.
    seconds: float
    #: Periods in which nothing was committed.
    pauses: int
    #: Working time, in seconds, at which steps begin and end.
    edges: Floats
    #: What was committed in each step.
    alerts_per_second: Floats


def pace_of(commits: Sequence[Commit], plans: Sequence[float], runs: Sequence[Run] = ()) -> Throughput:
    """Find out how fast a dataset was written."""
    begins = sorted([*plans, *(run.began for run in runs)])
    if not commits:
        nothing = np.empty(0)
        return Throughput(min(begins, default=None), None, 0.0, 0, nothing, nothing)
    ordered = sorted(commits, key=lambda commit: commit.at)
    at = np.array([commit.at for commit in ordered])
    gaps = np.diff(at)
    usual = float(np.median(gaps)) if len(gaps) else 0.0
    # The first commit of each stretch of work.
    firsts = np.flatnonzero(np.concatenate([[True], gaps > max(_PAUSE_S, _RARE * usual)]))
    worked = np.zeros(len(at))
    seconds = 0.0
    for number, first in enumerate(firsts):
        last = firsts[number + 1] if number + 1 < len(firsts) else len(at)
        before = at[first - 1] if first else -np.inf
        latest = bisect_right(begins, at[first]) - 1
        has_begun = latest >= 0 and begins[latest] > before
        begin = begins[latest] if has_begun else at[first] - max(usual, _MIN_S)
        if not number:
            begin = min((each for each in begins if each <= at[first]), default=begin)
            began = begin
        worked[first:last] = seconds + at[first:last] - begin
        seconds = float(worked[last - 1])
    seconds = max(seconds, _MIN_S)
    edges = np.linspace(0, seconds, int(np.clip(len(at) // _STEP_COMMITS, 1, _STEPS)) + 1)
    step_s = edges[1]
    alerts = np.array([float(each.alerts) for each in ordered])
    alerts_per_second = np.histogram(worked, edges, weights=alerts)[0] / step_s
    return Throughput(float(began), float(at[-1]), seconds, len(firsts) - 1, edges, alerts_per_second)


@dataclass
class Partition:
    """What became of a partition's planned offsets; ``absent`` counts holes and duplicates."""

    number: int
    alerts: int = 0
    handed_over: int = 0
    filtered: int = 0
    absent: int = 0
    quarantined: int = 0
    lost: int = 0
    missing: int = 0


@dataclass(frozen=True)
class Loss:
    """Offsets that Kafka removed, and when this was noticed."""

    partition: int
    start: int
    end: int
    at: str | None


@dataclass
class Reasons:
    """Why records are quarantined."""

    counts: Counter[str] = field(default_factory=Counter)
    #: Partition and offset of the first record for each reason.
    examples: dict[str, tuple[int, int]] = field(default_factory=dict)
    #: Records whose reason was read.
    looked_at: int = 0
    #: Why some of them could not be read.
    problem: str | None = None


@dataclass(frozen=True)
class Facts:
    """Everything that can be said without reading alerts."""

    outdir: Path
    #: The topic and selection that it holds.
    identity: Identity
    #: Sums, and what is missing.
    completeness: Completeness
    #: Whether a transfer is running on it.
    is_running: bool
    #: Whether it was compacted, so that the times at which its ranges were committed are lost.
    is_compacted: bool
    #: Markers that can't be read; their ranges count as missing.
    damaged: int
    #: Files that are missing, or of another size than was written; none are looked for while a transfer runs.
    gone: int
    markers: list[Marker]
    #: What became of the offsets.
    partitions: list[Partition]
    #: When ranges were committed.
    commits: list[Commit]
    #: When plans were made, in seconds since 1970-01-01 UTC.
    planned: list[float]
    #: What was committed when.
    pace: Throughput
    #: The last finished runs.
    runs: list[Run]
    #: Why records are quarantined.
    reasons: Reasons
    #: The lost offsets, the largest interval first.
    losses: list[Loss]
    #: What is known of each topic of a season; empty for a dataset.
    topics: tuple[Facts, ...] = ()

    @property
    def state(self) -> str:
        """How far it is; that it has failed where files are gone, which every other command says."""
        if self.is_running:
            return "running"
        return "failed" if self.gone else self.completeness.summary.state

    @property
    def each(self) -> tuple[Facts, ...]:
        """What is known of each dataset: of this one, or of those of a season."""
        return self.topics or (self,)

    @property
    def handed_over_ranges(self) -> int:
        """Ranges some of whose alerts were handed over."""
        return sum(bool(marker.handed_over) for marker in self.markers)

    @property
    def sizes(self) -> list[int]:
        """Bytes of each file of the dataset."""
        return list({file.path: file.size for marker in self.markers for file in marker.files}.values())

    @property
    def keys(self) -> Counter[tuple[tuple[str, str], ...]]:
        """Alerts by the levels of their directories, as column names and values."""
        found: Counter[tuple[tuple[str, str], ...]] = Counter()
        for marker in self.markers:
            for file in marker.files:
                found[_levels(file.path)] += file.rows
        return found


def find_facts(ledger: Ledger) -> Facts:
    """Read a ledger; nothing is written, and a transfer may be running on it.

    Raises LedgerError if there is no dataset, or its plan is damaged.
    Raises StorageError if the file system, or the object store, refuses.
    """
    check_dataset(ledger)
    is_running, is_compacted = is_held(ledger), ledger.compaction_path.exists()
    plans = ledger.plans()
    damaged: list[DamagedMarker] = []
    markers = ledger.markers(plans, damaged)
    completeness = completeness_of(plans, markers)
    runs = _runs(ledger)
    commits = [] if is_compacted else _commits(ledger, markers)
    planned = _planned(ledger, plans)
    losses = [
        Loss(marker.range.partition, start, end, marker.lost_at) for marker in markers for start, end in marker.lost
    ]
    return Facts(
        outdir=ledger.outdir,
        identity=plans[-1].identity,
        completeness=completeness,
        is_running=is_running,
        is_compacted=is_compacted,
        damaged=len(damaged),
        gone=0 if is_running else len(gone_files(ledger, plans, markers)),
        markers=markers,
        partitions=_partitions(plans, markers, completeness),
        commits=commits,
        planned=planned,
        pace=pace_of(commits, planned, runs),
        runs=runs,
        reasons=_reasons(ledger, markers),
        losses=sorted(losses, key=lambda loss: loss.start - loss.end),
    )


def _partitions(plans: Sequence[Plan], markers: Sequence[Marker], completeness: Completeness) -> list[Partition]:
    found = {
        offset_range.partition: Partition(offset_range.partition) for plan in plans for offset_range in plan.ranges
    }
    for marker in markers:
        partition = found[marker.range.partition]
        partition.alerts += marker.rows
        partition.filtered += marker.filtered
        partition.handed_over += total(marker.handed_over)
        partition.absent += total((*marker.holes, *marker.duplicates))
        partition.quarantined += marker.quarantined
        partition.lost += total(marker.lost)
    for number, intervals in completeness.missing.items():
        found[number].missing = total(intervals)
    return [found[number] for number in sorted(found)]


def _commits(ledger: Ledger, markers: Sequence[Marker]) -> list[Commit]:
    """Find out when ranges were committed: by the time of a marker's file, the first of which a repair leaves there."""

    def committed_at(marker: Marker) -> float | None:
        for revision in dict.fromkeys((0, marker.revision)):
            with suppress(OSError):
                return ledger.marker_path(marker.range, revision).stat().st_mtime
        return None

    return [
        Commit(at, marker.transferred + marker.filtered)
        for marker, at in ledger.store.for_each(committed_at, markers)
        if at is not None
    ]


def _planned(ledger: Ledger, plans: Sequence[Plan]) -> list[float]:
    found = []
    for plan in plans:
        with suppress(OSError):
            found.append(ledger.plan_path(plan).stat().st_mtime)
    return found


def _runs(ledger: Ledger) -> list[Run]:
    """Read the profiles of the last runs, and when these began; damaged ones are left out."""
    found: list[Run] = []
    if not ledger.profiles_path.is_dir():
        return found
    for path in sorted(ledger.profiles_path.glob("[0-9]*.json"))[-_PROFILES:]:
        with suppress(FinkDaskError, OSError):
            profile = Profile.from_json(unseal("profile", path))
            found.append(Run(path.stat().st_mtime - profile.seconds, profile))
    return found


def _reasons(ledger: Ledger, markers: Sequence[Marker]) -> Reasons:
    found = Reasons()
    for marker in markers:
        if marker.quarantine is None:
            continue
        if found.looked_at >= _QUARANTINED:
            break
        try:
            for batch in read_quarantine(ledger, marker.quarantine, ["kafka_partition", "kafka_offset", "reason"]):
                for partition, offset, reason in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    found.counts[reason] += 1
                    found.examples.setdefault(reason, (partition, offset))
                    found.looked_at += 1
                if found.looked_at >= _QUARANTINED:
                    break
        except FinkDaskError as error:
            found.problem = str(error)
    return found


def _levels(path: str) -> tuple[tuple[str, str], ...]:
    levels = (level.partition("=") for level in PurePosixPath(path).parts[:-1])
    return tuple((unquote(column), unquote(value)) for column, _, value in levels)


def facts_of_season(outdir: Path, topics: Sequence[Facts]) -> Facts:
    """Put together what is known of several topics.

    `topics`: what is known of each; at least one.
    Returns: the partition columns and the condition are those of all topics, or none if these differ; partitions of the
    same number are counted together.
    """
    first, *others = (each.identity for each in topics)
    identity = replace(
        first,
        partitionby=first.partitionby if all(each.partitionby == first.partitionby for each in others) else (),
        where=first.where if all(each.where == first.where for each in others) else None,
    )
    commits = [commit for each in topics for commit in each.commits]
    runs = [run for each in topics for run in each.runs]
    planned = [at for each in topics for at in each.planned]
    return Facts(
        outdir=outdir,
        identity=identity,
        completeness=_joint_completeness([each.completeness for each in topics]),
        is_running=any(each.is_running for each in topics),
        is_compacted=any(each.is_compacted for each in topics),
        damaged=sum(each.damaged for each in topics),
        gone=sum(each.gone for each in topics),
        markers=[marker for each in topics for marker in each.markers],
        partitions=_joint_partitions([partition for each in topics for partition in each.partitions]),
        commits=commits,
        planned=planned,
        pace=pace_of(commits, planned, runs),
        runs=runs,
        reasons=_joint_reasons([each.reasons for each in topics]),
        losses=sorted((loss for each in topics for loss in each.losses), key=lambda loss: loss.start - loss.end),
        topics=tuple(topics),
    )


def _joint_completeness(found: Sequence[Completeness]) -> Completeness:
    number = count()  # partitions of several topics have the same numbers
    return Completeness(
        summary=total_of([each.summary for each in found]),
        planned_ranges=sum(each.planned_ranges for each in found),
        planned_offsets=sum(each.planned_offsets for each in found),
        estimated_bytes=sum(each.estimated_bytes for each in found),
        missing={next(number): intervals for each in found for intervals in each.missing.values()},
        lost={next(number): intervals for each in found for intervals in each.lost.values()},
        newest_ms=max((each.newest_ms for each in found if each.newest_ms is not None), default=None),
    )


def _joint_partitions(found: Sequence[Partition]) -> list[Partition]:
    sums: dict[int, Partition] = {}
    for each in found:
        whole = sums.setdefault(each.number, Partition(each.number))
        for part in fields(Partition):
            if part.name != "number":
                setattr(whole, part.name, getattr(whole, part.name) + getattr(each, part.name))
    return [sums[number] for number in sorted(sums)]


def _joint_reasons(found: Sequence[Reasons]) -> Reasons:
    return Reasons(
        counts=sum((each.counts for each in found), start=Counter()),
        examples={reason: place for each in reversed(found) for reason, place in each.examples.items()},
        looked_at=sum(each.looked_at for each in found),
        problem=next((each.problem for each in found if each.problem is not None), None),
    )
