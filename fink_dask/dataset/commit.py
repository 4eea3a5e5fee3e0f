"""Stage, commit, publish: how the files of a range become part of the dataset, exactly once.

An attempt writes into a staging directory of its own. Its marker, written there too, becomes the range's by a hard
link that only one attempt can win; afterwards the files are renamed into the dataset, by the winner or by whoever comes
later. Before the link nothing is in the dataset, after it nothing can be lost.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from fink_dask.dataset.documents import seal, unseal
from fink_dask.dataset.durable import (
    directories_down_to,
    has_size,
    link_exclusively,
    make_directory,
    prepare_directory,
    sync_directory,
    sync_file,
    write_file,
)
from fink_dask.dataset.ledger import Ledger, storage_error
from fink_dask.dataset.records import DataFile, Marker, Plan
from fink_dask.errors import FinkDaskError, LedgerError, StorageError
from fink_dask.kafka.offsets import Range

#: Told the name of each step of a commit; tests end the process there.
Step = Callable[[str], None]

_MARKER = "marker.json"
#: What an attempt calls its marker when it takes it back.
_WITHDRAWN = "withdrawn.json"
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
    plan_id : str
        The plan that holds the range.
    step : callable
        Told the name of each step.
    """

    def __init__(self, ledger: Ledger, range_: Range, plan_id: str, step: Step) -> None:
        self.ledger = ledger
        self.range = range_
        self.plan_id = plan_id
        self.name = uuid.uuid4().hex[:16]
        self.directory = ledger.attempt_path(plan_id, range_, self.name)
        self._step = step
        self._marked = False
        self._linked = False

    def begin(self) -> None:
        """Make the staging directory.

        It is made once and never again, in a directory that only a ledger with its plan has: where a job has moved the
        ledger aside in the meantime, a late attempt finds nothing to write to, and can't reach the new ledger.

        Raises
        ------
        LedgerError
            If the ledger does not hold the plan.
        """
        try:
            self.directory.mkdir()
        except FileNotFoundError as error:
            raise LedgerError(
                f"{self.ledger.path} does not hold plan {self.plan_id}: it was removed, or begun again meanwhile"
            ) from error

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
        for root, file in _destinations(self.ledger, marker):
            prepare_directory(root, file.path)
        mine = self.directory / _MARKER
        # From here on a roll forward may commit it.
        self._marked = True
        write_file(mine, seal("marker", marker.to_json()))
        sync_directory(self.directory)
        sync_directory(self.directory.parent)
        self._step("marked")
        self._linked = True
        try:
            link_exclusively(mine, self.ledger.marker_path(self.range))
        except StorageError:
            self._linked = False  # the file system has no links
            raise
        self._step("linked")
        return _winner(self.ledger, self.range, self.plan_id)

    def clean_up(self) -> None:
        """Remove the staging directory, unless the range's marker names it, or may do so.

        A commit that failed after its link, or on the way, may have won: its files are then all that there is of the
        range. Whoever rolls the ledger forward can tell.
        """
        try:
            removable = self._is_beaten() if self._linked else not self._marked or self._withdraw()
        except (FinkDaskError, OSError):
            removable = False
        if removable:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _is_beaten(self) -> bool:
        marker = self.ledger.marker(self.range, self.plan_id)
        return marker is not None and marker.attempt != self.name

    def _withdraw(self) -> bool:
        """Take the marker back, so that nobody can link it any more; False where somebody has done so."""
        withdrawn = (self.directory / _MARKER).rename(self.directory / _WITHDRAWN)
        with withdrawn.open("rb") as file:  # opening makes a network file system ask its server
            alone = os.fstat(file.fileno()).st_nlink == 1
        if not alone:
            withdrawn.rename(self.directory / _MARKER)
        return alone


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
        touched.update(directories_down_to(root, file.path))
        step("renamed")
    # The leaves first: an entry is durable when its own directory is and those above it are.
    for directory in sorted(touched, key=lambda path: len(path.parts), reverse=True):
        sync_directory(directory)
    step("published")
    shutil.rmtree(staging, ignore_errors=True)


def staging_of(ledger: Ledger, marker: Marker) -> Path:
    """Where the attempt that a marker names staged its files."""
    return ledger.attempt_path(marker.plan_id, marker.range, marker.attempt)


def is_published(ledger: Ledger, marker: Marker) -> bool:
    """Tell whether nothing of a committed range is still staged."""
    return not staging_of(ledger, marker).exists()


def missing_files(ledger: Ledger, markers: Iterable[Marker]) -> list[Path]:
    """List committed files that are neither in the dataset nor staged, or not as large as they were written.

    Sizes are compared, contents are not: that is what `verify` is for.
    """
    return [path for marker in markers for path in _missing(ledger, marker, staging_of(ledger, marker))]


def roll_forward(ledger: Ledger, plans: Iterable[Plan]) -> int:
    """Publish what was committed, commit and publish what was ready for it, and remove what else was staged.

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
    planned = {plan.plan_id: {range_.name: range_ for range_ in plan.ranges} for plan in plans}
    rolled = 0
    try:
        names = {path.name for path in ledger.staging_path.iterdir()}
        for plan_id in planned.keys() - names:  # where somebody has removed what was staged
            make_directory(ledger.staging_path / plan_id)
        for name in names - planned.keys():
            shutil.rmtree(ledger.staging_path / name, ignore_errors=True)
        for directory in ledger.staged():
            plan_id = directory.parent.name
            name, _, attempt = directory.name.removesuffix(_DOOMED).rpartition("-")
            marker = _settle(ledger, planned.get(plan_id, {}).get(name), plan_id, attempt, directory)
            if marker is not None:
                publish(ledger, marker, lambda _: None)
                rolled += 1
    except OSError as error:
        raise storage_error(error, ledger.staging_path) from error
    return rolled


def _settle(ledger: Ledger, range_: Range | None, plan_id: str, attempt: str, directory: Path) -> Marker | None:
    """Return the marker that names this staging directory, or remove it."""
    original = directory.with_name(directory.name.removesuffix(_DOOMED))
    marker = None if range_ is None else ledger.marker(range_, plan_id)
    if marker is None or marker.attempt != attempt:
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
            shutil.rmtree(doomed, ignore_errors=True)
            return None
    if directory != original:
        directory.rename(original)
    return marker


def _adopt(ledger: Ledger, range_: Range, plan_id: str, attempt: str, directory: Path) -> Marker | None:
    """Commit what an attempt has made ready, unless it or another one has; None where it is not the range's.

    To look for the range's marker once more would not do: a network file system may remember for a minute that there
    was none, while these are the files that it names. Linking makes the server decide.
    """
    mine = directory / _MARKER
    try:
        marker = Marker.from_json(unseal("marker", mine))
    except (FileNotFoundError, LedgerError):
        return None  # cut off before there was anything to link
    named = (marker.range, marker.plan_id, marker.attempt) == (range_, plan_id, attempt)
    if not named or _missing(ledger, marker, directory):
        return None
    # The files were brought to the disk before the marker was written; it and their names may not be there yet.
    sync_file(mine)
    sync_directory(directory)
    sync_directory(directory.parent)
    if link_exclusively(mine, ledger.marker_path(range_)):
        return marker
    winner = _winner(ledger, range_, plan_id)
    return winner if winner.attempt == attempt else None


def _winner(ledger: Ledger, range_: Range, plan_id: str) -> Marker:
    marker = ledger.marker(range_, plan_id)
    if marker is None:
        raise LedgerError(f"the marker of range {range_.name} vanished as it was written")
    return marker


def _missing(ledger: Ledger, marker: Marker, staging: Path) -> list[Path]:
    return [
        root / file.path
        for root, file in _destinations(ledger, marker)
        if not has_size(root / file.path, file.size) and not has_size(staging / file.staged, file.size)
    ]


def _destinations(ledger: Ledger, marker: Marker) -> Iterator[tuple[Path, DataFile]]:
    """Yield the files of a range, each with the directory that its path is relative to."""
    yield from ((ledger.outdir, file) for file in marker.files)
    if marker.quarantine is not None:
        yield ledger.path, marker.quarantine
