"""Prove a dataset: the ledger accounts for every offset of the plan, and the files hold what the ledger says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fink_dask.dataset.commit import staging_of
from fink_dask.dataset.lease import is_held
from fink_dask.dataset.ledger import Ledger, is_finder_file, storage_error
from fink_dask.dataset.records import DataFile, Marker
from fink_dask.dataset.summary import Progress, Summary, progress_of
from fink_dask.dataset.writer import KAFKA_FIELDS, Origin
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
        If there is no ledger, it is damaged, or a transfer is still changing the dataset.
    """
    if not ledger.exists():
        raise LedgerError(f"{ledger.outdir} has no ledger {ledger.path}: fink-dask did not write it, or it was removed")
    if is_held(ledger):
        raise LedgerError(f"a transfer into {ledger.outdir} is running: verify it when it has ended (fink-dask status)")
    plans = ledger.plans()
    identities = {plan.plan_id: plan.identity for plan in plans}
    markers = list(ledger.markers(plans))
    problems = []
    known: set[Path] = set()
    for marker in markers:
        identity = identities[marker.plan_id]
        origin = Origin(identity.topic, identity.topic_id, marker.range, marker.plan_id)
        data = [(ledger.outdir / file.path, file) for file in marker.files]
        quarantine = [] if marker.quarantine is None else [(ledger.path / marker.quarantine.path, marker.quarantine)]
        found: list[str] = []
        for path, file in data + quarantine:
            if not path.exists() and (staging_of(ledger, marker) / file.staged).exists():
                found.append(f"{path}: committed, but not in the dataset yet; run the same transfer again")
            else:
                found += check_file(path, file, origin)
            advance(file.size)
        # Rows of files that are not the ones that were written would only say the same again.
        problems += found or check_offsets(marker, [path for path, _ in data], [path for path, _ in quarantine])
        known.update(path for path, _ in data)
    try:
        problems += [f"{path}: no range wrote this file" for path in _files_below(ledger.outdir) if path not in known]
    except OSError as error:
        raise storage_error(error, ledger.outdir) from error
    return Verification(progress_of(plans, markers), tuple(problems))


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
            rows, footer = parquet.metadata.num_rows, parquet.metadata.metadata or {}
    except FileNotFoundError:
        return [f"{path}: missing"]
    except (OSError, pa.ArrowException) as error:
        return [f"{path}: {str(error).splitlines()[0][:200]}"]
    if rows != file.rows:
        return [f"{path}: {rows:,} rows, but {file.rows:,} were written"]
    said = {key: footer.get(key.encode(), b"").decode(errors="replace")[:300] for key in origin.footer()}
    differing = [key for key, expected in origin.footer().items() if said[key] != expected]
    return [
        f"{path}: its footer says {key} {said[key]!r}, the ledger {origin.footer()[key]!r}" for key in differing[:1]
    ]


def check_offsets(marker: Marker, data: list[Path], quarantine: list[Path]) -> list[str]:
    """Compare the offsets that the rows and the quarantined records carry with what the marker accounts for."""
    name = f"partition {marker.range.partition} [{marker.range.start}, {marker.range.end})"
    seen = []
    for path in data + quarantine:
        try:
            table = pq.read_table(path, columns=[field.name for field in KAFKA_FIELDS], partitioning=None)
            partitions, offsets = (table[field.name].to_numpy() for field in KAFKA_FIELDS)
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


def _files_below(directory: Path) -> Iterator[Path]:
    """Yield whatever is no directory; a link to one as well, because readers follow it."""
    if not directory.exists():
        return
    for entry in sorted(directory.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            yield from _files_below(entry)
        elif not is_finder_file(entry):
            yield entry
