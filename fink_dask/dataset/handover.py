"""Hand files over: whoever has copied them elsewhere says so, and the ledger asks for them no more.

The next revision of each range's marker accounts for the alerts that were in them, and supersedes the files: so it is
also what removes them here, and whatever is killed, a roll forward completes it. Like any attempt at a revision it
needs no lease, so that a transfer may run meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePosixPath

import numpy as np

from fink_dask.dataset.formats import UNREADABLE, format_of, why_unreadable
from fink_dask.dataset.presence import intervals_of, stem_of, without_revision
from fink_dask.errors import LedgerError, SettingsError
from fink_dask.kafka.offsets import Interval, OffsetRange, merge, subtract
from fink_dask.ledger.commit import Attempt, is_published, publish, published
from fink_dask.ledger.ledger import Ledger, storage_in_words
from fink_dask.ledger.outdir import check_dataset, check_is_in_kafka, is_part
from fink_dask.ledger.records import DataFile, Marker
from fink_dask.ledger.remainder import rest_of


@dataclass(frozen=True)
class HandedOver:
    """What was handed over."""

    ranges: int
    files: int
    alerts: int
    #: Bytes of the files.
    size: int


def files_to_hand_over(ledger: Ledger) -> list[tuple[Marker, DataFile]]:
    """List the files that may be copied and are there, those of a range one after the other.

    Raises LedgerError if there is no ledger, it is damaged, or its files can't be handed over.
    """
    with storage_in_words(ledger.outdir):
        there = [path.name for path in ledger.outdir.rglob("part-*")]
    return list(_files(ledger, _markers(ledger, there)))


def hand_over(named: Mapping[Ledger, Collection[str]]) -> HandedOver:
    """Account for files that were copied elsewhere, and remove them here; once more, it does what is left of that.

    `named`: paths in each dataset, as `files_to_hand_over` has them; of a range all or none.
    Raises SettingsError if a file is none that can be handed over, or others of its range are not named; then nothing
    was done.
    Raises LedgerError if there is no ledger, it is damaged, or another job has changed a range meanwhile; each range
    that was done stays so.
    """
    ranges = files = alerts = size = 0
    for ledger, again, chosen in [(ledger, *_choose(ledger, names)) for ledger, names in named.items()]:
        with storage_in_words(ledger.outdir):
            for marker in again:
                if not is_published(ledger, marker):  # a command that was killed has not removed all of it
                    publish(ledger, marker, lambda _: None)
            for marker, _ in ledger.store.for_each(partial(_hand_over, ledger), chosen):
                ranges, files, alerts = ranges + 1, files + len(marker.files), alerts + marker.rows
                size += sum(file.size for file in marker.files)
    return HandedOver(ranges, files, alerts, size)


def _choose(ledger: Ledger, names: Collection[str]) -> tuple[list[Marker], list[Marker]]:
    """Find the markers of ranges whose files were handed over before, and of those that are to be."""
    markers, wanted = _markers(ledger, names), set(names)
    before = {name: marker for marker in markers if marker.handed_over for name in marker.superseded}
    files = {file.path: marker for marker, file in _files(ledger, markers)}
    if strange := sorted(wanted - files.keys() - before.keys()):
        raise SettingsError(f"{strange[0]} is no file of {ledger.outdir} that can be handed over")
    chosen = {marker.range: marker for name, marker in files.items() if name in wanted}
    for marker in chosen.values():
        if left := [file.path for file in marker.files if file.path not in wanted]:
            raise SettingsError(
                f"{left[0]} is of the same range as others that are named: copy it too, and then name all of them"
            )
    again = {before[name].range: before[name] for name in wanted & before.keys()}
    return list(again.values()), list(chosen.values())


def _markers(ledger: Ledger, names: Collection[str]) -> list[Marker]:
    """Read the markers of the ranges that files are named after, and no others: there may be many thousands.

    Raises LedgerError if the ledger is damaged, or its files can't be handed over.
    """
    check_dataset(ledger)
    check_is_in_kafka(ledger, "hand over the files of")
    if is_part(ledger.outdir):
        raise LedgerError(f"another dataset is made of {ledger.outdir}: its files are wanted there")
    if ledger.compaction_path.exists():
        raise LedgerError(f"{ledger.outdir} was compacted: its files have alerts of many ranges")
    stems = {without_revision(PurePosixPath(name).stem) for name in names}
    chosen = [
        (plan.plan_id, offset_range)
        for plan in ledger.plans()
        for offset_range in plan.ranges
        if stem_of(plan.identity, offset_range, plan.plan_id) in stems
    ]
    revisions = ledger.revisions()

    def read(one: tuple[str, OffsetRange]) -> Marker | None:
        plan_id, offset_range = one
        return ledger.marker(offset_range, plan_id, revisions.get(offset_range.name, 0))

    return [marker for _, marker in ledger.store.for_each(read, chosen) if marker is not None]


def _files(ledger: Ledger, markers: Sequence[Marker]) -> Iterator[tuple[Marker, DataFile]]:
    for marker in published(ledger, markers):
        for file in marker.files:
            yield marker, file


def _hand_over(ledger: Ledger, marker: Marker) -> None:
    """Commit the next revision of a range, which has no files, and so remove them."""
    attempt = Attempt(ledger, marker.range, marker.plan_id, lambda _: None, marker.revision + 1)
    rest = replace(
        rest_of(marker),
        files=(),
        superseded=tuple(file.path for file in marker.files),
        handed_over=tuple(merge((*marker.handed_over, *_offsets(ledger, marker)))),
    )
    attempt.begin()
    try:
        attempt.supersede(rest.marker(marker.plan_id, marker.range, attempt.name))
    finally:
        attempt.clean_up()


def _offsets(ledger: Ledger, marker: Marker) -> list[Interval]:
    """List the offsets of the alerts in a range's files; these are read only where its marker does not tell them."""
    if not (marker.filtered or marker.quarantined):
        absent = (*marker.lost, *marker.holes, *marker.duplicates, *marker.handed_over)
        return subtract([(marker.range.start, marker.range.end)], merge(absent))
    try:
        seen = [format_of(path).read_places(path)[1] for path in (ledger.outdir / file.path for file in marker.files)]
    except UNREADABLE as error:
        raise LedgerError(f"{marker.range}: {why_unreadable(error)}; fink-dask repair mends it") from error
    return intervals_of(np.sort(np.concatenate(seen)))
