"""Find out what a damaged dataset lacks, and which offsets have to be read again to make it whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from fink_dask.dataset.formats import UNREADABLE, Origin, format_of
from fink_dask.dataset.presence import check_file, check_footer, intervals_of, with_shared_rows
from fink_dask.errors import LedgerError, SchemaError
from fink_dask.kafka.offsets import Interval, OffsetRange, merge, subtract, total
from fink_dask.ledger.commit import Attempt
from fink_dask.ledger.ledger import QUARANTINE_DIRECTORY, Ledger
from fink_dask.ledger.records import DamagedMarker, DataFile, Identity, Plan, unseal
from fink_dask.ledger.remainder import Remainder, rest_of
from fink_dask.verifying.files import Finding, Verification

#: A marker is smaller, even one with a hole at every second offset of its range.
_MAX_MARKER_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Damage:
    """A range that can be repaired."""

    plan_id: str
    range: OffsetRange
    #: What is provably left of it.
    remainder: Remainder
    #: The same with files that no marker vouches for, only their footers and offsets: better than nothing, where Kafka
    #: no longer has what is in them.
    readable: Remainder | None = None

    def gone(self, low: int) -> int:
        """Count the wanted offsets that Kafka, whose partition begins at `low`, no longer has."""
        return total(subtract(self.remainder.wanted, [(low, max(low, self.range.end))]))


def find_damage(ledger: Ledger, plans: Sequence[Plan], found: Verification) -> tuple[list[Damage], set[OffsetRange]]:
    """Find the ranges whose files or markers are not as they were written, with what is left of them.

    Returns: what can't: ranges whose rows were compacted into files of many ranges, one of which is damaged. The rows
    of one range can't be taken out of such a file without those of the others.
    Raises LedgerError if a marker is of another plan or range.
    """
    identities = {plan.plan_id: plan.identity for plan in plans}
    compacted = {
        finding.marker.range
        for finding in found.findings
        if any(file.is_shared and file not in finding.files for file in finding.marker.files)
    }
    unmarked = [bad.range for bad in found.damaged]
    if unmarked:
        compacted |= with_shared_rows(ledger, ledger.markers(plans, []), unmarked)
    damages = [_of_files(ledger, finding) for finding in found.findings if finding.marker.range not in compacted]
    damages += [_of_marker(ledger, identities[bad.plan_id], bad) for bad in found.damaged if bad.range not in compacted]
    return damages, compacted


def write_marker(ledger: Ledger, damage: Damage) -> None:
    """Commit the next revision of a range whose marker alone was damaged; nothing has to be read for it.

    Raises LedgerError if another job has changed the range.
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
    present = [interval for path in paths for interval in _intervals(path, marker.range.partition)]
    # Also what the marker itself superseded: where not all of its files could be published, that is still there.
    superseded = [*marker.superseded, *(file.path for file in marker.files if file not in kept)]
    if marker.quarantine is not None and finding.quarantine is None:
        superseded.append(marker.quarantine.path)
    return Damage(
        marker.plan_id,
        marker.range,
        replace(
            rest_of(marker),
            wanted=_rest(
                marker.range, [*present, *marker.lost, *marker.holes, *marker.duplicates, *marker.handed_over]
            ),
            files=finding.files,
            quarantine=finding.quarantine,
            superseded=tuple(superseded),
            filtered=0,
        ),
    )


def _of_marker(ledger: Ledger, identity: Identity, bad: DamagedMarker) -> Damage:
    """Of a range without a sound marker, keep the files that the damaged one still describes correctly."""
    if _is_sealed(ledger.marker_path(bad.range, bad.revision)):
        raise bad.error  # it is intact, but of another range or plan: nobody can tell what belongs here
    origin = Origin(identity.topic, identity.topic_id, bad.range, bad.plan_id)
    pattern = f"{origin.stem}*"
    files, quarantine = _described(ledger.marker_path(bad.range, bad.revision))
    kept = tuple(file for file in files if not check_file(ledger.outdir / file.path, file, origin.footer()))
    if quarantine is not None and check_file(ledger.path / quarantine.path, quarantine, origin.footer()):
        quarantine = None
    paths = [ledger.outdir / file.path for file in kept]
    if quarantine is not None:
        paths.append(ledger.path / quarantine.path)
    superseded = {path.relative_to(ledger.outdir) for path in ledger.outdir.rglob(pattern)}
    superseded |= {path.relative_to(ledger.path) for path in (ledger.path / QUARANTINE_DIRECTORY).glob(pattern)}
    superseded -= {Path(file.path) for file in (*kept, *([quarantine] if quarantine is not None else []))}
    proved = Remainder(
        revision=bad.revision + 1,
        wanted=_rest(bad.range, [interval for path in paths for interval in _intervals(path, bad.range.partition)]),
        files=kept,
        quarantine=quarantine,
        superseded=tuple(sorted(path.as_posix() for path in superseded)),
    )
    return Damage(bad.plan_id, bad.range, proved, _with_readable(ledger, proved, origin))


def _with_readable(ledger: Ledger, proved: Remainder, origin: Origin) -> Remainder:
    """Also keep the files that no marker vouches for, where they can be read and hold only wanted offsets."""
    rest = proved
    # Files of later revisions first.
    for name in sorted(proved.superseded, key=lambda name: (len(PurePosixPath(name).name), name), reverse=True):
        is_aside = PurePosixPath(name).parts[0] == QUARANTINE_DIRECTORY
        path = (ledger.path if is_aside else ledger.outdir) / name
        try:
            file, intervals = _read_file(path, name, origin), _intervals(path, origin.range.partition)
        except (*UNREADABLE, LedgerError, SchemaError):
            continue
        is_new = not subtract(intervals, rest.wanted)
        if not is_new or (is_aside and rest.quarantine is not None):
            continue
        rest = replace(
            rest,
            wanted=tuple(subtract(rest.wanted, intervals)),
            files=rest.files if is_aside else (*rest.files, file),
            quarantine=file if is_aside else rest.quarantine,
            superseded=tuple(other for other in rest.superseded if other != name),
        )
    return rest


def _read_file(path: Path, name: str, origin: Origin) -> DataFile:
    """Describe a file as it is, after reading all of it.

    Raises LedgerError if its footer says that it is of something else.
    """
    its_format = format_of(path)
    if problems := check_footer(path, contents := its_format.read_contents(path), origin.footer()):
        raise LedgerError(problems[0])
    its_format.read_through(path)
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return DataFile(name, path.name, contents.rows, path.stat().st_size, digest)


def _is_sealed(path: Path) -> bool:
    try:
        unseal("marker", path)
    except (LedgerError, OSError):
        return False
    return True


def _described(path: Path) -> tuple[list[DataFile], DataFile | None]:
    """Read what a damaged marker says about its files; no damage makes a hash that fits a file by chance."""
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


def _intervals(path: Path, partition: int) -> list[Interval]:
    """List the offsets of a partition whose rows are in a file."""
    partitions, offsets = format_of(path).read_places(path)
    return intervals_of(np.sort(offsets[partitions == partition]))


def _rest(offset_range: OffsetRange, taken: list[Interval]) -> tuple[Interval, ...]:
    return tuple(merge(subtract([(offset_range.start, offset_range.end)], taken)))
