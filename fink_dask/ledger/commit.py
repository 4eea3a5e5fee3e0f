"""Stage and commit: how the files of a range become part of the dataset, exactly once.

An attempt writes into a staging directory of its own. Its marker, written there too, becomes the range's by a hard
link that only one attempt can win; afterwards the files are renamed into the dataset, by the winner or by whoever comes
later. Before the link nothing is in the dataset, after it nothing can be lost.

On an object store the marker is put under its final name, which only one attempt can do; then the files are copied.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from fink_dask.errors import FinkDaskError, LedgerError, StorageError
from fink_dask.kafka.offsets import Range
from fink_dask.ledger.data_file import DataFile
from fink_dask.ledger.documents import seal
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.publish import destinations, publish
from fink_dask.ledger.records import Marker
from fink_dask.store.durable import (
    bring,
    is_admitted,
    link_exclusively,
    make_room,
    prepare_directory,
    remove_tree,
    size_finder,
    sync_directory,
    write_file,
)
from fink_dask.store.location import is_remote

#: Is told the name of each step of a commit; tests kill the process there.
Step = Callable[[str], None]

#: What an attempt calls its marker.
MARKER = "marker.json"

#: The same after it was withdrawn.
_WITHDRAWN = "withdrawn.json"


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
        Is told the name of each step.
    revision : int
        The number of the marker that it would write; see `Marker`.
    should_stop : callable
        Asked several times a second while files are sent to an object store; True ends the attempt.
    """

    def __init__(
        self,
        ledger: Ledger,
        range_: Range,
        plan_id: str,
        step: Step,
        revision: int = 0,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.ledger = ledger
        self.range = range_
        self.plan_id = plan_id
        self.revision = revision
        self.name = uuid.uuid4().hex[:16]
        self.directory = ledger.attempt_path(plan_id, range_, self.name)
        #: Where its files are written: that directory, or one of this host, if that one is on an object store.
        self.room = self.directory
        self._step = step
        self._should_stop = should_stop
        self._staged: dict[str, int] = {}
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
            self.room = make_room(self.directory)
        except FileNotFoundError as error:
            raise LedgerError(
                f"{self.ledger.path} does not hold plan {self.plan_id}: it was removed, or begun again, meanwhile"
            ) from error

    def is_wanted(self) -> bool:
        """Tell whether the ledger still has a place for it."""
        return is_admitted(self.directory.parent) if is_remote(self.directory) else self.directory.is_dir()

    def stage(self, files: Iterable[tuple[Path, str, int]]) -> tuple[DataFile, ...]:
        """Bring files of the attempt's room to the disk, or the store, and note where they belong.

        Parameters
        ----------
        files : iterable of (pathlib.Path, str, int)
            Each with its final name and its rows.

        Raises
        ------
        InterruptedTransferError
            If `should_stop` said so.
        """
        paths, staged = [], []
        for path, final, rows in files:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")
            paths.append(path)
            staged.append(DataFile(final, path.name, rows, path.stat().st_size, digest.hexdigest()))
        bring(paths, self.directory, self._should_stop)
        self._staged.update({file.staged: file.size for file in staged})
        return tuple(staged)

    def commit(self, marker: Marker) -> Marker:
        """Make this attempt the range's, unless another one already is.

        Returns
        -------
        Marker
            The marker of the range: this attempt's, or that of the attempt that came first.
        """
        self._step("staged")
        for root, file in destinations(self.ledger, marker):
            prepare_directory(root, file.path)
        self._check_staged()
        mine = self.directory / MARKER
        # From here on a roll forward may commit it.
        self._marked = True
        write_file(mine, seal("marker", marker.to_json()))
        sync_directory(self.directory)
        sync_directory(self.directory.parent)
        self._step("marked")
        self._linked = True
        try:
            link_exclusively(mine, self.ledger.marker_path(self.range, self.revision))
        except StorageError:
            self._linked = False  # the file system has no links, or a store does not say what became of it
            raise
        self._step("linked")
        return winner_of(self.ledger, marker)

    def supersede(self, marker: Marker) -> None:
        """Commit and publish the next revision of a range that is committed already.

        Raises
        ------
        LedgerError
            If another job has written that revision.
        """
        done = self.commit(marker)
        if done.attempt != self.name:
            raise LedgerError(f"another job has changed range {self.range.name} meanwhile")
        publish(self.ledger, done, self._step)

    def clean_up(self) -> None:
        """Remove the staging directory, unless the range's marker names it, or may name it.

        A commit that failed after its link, or on the way, may have won: its files are then all that there is of the
        range. Whoever rolls the ledger forward can tell.
        """
        try:
            removable = self._is_beaten() if self._linked else not self._marked or self._withdraw()
        except (FinkDaskError, OSError):
            removable = False
        if self.room != self.directory:
            remove_tree(self.room)
        if removable:
            with suppress(FinkDaskError):  # whoever rolls the ledger forward tries again
                remove_tree(self.directory)

    def _check_staged(self) -> None:
        """Refuse to commit what is no longer on the object store.

        In a file system the marker is linked from the staging directory, and can't be once that was removed.

        Raises
        ------
        LedgerError
            If somebody has removed it.
        """
        if is_remote(self.directory):
            there = size_finder(self.directory)
            if not all(there(self.directory / name, size) for name, size in self._staged.items()):
                raise LedgerError(f"what was staged is gone from {self.directory}: the ledger was removed meanwhile")

    def _is_beaten(self) -> bool:
        marker = self.ledger.marker(self.range, self.plan_id, self.revision)
        return marker is not None and marker.attempt != self.name

    def _withdraw(self) -> bool:
        """Withdraw the marker, so that nobody can link it any more; False where somebody already has.

        On an object store it can't be withdrawn: somebody may be about to put it.
        """
        if is_remote(self.directory):
            return False
        withdrawn = (self.directory / MARKER).rename(self.directory / _WITHDRAWN)
        with withdrawn.open("rb") as file:  # opening makes a network file system ask its server
            alone = os.fstat(file.fileno()).st_nlink == 1
        if not alone:
            withdrawn.rename(self.directory / MARKER)
        return alone


def winner_of(ledger: Ledger, marker: Marker) -> Marker:
    """Read the marker that a range has where this one was to be linked.

    Raises
    ------
    LedgerError
        If there is none, although one was linked.
    """
    found = ledger.marker(marker.range, marker.plan_id, marker.revision)
    if found is None:
        raise LedgerError(f"the marker of range {marker.range.name} vanished as it was written")
    return found
