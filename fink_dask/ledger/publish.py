"""Publish: rename the files of a committed range into the dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from fink_dask.errors import LedgerError
from fink_dask.ledger.data_file import DataFile
from fink_dask.ledger.ledger import QUARANTINE_DIRECTORY, Ledger
from fink_dask.ledger.records import Marker
from fink_dask.store.durable import (
    directories_down_to,
    has_size,
    move_file,
    prepare_directory,
    remove_tree,
    size_finder,
    sync_directory,
)
from fink_dask.store.location import for_each, is_remote


def publish(ledger: Ledger, marker: Marker, step: Callable[[str], None]) -> None:
    """Rename the files of a committed range into the dataset; repeatable, by anyone, at any time after the commit.

    Files that the marker supersedes are removed afterwards, so that no alert is ever missing.

    Raises
    ------
    LedgerError
        If a file is neither staged nor in the dataset; the others are published nevertheless.
    """
    # Whoever has linked the marker may have been killed, or met an error, before it was on the disk.
    sync_directory(ledger.markers_path)
    staging = staging_of(ledger, marker)
    touched: set[Path] = set()
    gone: list[Path] = []

    def move(destination: tuple[Path, DataFile]) -> bool:
        root, file = destination
        return _move(staging / file.staged, root, file.path)

    for (root, file), is_there in for_each(ledger.path, move, destinations(ledger, marker)):
        if not is_there:
            gone.append(root / file.path)
            continue
        touched.update(directories_down_to(root, file.path))
        step("renamed")
    # The leaves first: an entry is durable when its own directory is and those above it are.
    for directory in sorted(touched, key=lambda path: len(path.parts), reverse=True):
        sync_directory(directory)
    step("published")
    if not gone:  # else what is superseded may be all that is left of these alerts; a repair takes it over
        _remove_superseded(ledger, marker)
    remove_tree(staging)
    if gone:
        raise LedgerError(f"{gone[0]} is committed, but neither there nor staged: fink-dask repair fetches it again")


def _move(staged: Path, root: Path, path: str) -> bool:
    """Give a staged file its name in the dataset; False where it is neither staged nor there."""
    target = root / path
    try:
        move_file(staged, target)
    except FileNotFoundError:
        # Renamed by an earlier try, or the target's directory was removed with what was in it.
        if not target.exists():
            if not staged.exists():
                return False
            prepare_directory(root, path)
            move_file(staged, target)
    return True


def staging_of(ledger: Ledger, marker: Marker) -> Path:
    """Where the attempt that a marker names staged its files."""
    return ledger.attempt_path(marker.plan_id, marker.range, marker.attempt)


def is_published(ledger: Ledger, marker: Marker) -> bool:
    """Tell whether nothing of a committed range is still staged."""
    return not staging_of(ledger, marker).is_dir()


def published(ledger: Ledger, markers: Sequence[Marker]) -> list[Marker]:
    """Choose the markers of committed ranges of which nothing is still staged."""
    if not is_remote(ledger.path):
        return [marker for marker in markers if is_published(ledger, marker)]
    staged = set(ledger.staged())  # in a few requests, instead of one for each range
    return [marker for marker in markers if staging_of(ledger, marker) not in staged]


def missing_files(ledger: Ledger, markers: Iterable[Marker]) -> list[Path]:
    """List committed files that are neither in the dataset nor staged with the size that was written.

    Sizes are compared, contents are not: that is what `verify` is for.
    """
    there = size_finder(ledger.outdir, ledger.staging_path, ledger.quarantine_path)
    return [path for marker in markers for path in missing_of(ledger, marker, staging_of(ledger, marker), there)]


def missing_of(
    ledger: Ledger, marker: Marker, staging: Path, there: Callable[[Path, int], bool] = has_size
) -> list[Path]:
    """List the files of a range that are neither in the dataset nor in `staging` with the size that was written."""
    return [
        root / file.path
        for root, file in destinations(ledger, marker)
        if not there(root / file.path, file.size) and not there(staging / file.staged, file.size)
    ]


def destinations(ledger: Ledger, marker: Marker) -> Iterator[tuple[Path, DataFile]]:
    """Yield the files of a range, each with the directory that its path is relative to."""
    yield from ((ledger.outdir, file) for file in marker.files)
    if marker.quarantine is not None:
        yield ledger.path, marker.quarantine


def _remove_superseded(ledger: Ledger, marker: Marker) -> None:
    """Remove what the marker supersedes, durably: once the staging directory is gone, nobody tries again."""
    emptied: set[Path] = set()
    for name in marker.superseded:
        # Directories of the dataset are called column=key, so none of them has this name.
        root = ledger.path if PurePosixPath(name).parts[0] == QUARANTINE_DIRECTORY else ledger.outdir
        path = root / name
        if path.is_dir() and not path.is_symlink():
            continue  # somebody has put a directory in the place of a file; it is not ours to remove
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            emptied.add(path.parent)
    for directory in emptied:
        sync_directory(directory)
