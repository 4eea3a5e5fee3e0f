"""Prove a dataset: the ledger accounts for every offset of the plan, and the files hold what the ledger says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fink_dask.dataset.formats import UNREADABLE, Offsets, Origin, format_of, why_unreadable
from fink_dask.dataset.presence import (
    SharedPlaces,
    check_file,
    check_offsets,
    stem_of,
    unmarked_ranges,
    without_revision,
)
from fink_dask.dataset.schema_versions import check_schemas
from fink_dask.errors import LedgerError
from fink_dask.kafka.offsets import Interval
from fink_dask.ledger.commit import destinations, staging_of
from fink_dask.ledger.lease import is_held
from fink_dask.ledger.ledger import Ledger, storage_in_words
from fink_dask.ledger.outdir import check_dataset, total_of
from fink_dask.ledger.records import DamagedMarker, DataFile, Identity, Marker
from fink_dask.ledger.summary import Completeness, Summary, completeness_of
from fink_dask.units import pluralize

#: What the footer of a file of many ranges says as well.
SHARED_FOOTER = ("fink_dask.topic",)


@dataclass(frozen=True)
class Finding:
    """A committed range whose files are not what its marker says."""

    #: The marker that counts.
    marker: Marker
    #: Those of its files that are as they were written.
    files: tuple[DataFile, ...]
    #: Its quarantine file, if that is.
    quarantine: DataFile | None
    #: What is wrong, a line each.
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Verification:
    """What a verification found."""

    #: What the ledger says.
    completeness: Completeness
    #: Ranges whose files are not what the ledger says.
    findings: tuple[Finding, ...]
    #: Ranges whose marker can't be read.
    damaged: tuple[DamagedMarker, ...]
    #: Files of the dataset that no range wrote.
    foreign: tuple[Path, ...]
    #: What is wrong with the writer schemas that the ledger keeps.
    schemas: tuple[str, ...] = ()

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, a line each."""
        return (
            # What is wrong with a file of many ranges is said once.
            *dict.fromkeys(problem for finding in self.findings for problem in finding.problems),
            *(str(marker.error) for marker in self.damaged),
            *(f"{path}: no range wrote this file" for path in self.foreign),
            *self.schemas,
        )

    @property
    def is_complete(self) -> bool:
        """Whether the files are what was written, and every planned offset is in the dataset itself."""
        return self.summary.state == "complete"

    @property
    def damaged_ranges(self) -> dict[int, list[Interval]]:
        """The ranges, by partition, that lack some of their offsets, or may lack some."""
        ranges = sorted([finding.marker.range for finding in self.findings] + [marker.range for marker in self.damaged])
        found: dict[int, list[Interval]] = {}
        for offset_range in ranges:
            found.setdefault(offset_range.partition, []).append((offset_range.start, offset_range.end))
        return found

    @property
    def summary(self) -> Summary:
        """The ledger's summary; ``failed`` where the files disagree."""
        return replace(self.completeness.summary, state="failed") if self.problems else self.completeness.summary


@dataclass(frozen=True)
class SeasonVerification:
    """What a verification of the datasets of several topics found."""

    #: What it found in each, by the name of its directory.
    topics: Mapping[str, Verification]

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, a line each, with the topic in front."""
        return tuple(f"{name}: {problem}" for name, found in self.topics.items() for problem in found.problems)

    @property
    def is_complete(self) -> bool:
        """Whether every planned offset of every topic is in the datasets themselves."""
        return all(found.is_complete for found in self.topics.values())

    @property
    def summary(self) -> Summary:
        """The sums of the ledgers, with the worst state."""
        return total_of([found.summary for found in self.topics.values()])


def verify_dataset(ledger: Ledger, advance: Callable[[int], None] = lambda _: None) -> Verification:
    """Check every file of a dataset against its ledger.

    `advance`: told the bytes of each file that was checked.
    Raises LedgerError if there is no ledger, it is damaged, or a transfer is still changing the dataset.
    """
    check_dataset(ledger)
    if is_held(ledger):
        raise LedgerError(f"a transfer into {ledger.outdir} is running: verify it when it has ended (fink-dask status)")
    return examine_dataset(ledger, advance)


def examine_dataset(ledger: Ledger, advance: Callable[[int], None]) -> Verification:
    """Check every file, as `verify_dataset` does, for whoever holds the lease."""
    plans = ledger.plans()
    identities = {plan.plan_id: plan.identity for plan in plans}
    damaged: list[DamagedMarker] = []
    markers = ledger.markers(plans, damaged)
    damaged += unmarked_ranges(ledger, plans, markers, damaged)
    known = {ledger.outdir / file.path for marker in markers for file in marker.files}
    examiner = _Examiner(ledger, markers, advance)
    findings = [
        finding for marker in markers if (finding := examiner.examine(marker, identities[marker.plan_id])) is not None
    ]
    # The files of a range are its own also where its marker can't be read.
    stems = {stem_of(identities[bad.plan_id], bad.range, bad.plan_id) for bad in damaged}
    directories = {parent for path in known for parent in path.parents}
    with storage_in_words(ledger.outdir):
        foreign = tuple(
            path
            for path in ledger.store.files_below(ledger.outdir, directories)
            if path not in known and not (stems and without_revision(path.stem) in stems)
        )
    return Verification(
        completeness_of(plans, markers), tuple(findings), tuple(damaged), foreign, check_schemas(ledger, plans)
    )


class _Examiner:
    """Checks the files of one range after the other; a file of many ranges is checked once."""

    def __init__(self, ledger: Ledger, markers: Sequence[Marker], advance: Callable[[int], None]) -> None:
        self._ledger = ledger
        self._advance = advance
        self._places = SharedPlaces()
        self._shared: dict[str, list[str]] = {}
        self._claimed: Counter[str] = Counter()
        for marker in markers:
            for file in marker.files:
                self._claimed[file.path] += file.rows

    def examine(self, marker: Marker, identity: Identity) -> Finding | None:
        """Check the files of one range."""
        footer = Origin(identity.topic, identity.topic_id, marker.range, marker.plan_id).footer()
        problems: list[str] = []
        intact: list[DataFile] = []
        for root, file in destinations(self._ledger, marker):
            found = self._check(root / file.path, file, marker, footer)
            problems += found
            if not found:
                intact.append(file)
        if not problems:
            # Of files that are not as they were written, the rows would only say the same again.
            problems = self._check_rows(marker)
            if problems:
                intact = []
            elif marker.filtered and identity.where is None:
                problems = [f"{marker.range}: its marker says that alerts were filtered, but the plan has no condition"]
            else:
                return None
        quarantine = marker.quarantine if marker.quarantine in intact else None
        return Finding(marker, tuple(file for file in intact if file in marker.files), quarantine, tuple(problems))

    def _check(self, path: Path, file: DataFile, marker: Marker, footer: Mapping[str, str]) -> list[str]:
        if file.path in self._shared:
            return self._shared[file.path]
        if not path.exists() and (staging_of(self._ledger, marker) / file.staged).exists():
            found = [f"{path}: committed, but not in the dataset yet; run the same transfer again"]
        elif file.is_shared:
            topic = {name: footer[name] for name in SHARED_FOOTER}
            found = self._shared[file.path] = check_file(path, file, topic)
            if not found and self._claimed[file.path] > file.all_rows:
                found += [f"{path}: {pluralize(file.all_rows, 'row')}, but markers name {self._claimed[file.path]:,}"]
        else:
            found = check_file(path, file, footer)
        self._advance(file.size)
        return found

    def _check_rows(self, marker: Marker) -> list[str]:
        """Compare the offsets that the rows and the quarantined records carry with what the marker accounts for."""
        seen: list[Offsets] = []
        for root, file in destinations(self._ledger, marker):
            path = root / file.path
            try:
                if file.is_shared:
                    seen.append(self._places.of_range(path, marker.range))
                    is_whole = len(seen[-1]) == file.rows
                else:
                    partitions, offsets = format_of(path).read_places(path)
                    seen.append(offsets)
                    inside = (offsets >= marker.range.start) & (offsets < marker.range.end)
                    is_whole = bool((inside & (partitions == marker.range.partition)).all())
            except UNREADABLE as error:
                return [f"{path}: {why_unreadable(error)}"]
            if not is_whole:
                return [f"{path}: its rows are not those of {marker.range}"]
        return check_offsets(marker, seen)
