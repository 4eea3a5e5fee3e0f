"""Stage, commit, publish: how the files of a range become part of the dataset, exactly once.

An attempt writes into a staging directory of its own. Its marker, written there too, becomes the range's by a hard
link that only one attempt can win; afterwards the files are renamed into the dataset, by the winner or by whoever comes
later. Before the link nothing is in the dataset, after it nothing can be lost.
"""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

from fink_dask.dataset.documents import seal
from fink_dask.dataset.durable import link_exclusively, make_directory, sync_directory, sync_file, write_file
from fink_dask.dataset.ledger import Ledger, storage_error
from fink_dask.dataset.records import DataFile, Marker, Plan
from fink_dask.errors import LedgerError, StorageError
from fink_dask.kafka.offsets import Range

#: Told the name of each step of a commit; tests end the process there.
Step = Callable[[str], None]

_MARKER = "marker.json"


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
        for file in marker.files:
            prepare_directory(self.ledger.outdir, file.path)
        self._step("marked")
        # A network file system may carry out the link and still answer that the name exists: only the marker's
        # content tells who won.
        link_exclusively(mine, self.ledger.marker_path(self.range))
        self._step("linked")
        winner = self.ledger.marker(self.range)
        if winner is None:
            raise LedgerError(f"the marker of range {self.range.name} vanished as it was written")
        return winner

    def clean_up(self) -> None:
        """Remove the staging directory and what is left in it."""
        shutil.rmtree(self.directory, ignore_errors=True)


def publish(ledger: Ledger, marker: Marker, step: Step) -> None:
    """Rename the files of a committed range into the dataset; repeatable, by anyone, at any time after the commit.

    Raises
    ------
    LedgerError
        If a file is neither staged nor in the dataset.
    """
    staging = ledger.staging_path / f"{marker.range.name}-{marker.attempt}"
    touched: set[Path] = set()
    targets = [(ledger.outdir, file) for file in marker.files]
    if marker.quarantine is not None:
        targets.append((ledger.path, marker.quarantine))
    for root, file in targets:
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


def is_published(ledger: Ledger, marker: Marker) -> bool:
    """Tell whether nothing of a committed range is still staged."""
    return not (ledger.staging_path / f"{marker.range.name}-{marker.attempt}").exists()


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
        for directory in sorted(ledger.staging_path.iterdir()):
            name, _, attempt = directory.name.rpartition("-")
            marker = ledger.marker(planned[name]) if name in planned else None
            if marker is not None and marker.attempt == attempt:
                publish(ledger, marker, lambda _: None)
                rolled += 1
            else:
                shutil.rmtree(directory, ignore_errors=True)
    except OSError as error:
        raise storage_error(error, ledger.staging_path) from error
    return rolled


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
        if level == root or twin.name == level.name or not _is_same(level, twin):
            continue
        if level.name not in {entry.name for entry in level.parent.iterdir()}:
            raise StorageError(
                f"this file system takes {level.name!r} and another partition key for the same, because they differ "
                "in case only; partition by something else, or write to another file system"
            )


def _directories(root: Path, path: str) -> list[Path]:
    """List the directories from `root` down to the one that holds `path`."""
    target = root / path
    return [parent for parent in target.parents if parent == root or root in parent.parents]


def _is_same(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except FileNotFoundError:
        return False
