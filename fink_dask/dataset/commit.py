"""Stage, commit, publish: how the files of a range become part of the dataset, exactly once.

An attempt writes into a staging directory of its own. Its marker, written there too, becomes the range's by a hard
link that only one attempt can win; afterwards the files are renamed into the dataset, by the winner or by whoever comes
later. Before the link nothing is in the dataset, after it nothing can be lost.
"""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from fink_dask.dataset.documents import seal
from fink_dask.dataset.durable import is_same, link_exclusively, make_directory, sync_directory, sync_file, write_file
from fink_dask.dataset.ledger import Ledger, storage_error
from fink_dask.dataset.records import DataFile, Marker, Plan
from fink_dask.errors import FinkDaskError, LedgerError, StorageError
from fink_dask.kafka.offsets import Range

#: Told the name of each step of a commit; tests end the process there.
Step = Callable[[str], None]

_MARKER = "marker.json"
#: Added to the name of a staging directory that is being removed.
_DOOMED = ".doomed"


class Attempt:
    """One try at a range, with a staging directory of its own.

    Parameters
    ----------
    ledger : Ledger
        Where it belongs.
    range_ : Range
        What it tries.
    step : callable
        Told the name of each step.
    """

    def __init__(self, ledger: Ledger, range_: Range, step: Step) -> None:
        self.ledger = ledger
        self.range = range_
        self.name = uuid.uuid4().hex[:16]
        self.directory = ledger.staging_path / f"{range_.name}-{self.name}"
        self._step = step
        self._linked = False

    def begin(self) -> None:
        """Make the staging directory.

        It is made once and never again: where a job has moved the ledger aside in the meantime, a late attempt finds
        no directory to write to, and can't reach the new ledger.
        """
        self.directory.mkdir()

    def stage(self, path: Path, final: str, rows: int) -> DataFile:
        """Bring a staged file to the disk and note where it belongs."""
        sync_file(path)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        return DataFile(final, path.name, rows, path.stat().st_size, digest.hexdigest())

    def commit(self, marker: Marker) -> Marker:
        """Make this attempt the range's, unless another one already is.

        Returns
        -------
        Marker
            The marker of the range: this attempt's, or that of the attempt that came first.
        """
        self._step("staged")
        mine = self.directory / _MARKER
        write_file(mine, seal("marker", marker.to_json()))
        sync_directory(self.directory)
        sync_directory(self.ledger.staging_path)
        for root, file in _destinations(self.ledger, marker):
            prepare_directory(root, file.path)
        self._step("marked")
        self._linked = True
        try:
            link_exclusively(mine, self.ledger.marker_path(self.range))
        except StorageError:
            self._linked = False  # the file system has no links
            raise
        self._step("linked")
        winner = self.ledger.marker(self.range)
        if winner is None:
            raise LedgerError(f"the marker of range {self.range.name} vanished as it was written")
        return winner

    def clean_up(self) -> None:
        """Remove the staging directory, unless the range's marker names it, or may do so.

        A commit that failed after its link, or on the way, may have won: its files are then all that there is of the
        range. Whoever rolls the ledger forward can tell.
        """
        try:
            removable = not self._linked or self._is_beaten()
        except (FinkDaskError, OSError):
            removable = False
        if removable:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _is_beaten(self) -> bool:
        marker = self.ledger.marker(self.range)
        return marker is not None and marker.attempt != self.name


def publish(ledger: Ledger, marker: Marker, step: Step) -> None:
    """Rename the files of a committed range into the dataset; repeatable, by anyone, at any time after the commit.

    Raises
    ------
    LedgerError
        If a file is neither staged nor in the dataset.
    """
    # Whoever has linked the marker may have been killed, or met an error, before it was on the disk.
    sync_directory(ledger.markers_path)
    staging = staging_of(ledger, marker)
    touched: set[Path] = set()
    for root, file in _destinations(ledger, marker):
        target = root / file.path
        try:
            (staging / file.staged).rename(target)
        except FileNotFoundError as error:
            # Renamed by an earlier try, or the target's directory was removed with what was in it.
            if not target.exists():
                if not (staging / file.staged).exists():
                    raise LedgerError(f"{target} is committed, but neither there nor staged") from error
                prepare_directory(root, file.path)
                (staging / file.staged).rename(target)
        touched.update(_directories(root, file.path))
        step("renamed")
    # The leaves first: an entry is durable when its own directory is and those above it are.
    for directory in sorted(touched, key=lambda path: len(path.parts), reverse=True):
        sync_directory(directory)
    step("published")
    shutil.rmtree(staging, ignore_errors=True)


def staging_of(ledger: Ledger, marker: Marker) -> Path:
    """Where the attempt that a marker names staged its files."""
    return ledger.staging_path / f"{marker.range.name}-{marker.attempt}"


def is_published(ledger: Ledger, marker: Marker) -> bool:
    """Tell whether nothing of a committed range is still staged."""
    return not staging_of(ledger, marker).exists()


def roll_forward(ledger: Ledger, plans: Iterable[Plan]) -> int:
    """Publish what was committed but not published, and remove what was staged but not committed.

    Only the holder of the lease may call this, while none of its own attempts runs.

    Returns
    -------
    int
        The ranges that were rolled forward.

    Raises
    ------
    LedgerError
        If the ledger is damaged.
    StorageError
        If the file system refuses.
    """
    planned = {range_.name: range_ for plan in plans for range_ in plan.ranges}
    rolled = 0
    try:
        for directory in sorted(filter(Path.is_dir, ledger.staging_path.iterdir())):
            name, _, attempt = directory.name.removesuffix(_DOOMED).rpartition("-")
            marker = _settle(ledger, planned.get(name), attempt, directory)
            if marker is not None:
                publish(ledger, marker, lambda _: None)
                rolled += 1
    except OSError as error:
        raise storage_error(error, ledger.staging_path) from error
    return rolled


def _settle(ledger: Ledger, range_: Range | None, attempt: str, directory: Path) -> Marker | None:
    """Return the marker that names this staging directory, or remove it."""
    original = directory.with_name(directory.name.removesuffix(_DOOMED))
    marker = None if range_ is None else ledger.marker(range_)
    if marker is None or marker.attempt != attempt:
        # Its attempt may still run, on a worker that its job has lost. Once the directory has another name there is
        # nothing left to link, and what the marker says then is final.
        doomed = original.with_name(original.name + _DOOMED)
        try:
            directory.rename(doomed)
        except FileNotFoundError:
            return None  # its attempt has just removed it
        directory = doomed
        marker = None if range_ is None else ledger.marker(range_)
        if marker is None or marker.attempt != attempt:
            shutil.rmtree(doomed, ignore_errors=True)
            return None
    if directory != original:
        directory.rename(original)
    return marker


def prepare_directory(root: Path, path: str) -> None:
    """Make the directory that a file of the dataset belongs in.

    Raises
    ------
    StorageError
        If the file system takes it for another partition key's, because it does not tell upper and lower case apart.
    """
    make_directory((root / path).parent)
    for level in _directories(root, path):
        twin = level.with_name(level.name.swapcase())
        if level == root or twin.name == level.name or not is_same(level, twin):
            continue
        if level.name not in {entry.name for entry in level.parent.iterdir()}:
            raise StorageError(
                f"this file system takes {level.name!r} and another partition key for the same, because they differ "
                "in case only; partition by something else, or write to another file system"
            )


def _destinations(ledger: Ledger, marker: Marker) -> Iterator[tuple[Path, DataFile]]:
    """Yield the files of a range, each with the directory that its path is relative to."""
    yield from ((ledger.outdir, file) for file in marker.files)
    if marker.quarantine is not None:
        yield ledger.path, marker.quarantine


def _directories(root: Path, path: str) -> list[Path]:
    """List the directories from `root` down to the one that holds `path`."""
    target = root / path
    return [parent for parent in target.parents if parent == root or root in parent.parents]
