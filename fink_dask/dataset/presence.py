"""Which files of a dataset are there, whether each is what its marker says, and which offsets its rows have."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from fink_dask.dataset.formats import UNREADABLE, Contents, Offsets, Origin, format_of, why_unreadable
from fink_dask.errors import LedgerError
from fink_dask.kafka.offsets import Interval, OffsetRange
from fink_dask.ledger.commit import gone_files
from fink_dask.ledger.ledger import Ledger, storage_in_words
from fink_dask.ledger.records import DamagedMarker, DataFile, Identity, Marker, Plan
from fink_dask.units import pluralize

#: How the name of a file ends that a later revision of its range wrote, after the id of the plan, old or new.
_REVISION = re.compile(r"(?:(?<=-[0-9a-f]{8})|(?<=-[0-9a-f]{16}))-[1-9][0-9]{0,5}$")


def intervals_of(offsets: Offsets) -> list[Interval]:
    """Join offsets, given in order, into intervals."""
    cuts = np.flatnonzero(np.diff(offsets) != 1) + 1
    starts = offsets[np.concatenate([[0], cuts])].tolist() if offsets.size else []
    ends = (offsets[np.concatenate([cuts - 1, [offsets.size - 1]])] + 1).tolist() if offsets.size else []
    return list(zip(starts, ends, strict=True))


class SharedPlaces:
    """The offsets in files of many ranges; each file is read once."""

    def __init__(self) -> None:
        self._sorted: dict[Path, dict[int, Offsets]] = {}

    def by_partition(self, path: Path) -> dict[int, Offsets]:
        """Return the offsets of each partition in a file, in order."""
        if path not in self._sorted:
            partitions, offsets = format_of(path).read_places(path)
            self._sorted[path] = {
                int(partition): np.sort(offsets[partitions == partition]) for partition in np.unique(partitions)
            }
        return self._sorted[path]

    def of_range(self, path: Path, offset_range: OffsetRange) -> Offsets:
        """Return the offsets of a range that are in a file, in order."""
        offsets = self.by_partition(path).get(offset_range.partition, np.empty(0, np.int64))
        first, last = np.searchsorted(offsets, (offset_range.start, offset_range.end))
        return offsets[first:last]


def check_offsets(marker: Marker, seen: Sequence[Offsets]) -> list[str]:
    """Compare the offsets of a range's rows, as several files have them, with what its marker accounts for."""
    offsets = np.sort(np.concatenate(seen)) if seen else np.empty(0, np.int64)
    repeated = offsets[1:][np.diff(offsets) == 0]
    if repeated.size:
        return [f"{marker.range}: offset {repeated[0]} is there twice"]
    for absent, why in (
        (marker.lost + marker.holes, "that Kafka had none"),
        (marker.duplicates, "that it was left out"),
        (marker.handed_over, "that it was handed over"),
    ):
        for start, end in absent:
            first, last = np.searchsorted(offsets, (start, end))
            if last > first:
                return [f"{marker.range}: offset {offsets[first]} is there, but its marker says {why}"]
    return []


def check_files(ledger: Ledger, plans: Sequence[Plan], markers: Sequence[Marker]) -> None:
    """Refuse to call a dataset complete whose files or markers are gone; looks at names and sizes only.

    Raises LedgerError that names the first one.
    """
    unmarked = unmarked_ranges(ledger, plans, markers)
    if unmarked:
        # Reading it again would replace its files, or, where Kafka no longer has the alerts, declare them lost.
        raise LedgerError(f"{unmarked[0].error}: fink-dask repair writes the marker again")
    gone = gone_files(ledger, plans, markers)
    if gone:
        raise missing_error(gone)


def missing_error(gone: Sequence[Path]) -> LedgerError:
    """Say that committed files are gone or changed, and what to do about it."""
    are, them = ("is", "it") if len(gone) == 1 else ("are", "them")
    return LedgerError(
        f"{pluralize(len(gone), 'file')} of the dataset {are} missing or changed, such as {gone[0]}: fink-dask repair "
        f"fetches {them} again (fink-dask verify lists all)"
    )


def unmarked_ranges(
    ledger: Ledger, plans: Sequence[Plan], markers: Sequence[Marker], damaged: Sequence[DamagedMarker] = ()
) -> list[DamagedMarker]:
    """List the ranges that have rows in the dataset but no marker, which is written first: somebody removed it."""
    there = {marker.range for marker in markers} | {bad.range for bad in damaged}
    opened = {
        offset_range: (plan.plan_id, stem_of(plan.identity, offset_range, plan.plan_id))
        for plan in plans
        for offset_range in plan.ranges
        if offset_range not in there
    }
    if not opened:
        return []
    with storage_in_words(ledger.outdir):
        stems = {without_revision(path.stem) for path in ledger.outdir.rglob("part-*")}
    shared = with_shared_rows(ledger, markers, opened)
    return [
        DamagedMarker(
            plan_id, offset_range, 0, LedgerError(f"{ledger.marker_path(offset_range)}: gone, but its files are there")
        )
        for offset_range, (plan_id, stem) in opened.items()
        if stem in stems or offset_range in shared
    ]


def stem_of(identity: Identity, offset_range: OffsetRange, plan_id: str) -> str:
    """Return what the names of a range's files begin with."""
    return Origin(identity.topic, "", offset_range, plan_id).stem


def without_revision(stem: str) -> str:
    """Return a file's name without the revision of its range; see `stem_of`."""
    return _REVISION.sub("", stem)


def with_shared_rows(ledger: Ledger, markers: Sequence[Marker], unmarked: Collection[OffsetRange]) -> set[OffsetRange]:
    """Find the ranges without a marker that have rows in compacted files: those hold more rows than markers name."""
    claimed: Counter[str] = Counter()
    rows: dict[str, int] = {}
    for marker in markers:
        for file in filter(lambda file: file.is_shared, marker.files):
            claimed[file.path] += file.rows
            rows[file.path] = file.all_rows
    places = SharedPlaces()
    found = set()
    for path in sorted(path for path, count in rows.items() if claimed[path] < count):
        try:
            found |= {
                offset_range for offset_range in unmarked if places.of_range(ledger.outdir / path, offset_range).size
            }
        except UNREADABLE:
            continue  # verify says what is wrong with it
    return found


def check_file(path: Path, file: DataFile, footer: Mapping[str, str]) -> list[str]:
    """Compare one file with what a marker says of it, and its footer with what it should say of its origin."""
    try:
        size = path.stat().st_size
        if size != file.size:
            return [f"{path}: {pluralize(size, 'byte')}, but {file.size:,} were written"]
        with path.open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != file.sha256:
                return [f"{path}: its content is not what was written"]
        contents = format_of(path).read_contents(path)
    except FileNotFoundError:
        return [f"{path}: missing"]
    except UNREADABLE as error:
        return [f"{path}: {why_unreadable(error)}"]
    if contents.rows != file.all_rows:
        return [f"{path}: {pluralize(contents.rows, 'row')}, but {file.all_rows:,} were written"]
    return check_footer(path, contents, footer)


def check_footer(path: Path, contents: Contents, footer: Mapping[str, str]) -> list[str]:
    """Compare the footer of a file with what it should say of where the file comes from."""
    said = {key: contents.footer.get(key, "")[:300] for key in footer}
    differing = [key for key, expected in footer.items() if said[key] != expected]
    return [f"{path}: its footer says {key} {said[key]!r}, the ledger {footer[key]!r}" for key in differing[:1]]
