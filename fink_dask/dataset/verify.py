"""Prove a dataset: the ledger accounts for every offset of the plan, and the files hold what the ledger says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fink_dask.dataset.ledger import Ledger
from fink_dask.dataset.records import DataFile, Marker
from fink_dask.dataset.summary import Progress, Summary, progress_of
from fink_dask.errors import LedgerError


@dataclass(frozen=True)
class Verification:
    """What a verification found.

    Parameters
    ----------
    progress : Progress
        What the ledger says.
    problems : tuple of str
        Where the files are not what the ledger says, a line each.
    """

    progress: Progress
    problems: tuple[str, ...]

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
        If there is no ledger, or it is damaged.
    """
    if not ledger.exists():
        raise LedgerError(f"{ledger.outdir} has no ledger {ledger.path}: fink-dask did not write it, or it was removed")
    plans = ledger.plans()
    markers = list(ledger.markers(plans))
    problems = []
    known: set[Path] = set()
    for marker in markers:
        files = [(ledger.outdir / file.path, file) for file in marker.files]
        found: list[str] = []
        for path, file in files:
            found += check_file(path, file)
            advance(file.size)
        # Rows of files that are not the ones that were written would only say the same again.
        problems += found or check_offsets(marker, [path for path, _ in files])
        if marker.quarantine is not None:
            problems += check_file(ledger.path / marker.quarantine.path, marker.quarantine)
        known.update(path for path, _ in files)
    problems += [f"{path}: no range wrote this file" for path in _files_below(ledger.outdir) if path not in known]
    return Verification(progress_of(plans, markers), tuple(problems))


def check_file(path: Path, file: DataFile) -> list[str]:
    """Compare one file with what its range's marker says of it."""
    try:
        size = path.stat().st_size
        if size != file.size:
            return [f"{path}: {size:,} bytes, but {file.size:,} were written"]
        with path.open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != file.sha256:
                return [f"{path}: its content is not what was written"]
        rows = pq.read_metadata(path).num_rows
    except FileNotFoundError:
        return [f"{path}: missing"]
    except (OSError, pa.ArrowException) as error:
        return [f"{path}: {str(error).splitlines()[0][:200]}"]
    return [] if rows == file.rows else [f"{path}: {rows:,} rows, but {file.rows:,} were written"]


def check_offsets(marker: Marker, paths: list[Path]) -> list[str]:
    """Compare the offsets that the rows carry with those that the marker accounts for as alerts."""
    name = f"partition {marker.range.partition} [{marker.range.start}, {marker.range.end})"
    seen = []
    for path in paths:
        table = pq.ParquetFile(path).read(columns=["kafka_partition", "kafka_offset"])
        offsets = table["kafka_offset"].to_numpy()
        foreign = (offsets < marker.range.start) | (offsets >= marker.range.end)
        if foreign.any() or (table["kafka_partition"].to_numpy() != marker.range.partition).any():
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


def _files_below(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            yield path
