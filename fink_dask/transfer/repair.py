"""Find out what a damaged dataset lacks, and which offsets have to be read again to make it whole."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fink_dask.dataset.attempt import Attempt
from fink_dask.dataset.documents import unseal
from fink_dask.dataset.ledger import QUARANTINE_DIRECTORY, DamagedMarker, Ledger
from fink_dask.dataset.records import DataFile, Identity, Plan
from fink_dask.dataset.remainder import Remainder, rest_of
from fink_dask.dataset.verify import Finding, Verification, check_file, read_places
from fink_dask.dataset.writer import Origin
from fink_dask.errors import LedgerError
from fink_dask.kafka.offsets import Interval, Range, merge, subtract, total

#: A marker is smaller, also one with a hole for every second offset of its range.
_MAX_MARKER_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Damage:
    """A range that can be repaired.

    Parameters
    ----------
    plan_id : str
        Its plan.
    range : Range
        The range.
    remainder : Remainder
        What is left of it.
    """

    plan_id: str
    range: Range
    remainder: Remainder

    def gone(self, low: int) -> int:
        """Count the wanted offsets that Kafka, whose partition begins at `low`, no longer has."""
        return total(subtract(self.remainder.wanted, [(low, max(low, self.range.end))]))


def find_damage(ledger: Ledger, plans: Sequence[Plan], found: Verification) -> list[Damage]:
    """List the ranges whose files or markers are not what was written, with what is left of them.

    Parameters
    ----------
    ledger : Ledger
        The dataset.
    plans : sequence of Plan
        Its plans.
    found : Verification
        What is wrong with it.

    Raises
    ------
    LedgerError
        If a marker is one of another plan or range.
    """
    identities = {plan.plan_id: plan.identity for plan in plans}
    damages = [_of_files(ledger, finding) for finding in found.findings]
    damages += [_of_marker(ledger, identities[bad.plan_id], bad) for bad in found.damaged]
    return damages


def write_marker(ledger: Ledger, damage: Damage) -> None:
    """Commit the next revision of a range whose marker alone was damaged; nothing has to be read for it.

    Raises
    ------
    LedgerError
        If another job has changed the range.
    """
    rest = damage.remainder
    attempt = Attempt(ledger, damage.range, damage.plan_id, lambda _: None, rest.revision)
    attempt.begin()
    try:
        attempt.supersede(rest.marker(damage.plan_id, damage.range, attempt.name))
    finally:
        attempt.clean_up()


def _of_files(ledger: Ledger, finding: Finding) -> Damage:
    marker = finding.marker
    kept = [*finding.files, *([finding.quarantine] if finding.quarantine is not None else [])]
    paths = [ledger.outdir / file.path for file in finding.files]
    paths += [ledger.path / file.path for file in kept[len(paths) :]]
    present = [interval for path in paths for interval in _intervals(path)]
    superseded = [file.path for file in marker.files if file not in kept]
    if marker.quarantine is not None and finding.quarantine is None:
        superseded.append(marker.quarantine.path)
    return Damage(
        marker.plan_id,
        marker.range,
        replace(
            rest_of(marker),
            wanted=_rest(marker.range, [*present, *marker.lost, *marker.holes]),
            files=finding.files,
            quarantine=finding.quarantine,
            superseded=tuple(superseded),
        ),
    )


def _of_marker(ledger: Ledger, identity: Identity, bad: DamagedMarker) -> Damage:
    """Keep of a range without a marker the files that the damaged marker still describes as they are."""
    if _is_sealed(ledger.marker_path(bad.range, bad.revision)):
        raise bad.error  # it is whole, but no marker of this range and plan: what belongs here nobody can tell
    origin = Origin(identity.topic, identity.topic_id, bad.range, bad.plan_id)
    pattern = origin.file_name.removesuffix(".parquet") + "*.parquet"
    files, quarantine = _described(ledger.marker_path(bad.range, bad.revision))
    kept = tuple(file for file in files if not check_file(ledger.outdir / file.path, file, origin))
    if quarantine is not None and check_file(ledger.path / quarantine.path, quarantine, origin):
        quarantine = None
    paths = [ledger.outdir / file.path for file in kept]
    if quarantine is not None:
        paths.append(ledger.path / quarantine.path)
    superseded = {path.relative_to(ledger.outdir) for path in ledger.outdir.rglob(pattern)}
    superseded |= {path.relative_to(ledger.path) for path in (ledger.path / QUARANTINE_DIRECTORY).glob(pattern)}
    superseded -= {Path(file.path) for file in (*kept, *([quarantine] if quarantine is not None else []))}
    return Damage(
        bad.plan_id,
        bad.range,
        Remainder(
            revision=bad.revision + 1,
            wanted=_rest(bad.range, [interval for path in paths for interval in _intervals(path)]),
            files=kept,
            quarantine=quarantine,
            superseded=tuple(sorted(path.as_posix() for path in superseded)),
        ),
    )


def _is_sealed(path: Path) -> bool:
    try:
        unseal("marker", path)
    except (LedgerError, OSError):
        return False
    return True


def _described(path: Path) -> tuple[list[DataFile], DataFile | None]:
    """Read what a damaged marker says of its files; nobody can edit a file's hash so that it fits by chance."""
    try:
        with path.open("rb") as file:
            content: Mapping[str, Any] = json.loads(file.read(_MAX_MARKER_BYTES))["marker"]
        quarantine = content["quarantine"]
        return (
            [DataFile(**file) for file in content["files"]],
            None if quarantine is None else DataFile(**quarantine),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, LedgerError):
        return [], None


def _intervals(path: Path) -> list[Interval]:
    """List the offsets of the rows of a file."""
    offsets = np.sort(read_places(path)[1])
    cuts = np.flatnonzero(np.diff(offsets) != 1) + 1
    starts = offsets[np.concatenate([[0], cuts])].tolist() if offsets.size else []
    ends = (offsets[np.concatenate([cuts - 1, [offsets.size - 1]])] + 1).tolist() if offsets.size else []
    return list(zip(starts, ends, strict=True))


def _rest(range_: Range, taken: list[Interval]) -> tuple[Interval, ...]:
    return tuple(merge(subtract([(range_.start, range_.end)], taken)))
