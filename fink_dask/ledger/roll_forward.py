"""Roll forward: complete what attempts have committed or made ready, and remove what else they left behind."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from fink_dask.errors import LedgerError
from fink_dask.kafka.offsets import Range
from fink_dask.ledger.commit import MARKER, winner_of
from fink_dask.ledger.documents import unseal
from fink_dask.ledger.ledger import Ledger, storage_error
from fink_dask.ledger.publish import missing_of, publish
from fink_dask.ledger.records import Marker, Plan
from fink_dask.store.durable import (
    admit,
    link_exclusively,
    make_directory,
    names_in,
    remove_tree,
    remove_unfinished,
    sync_directory,
    sync_file,
)
from fink_dask.store.location import is_remote

#: Added to the name of a staging directory that is being removed.
_DOOMED = ".doomed"


def roll_forward(ledger: Ledger, plans: Iterable[Plan]) -> int:
    """Publish what is committed, commit and publish what is ready for it, and remove what else is staged.

    Only the holder of the lease may call this, while none of its own attempts runs.

    Returns
    -------
    int
        How many ranges were rolled forward.

    Raises
    ------
    LedgerError
        If a marker that is there can't be found.
    StorageError
        If the file system refuses.
    """
    planned = {plan.plan_id: {range_.name: range_ for range_ in plan.ranges} for plan in plans}
    rolled = 0
    try:
        make_directory(ledger.staging_path)  # where somebody has removed it
        # It counts for nothing until it is complete. An attempt that still sends, on a worker that its job has lost,
        # fails, as does one whose staging directory is renamed.
        remove_unfinished(ledger.staging_path)
        names = set(names_in(ledger.staging_path))
        for plan_id in planned.keys() - names:  # where somebody has removed what was staged
            admit(ledger.staging_path / plan_id)
        for name in names - planned.keys():
            remove_tree(ledger.staging_path / name)
        revisions = ledger.revisions()
        for directory in ledger.staged():
            plan_id = directory.parent.name
            name, _, attempt = directory.name.removesuffix(_DOOMED).rpartition("-")
            range_ = planned.get(plan_id, {}).get(name)
            settle = _settle_remote if is_remote(directory) else _settle
            # A marker that is damaged, and files that somebody has removed, are for whoever holds the files against the
            # markers to tell, and for a repair, which begins here, to mend.
            last = revisions.get(name, 0)
            if range_ is not None and _is_damaged(ledger, range_, plan_id, last):
                continue
            marker = settle(ledger, range_, plan_id, attempt, directory, last)
            if marker is not None:
                with suppress(LedgerError):
                    publish(ledger, marker, lambda _: None)
                rolled += 1
    except OSError as error:
        raise storage_error(error, ledger.staging_path) from error
    return rolled


def _settle(
    ledger: Ledger, range_: Range | None, plan_id: str, attempt: str, directory: Path, last: int
) -> Marker | None:
    """Return the marker that names this staging directory, or remove it."""
    original = directory.with_name(directory.name.removesuffix(_DOOMED))
    marker = None if range_ is None else _marker_of(ledger, range_, plan_id, attempt, last)
    if marker is None:
        # Its attempt may still run, on a worker that its job has lost. Once the directory has another name it can
        # neither write a marker nor link it.
        doomed = original.with_name(original.name + _DOOMED)
        try:
            directory.rename(doomed)
        except FileNotFoundError:
            return None  # its attempt has just removed it
        directory = doomed
        marker = None if range_ is None else _adopt(ledger, range_, plan_id, attempt, doomed)
        if marker is None:
            remove_tree(doomed)
            return None
    if directory != original:
        directory.rename(original)
    return marker


def _settle_remote(
    ledger: Ledger, range_: Range | None, plan_id: str, attempt: str, directory: Path, last: int
) -> Marker | None:
    """Return the marker that names what is staged on an object store, or remove it, or leave it for now.

    Nothing can be renamed there, so an attempt that may still run can't be kept from putting its marker. What it has
    staged is therefore left alone until there is a marker of its range: from then on the store refuses its own.
    """
    if range_ is None:
        remove_tree(directory)
        return None
    marker = _marker_of(ledger, range_, plan_id, attempt, last) or _adopt(ledger, range_, plan_id, attempt, directory)
    # Of a range that was changed since, everything was published before.
    if marker is not None and marker.revision >= last:
        return marker
    revision = max((_revision_of(name) for name in names_in(directory)), default=0)
    if marker is not None or ledger.marker(range_, plan_id, revision) is not None:
        remove_tree(directory)
    return None


def _revision_of(staged: str) -> int:
    """Tell from a staged file's name which marker of its range its attempt would write; see `Origin.staged_prefix`."""
    match = re.match(r"([1-9][0-9]{0,5})-", staged)
    return int(match[1]) if match else 0


def _is_damaged(ledger: Ledger, range_: Range, plan_id: str, last: int) -> bool:
    """Tell whether the marker that counts of a range can't be read."""
    try:
        ledger.marker(range_, plan_id, last)
    except LedgerError:
        return True
    return False


def _marker_of(ledger: Ledger, range_: Range, plan_id: str, attempt: str, last: int) -> Marker | None:
    """Find the marker that an attempt has won, among the revisions of its range up to the last one."""
    for revision in range(last + 1):
        try:
            marker = ledger.marker(range_, plan_id, revision)
        except LedgerError:
            continue  # a later one counts, which was made because this one was damaged
        if marker is not None and marker.attempt == attempt:
            return marker
    return None


def _adopt(ledger: Ledger, range_: Range, plan_id: str, attempt: str, directory: Path) -> Marker | None:
    """Commit what an attempt has made ready, unless it or another one has; None where it is not the range's.

    To look for the range's marker once more would not do: a network file system may remember for a minute that there
    was none, while these are the files that it names. Linking makes the server decide.
    """
    mine = directory / MARKER
    try:
        marker = Marker.from_json(unseal("marker", mine))
    except (FileNotFoundError, LedgerError):
        return None  # cut off before there was anything to link
    named = (marker.range, marker.plan_id, marker.attempt) == (range_, plan_id, attempt)
    if not named or missing_of(ledger, marker, directory):
        return None
    # The files were brought to the disk before the marker was written; the marker and their names may not be yet.
    sync_file(mine)
    sync_directory(directory)
    sync_directory(directory.parent)
    if link_exclusively(mine, ledger.marker_path(range_, marker.revision)):
        return marker
    winner = winner_of(ledger, marker)
    return winner if winner.attempt == attempt else None
