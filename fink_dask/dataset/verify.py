"""Prove a dataset: the ledger accounts for every offset of the plan, and the files hold what the ledger says."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fink_dask.dataset.lease import is_held
from fink_dask.dataset.ledger import DamagedMarker, Ledger, storage_error
from fink_dask.dataset.outdir import check_dataset, is_finder_file
from fink_dask.dataset.publish import destinations, staging_of
from fink_dask.dataset.records import DataFile, Identity, Marker, Plan
from fink_dask.dataset.summary import Progress, Summary, progress_of
from fink_dask.dataset.versions import check_schemas
from fink_dask.dataset.writer import KAFKA_FIELDS, Origin
from fink_dask.errors import LedgerError
from fink_dask.kafka.offsets import Interval, Range

#: What the name of a file ends in that a later revision of its range wrote, after eight digits of the plan.
_REVISION = re.compile(r"(?<=-[0-9a-f]{8})-[0-9]+$")


@dataclass(frozen=True)
class Finding:
    """A committed range whose files are not what its marker says.

    Parameters
    ----------
    marker : Marker
        The marker that counts.
    files : tuple of DataFile
        Those of its files that are as they were written.
    quarantine : DataFile or None
        Its quarantine file, if that is.
    problems : tuple of str
        What is wrong, a line each.
    """

    marker: Marker
    files: tuple[DataFile, ...]
    quarantine: DataFile | None
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Verification:
    """What a verification found.

    Parameters
    ----------
    progress : Progress
        What the ledger says.
    findings : tuple of Finding
        Ranges whose files are not what the ledger says.
    damaged : tuple of DamagedMarker
        Ranges whose marker can't be read.
    foreign : tuple of pathlib.Path
        Files of the dataset that no range wrote.
    schemas : tuple of str
        What is wrong with the writer schemas that the ledger keeps.
    """

    progress: Progress
    findings: tuple[Finding, ...]
    damaged: tuple[DamagedMarker, ...]
    foreign: tuple[Path, ...]
    schemas: tuple[str, ...] = ()

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, a line each."""
        return (
            *(problem for finding in self.findings for problem in finding.problems),
            *(str(marker.error) for marker in self.damaged),
            *(f"{path}: no range wrote this file" for path in self.foreign),
            *self.schemas,
        )

    @property
    def damaged_ranges(self) -> dict[int, list[Interval]]:
        """The ranges, by partition, that lack some of their offsets, or may do so."""
        ranges = sorted([finding.marker.range for finding in self.findings] + [marker.range for marker in self.damaged])
        found: dict[int, list[Interval]] = {}
        for range_ in ranges:
            found.setdefault(range_.partition, []).append((range_.start, range_.end))
        return found

    @property
    def summary(self) -> Summary:
        """The ledger's summary; ``failed`` where the files disagree."""
        return replace(self.progress.summary, state="failed") if self.problems else self.progress.summary


def verify_dataset(ledger: Ledger, advance: Callable[[int], None] = lambda _: None) -> Verification:
    """Check every file of a dataset against its ledger.

    Parameters
    ----------
    ledger : Ledger
        The dataset.
    advance : callable
        Told the bytes of each file that was checked.

    Raises
    ------
    LedgerError
        If there is no ledger, it is damaged, or a transfer is still changing the dataset.
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
    markers = list(ledger.markers(plans, damaged))
    damaged += unmarked_ranges(ledger, plans, markers, damaged)
    known = {ledger.outdir / file.path for marker in markers for file in marker.files}
    findings = [
        finding
        for marker in markers
        if (finding := _examine(ledger, marker, identities[marker.plan_id], advance)) is not None
    ]
    # The files of a range are its own also where its marker can't be read.
    stems = {_stem(identities[bad.plan_id], bad.range, bad.plan_id) for bad in damaged}
    directories = {parent for path in known for parent in path.parents}
    try:
        foreign = tuple(
            path
            for path in _files_below(ledger.outdir, directories)
            if path not in known and not (stems and _REVISION.sub("", path.stem) in stems)
        )
    except OSError as error:
        raise storage_error(error, ledger.outdir) from error
    return Verification(
        progress_of(plans, markers), tuple(findings), tuple(damaged), foreign, check_schemas(ledger, plans)
    )


def unmarked_ranges(
    ledger: Ledger, plans: Sequence[Plan], markers: Sequence[Marker], damaged: Sequence[DamagedMarker] = ()
) -> list[DamagedMarker]:
    """List the ranges that have files in the dataset but no marker: somebody has removed it, as it comes first.

    Raises
    ------
    StorageError
        If the dataset can't be read.
    """
    there = {marker.range for marker in markers} | {bad.range for bad in damaged}
    opened = {
        _stem(plan.identity, range_, plan.plan_id): (plan.plan_id, range_)
        for plan in plans
        for range_ in plan.ranges
        if range_ not in there
    }
    if not opened:
        return []
    try:
        stems = {_REVISION.sub("", path.stem) for path in ledger.outdir.rglob("*.parquet")}
    except OSError as error:
        raise storage_error(error, ledger.outdir) from error
    return [
        DamagedMarker(plan_id, range_, 0, LedgerError(f"{ledger.marker_path(range_)}: gone, but its files are there"))
        for stem, (plan_id, range_) in opened.items()
        if stem in stems
    ]


def _stem(identity: Identity, range_: Range, plan_id: str) -> str:
    """Return what the names of a range's files begin with."""
    return Origin(identity.topic, "", range_, plan_id).file_name.removesuffix(".parquet")


def _examine(ledger: Ledger, marker: Marker, identity: Identity, advance: Callable[[int], None]) -> Finding | None:
    """Check the files of one range."""
    origin = Origin(identity.topic, identity.topic_id, marker.range, marker.plan_id)
    problems: list[str] = []
    intact: list[tuple[Path, DataFile]] = []
    for root, file in destinations(ledger, marker):
        path = root / file.path
        if not path.exists() and (staging_of(ledger, marker) / file.staged).exists():
            found = [f"{path}: committed, but not in the dataset yet; run the same transfer again"]
        else:
            found = check_file(path, file, origin)
        problems += found
        if not found:
            intact.append((path, file))
        advance(file.size)
    if not problems:
        # Rows of files that are not the ones that were written would only say the same again.
        problems = check_offsets(marker, [path for path, _ in intact])
        if not problems:
            return None
        intact = []
    kept = [file for _, file in intact]
    quarantine = marker.quarantine if marker.quarantine in kept else None
    return Finding(marker, tuple(file for file in kept if file in marker.files), quarantine, tuple(problems))


def check_file(path: Path, file: DataFile, origin: Origin) -> list[str]:
    """Compare one file with what its range's marker says of it, and its footer with where it should come from."""
    try:
        size = path.stat().st_size
        if size != file.size:
            return [f"{path}: {size:,} bytes, but {file.size:,} were written"]
        with path.open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != file.sha256:
                return [f"{path}: its content is not what was written"]
        with pq.ParquetFile(path) as parquet:
            metadata = parquet.metadata
    except FileNotFoundError:
        return [f"{path}: missing"]
    except (OSError, pa.ArrowException) as error:
        return [f"{path}: {str(error).splitlines()[0][:200]}"]
    if metadata.num_rows != file.rows:
        return [f"{path}: {metadata.num_rows:,} rows, but {file.rows:,} were written"]
    return check_footer(path, metadata, origin)


def check_footer(path: Path, metadata: pq.FileMetaData, origin: Origin) -> list[str]:
    """Compare the footer of a file with where the file should come from."""
    footer = metadata.metadata or {}
    said = {key: footer.get(key.encode(), b"").decode(errors="replace")[:300] for key in origin.footer()}
    differing = [key for key, expected in origin.footer().items() if said[key] != expected]
    return [
        f"{path}: its footer says {key} {said[key]!r}, the ledger {origin.footer()[key]!r}" for key in differing[:1]
    ]


def check_offsets(marker: Marker, paths: Sequence[Path]) -> list[str]:
    """Compare the offsets that the rows and the quarantined records carry with what the marker accounts for."""
    name = f"partition {marker.range.partition} [{marker.range.start}, {marker.range.end})"
    seen = []
    for path in paths:
        try:
            partitions, offsets = read_places(path)
        except (OSError, KeyError, pa.ArrowException) as error:
            return [f"{path}: {str(error).splitlines()[0][:200]}"]
        if ((offsets < marker.range.start) | (offsets >= marker.range.end)).any() or (
            partitions != marker.range.partition
        ).any():
            return [f"{path}: holds rows of another range than {name}"]
        seen.append(offsets)
    offsets = np.sort(np.concatenate(seen)) if seen else np.empty(0, np.int64)
    repeated = offsets[1:][np.diff(offsets) == 0]
    if repeated.size:
        return [f"{name}: offset {repeated[0]} is there twice"]
    for start, end in (*marker.lost, *marker.holes):
        first, last = np.searchsorted(offsets, (start, end))
        if last > first:
            return [f"{name}: offset {offsets[first]} is there, but its marker says that Kafka had none"]
    return []


def read_places(path: Path) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Read partition and offset of each row of a file."""
    table = pq.read_table(path, columns=[field.name for field in KAFKA_FIELDS], partitioning=None)
    partitions, offsets = (table[field.name].to_numpy() for field in KAFKA_FIELDS)
    return partitions, offsets


def _files_below(directory: Path, known: Set[Path]) -> Iterator[Path]:
    """Yield whatever is no directory; a link to one as well, because readers follow it, unless it is known.

    A directory of the dataset may be a link to another disk.
    """
    if not directory.exists():
        return
    for entry in sorted(directory.iterdir()):
        if entry.is_dir() and (not entry.is_symlink() or entry in known):
            yield from _files_below(entry, known)
        elif not is_finder_file(entry):
            yield entry
