"""Stage and commit: how the files of a range become part of the dataset, exactly once.

An attempt writes into a staging directory of its own. Its marker, written there too, becomes the range's by a hard
link that only one attempt can win; afterwards the files are renamed into the dataset, by the winner or by whoever comes
later. Before the link nothing is in the dataset, after it nothing can be lost.

On an object store the marker is put under its final name, which only one attempt can do; then the files are copied.

What holds at every moment, whoever is killed, or is as slow as it likes, and however many jobs are at work:

1. A file in the dataset is named by a marker of its range, unless a later revision is about to remove it.
2. The files of the revision that counts, or of the one before it, are in the dataset or in the staging directory of
   the attempt that the marker names, whatever that directory is called at the moment.
3. Only one attempt ever has the marker of a range and revision, and a marker is never changed.
4. After a roll forward the dataset has the files of the revision that counts, and no others.

A small model of these steps enumerates every order in which two attempts, a change and two roll forwards can take
them, and is held to what this file does: ``tests/ledger/commit_model.py``.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from fink_dask.errors import FinkDaskError, LedgerError, StorageError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.ledger import QUARANTINE_DIRECTORY, Ledger, storage_in_words
from fink_dask.ledger.records import DataFile, Marker, Plan, unseal
from fink_dask.store.local import LOCAL, directories_down_to, has_size
from fink_dask.store.newfile import NewFile
from fink_dask.store.store import Store

#: Is told the name of each step of a commit; tests kill the process there.
Step = Callable[[str], None]

#: What an attempt calls its marker.
MARKER = "marker.json"

#: The same after it was withdrawn.
_WITHDRAWN = "withdrawn.json"

#: Added to the name of a staging directory that is being removed.
_DOOMED = ".doomed"


def publish(ledger: Ledger, marker: Marker, step: Callable[[str], None]) -> None:
    """Rename the files of a committed range into the dataset; repeatable, by anyone, at any time after the commit.

    Files that the marker supersedes are removed afterwards, so that no alert is ever missing.

    Raises LedgerError if a file is neither staged nor in the dataset; the others are published nevertheless.
    """
    # Whoever has linked the marker may have been killed, or met an error, before it was on the disk.
    ledger.store.sync(ledger.markers_path)
    staging = staging_of(ledger, marker)
    touched: set[Path] = set()
    gone: list[Path] = []

    def move(destination: tuple[Path, DataFile]) -> bool:
        root, file = destination
        return _move(ledger.store, staging / file.staged, root, file.path)

    for (root, file), is_there in ledger.store.for_each(move, destinations(ledger, marker)):
        if not is_there:
            gone.append(root / file.path)
        touched.update(directories_down_to(root, file.path))
        step("renamed")
    # A roll forward gives a staging directory another name for a moment: only of what is empty all files were moved,
    # perhaps by somebody who has not removed yet what they supersede.
    is_empty = bool(gone) and _is_emptied(ledger.store, staging)
    if is_empty:
        gone = [path for path in gone if not path.exists()]
    # The leaves first: an entry is durable when its own directory is and those above it are.
    for directory in sorted(touched, key=lambda path: len(path.parts), reverse=True):
        with suppress(FileNotFoundError):  # the directory of what is gone
            ledger.store.sync(directory)
    step("published")
    if gone:  # what is superseded may be all that is left of these alerts; a repair takes it over
        if is_empty:
            ledger.store.remove_tree(staging)
        raise LedgerError(f"{gone[0]} is committed, but neither there nor staged: fink-dask repair fetches it again")
    _remove_superseded(ledger, marker)
    # Where the next revision was committed before these were moved, its own removal may have come too early for them.
    for later in _later(ledger, marker):
        _remove_superseded(ledger, later)
    ledger.store.remove_tree(staging)


def _move(store: Store, staged: Path, root: Path, path: str) -> bool:
    """Give a staged file its name in the dataset; False where it is neither staged nor there."""
    target = root / path
    for _ in range(2):
        try:
            store.move(staged, target)
        except FileNotFoundError:
            # Renamed by an earlier try, or the target's directory was removed with what was in it.
            if target.exists():
                return True
            if not staged.exists():
                return False
            store.make_directory_of(root, path)
        else:
            return True
    return False


def _is_emptied(store: Store, staging: Path) -> bool:
    """Tell whether all files of a staging directory were moved.

    On an object store they are copied, and nobody gives the directory another name.
    """
    if not store.renames:
        return True
    try:
        return set(store.names(staging)) <= {MARKER, _WITHDRAWN}
    except FileNotFoundError:
        return False


def _later(ledger: Ledger, marker: Marker) -> Iterator[Marker]:
    """Yield the later revisions of a range that can be read, up to one that cannot."""
    later: Marker | None = marker
    while later is not None:
        try:
            later = ledger.marker(marker.range, marker.plan_id, later.revision + 1)
        except LedgerError:
            return
        if later is not None:
            yield later


def staging_of(ledger: Ledger, marker: Marker) -> Path:
    """Where the attempt that a marker names staged its files."""
    return ledger.attempt_path(marker.plan_id, marker.range, marker.attempt)


def is_published(ledger: Ledger, marker: Marker) -> bool:
    """Tell whether nothing of a committed range is still staged."""
    return not staging_of(ledger, marker).is_dir()


def published(ledger: Ledger, markers: Sequence[Marker]) -> list[Marker]:
    """Choose the markers of committed ranges of which nothing is still staged."""
    if ledger.store.renames:
        return [marker for marker in markers if is_published(ledger, marker)]
    staged = set(ledger.staged())  # in a few requests, instead of one for each range
    return [marker for marker in markers if staging_of(ledger, marker) not in staged]


def missing_files(ledger: Ledger, markers: Iterable[Marker]) -> list[Path]:
    """List committed files that are neither in the dataset nor staged with the size that was written.

    Sizes are compared, contents are not: that is what `verify` is for.
    """
    there = ledger.store.size_finder(ledger.outdir, ledger.staging_path, ledger.quarantine_path)
    missing: list[Path] = []
    for marker in markers:
        for root, file in destinations(ledger, marker):
            if not there(root, file.path, file.size):
                missing += missing_of(ledger, marker, staging_of(ledger, marker), there)
                break
    return missing


def gone_files(ledger: Ledger, plans: Sequence[Plan], markers: Sequence[Marker]) -> list[Path]:
    """List files as `missing_files` does, but none that somebody hands over meanwhile: that needs no lease.

    `markers`: those that counted a while ago.
    """
    gone = missing_files(ledger, markers)
    while gone:
        before, gone = gone, missing_files(ledger, ledger.markers(plans))
        if gone == before:
            break
    return gone


def missing_of(
    ledger: Ledger, marker: Marker, staging: Path, there: Callable[[Path, str, int], bool] = has_size
) -> list[Path]:
    """List the files of a range that are neither in the dataset nor in `staging` with the size that was written."""
    return [
        root / file.path
        for root, file in destinations(ledger, marker)
        if not there(root, file.path, file.size) and not there(staging, file.staged, file.size)
    ]


def destinations(ledger: Ledger, marker: Marker) -> Iterator[tuple[Path, DataFile]]:
    """Yield the files of a range, each with the directory that its path is relative to."""
    root = ledger.outdir
    for file in marker.files:
        yield root, file
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
        ledger.store.sync(directory)


class Attempt:
    """One try at a range, with a staging directory of its own."""

    def __init__(
        self,
        ledger: Ledger,
        offset_range: OffsetRange,
        plan_id: str,
        step: Step,
        revision: int = 0,
        should_stop: Callable[[], bool] = lambda: False,
        name: str | None = None,
    ) -> None:
        self.ledger = ledger
        self.range = offset_range
        # The plan that holds the range.
        self.plan_id = plan_id
        # The number of the marker that it would write; see `Marker`.
        self.revision = revision
        # What it is called, where that follows from what it makes.
        self.name = name or uuid.uuid4().hex[:16]
        self.directory = ledger.attempt_path(plan_id, offset_range, self.name)
        #: Where its files are written: that directory, or one of this host, if that one is on an object store.
        self.scratch = self.directory
        # Is told the name of each step.
        self._step = step
        # Asked several times a second while files are sent to an object store; True ends the attempt.
        self._should_stop = should_stop
        self._staged: dict[str, int] = {}
        self._marked = False
        self._linked = False

    def begin(self) -> None:
        """Make the staging directory.

        It is made once and never again, in a directory that only a ledger with its plan has: where a job has moved the
        ledger aside in the meantime, a late attempt finds nothing to write to, and can't reach the new ledger.

        Raises LedgerError if the ledger does not hold the plan.
        """
        try:
            self.scratch = self.ledger.store.create_staging(self.directory)
        except FileNotFoundError as error:
            raise LedgerError(
                f"{self.ledger.path} does not hold plan {self.plan_id}: it was removed, or begun again, meanwhile"
            ) from error

    def is_wanted(self) -> bool:
        """Tell whether the ledger still has a place for it."""
        return self.ledger.store.has_staging(self.directory)

    def stage(self, files: Sequence[tuple[NewFile, str, int]]) -> tuple[DataFile, ...]:
        """Bring files of the attempt's room to the disk, or the store, and note where they belong.

        `files`: each with its final name and its rows.
        Raises InterruptedTransferError if `should_stop` said so.
        """
        staged = [DataFile(final, file.path.name, rows, file.size, file.sha256()) for file, final, rows in files]
        self.ledger.store.persist([file for file, _, _ in files], self.directory, self._should_stop)
        self._staged.update({file.staged: file.size for file in staged})
        return tuple(staged)

    def commit(self, marker: Marker) -> Marker:
        """Make this attempt the range's, unless another one already is.

        Returns: the marker of the range: this attempt's, or that of the attempt that came first.
        """
        self._step("staged")
        for root, file in destinations(self.ledger, marker):
            self.ledger.store.make_directory_of(root, file.path)
        self._check_staged()
        mine = self.directory / MARKER
        # From here on a roll forward may commit it.
        self._marked = True
        self.ledger.store.write_new(mine, marker.sealed())
        self.ledger.store.sync(self.directory)
        self.ledger.store.sync(self.directory.parent)
        self._step("marked")
        self._linked = True
        try:
            self.ledger.store.link(mine, self.ledger.marker_path(self.range, self.revision))
        except StorageError:
            self._linked = False  # the file system has no links, or a store does not say what became of it
            raise
        self._step("linked")
        return winner_of(self.ledger, marker)

    def supersede(self, marker: Marker) -> None:
        """Commit and publish the next revision of a range that is committed already.

        Raises LedgerError if another job has written that revision.
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
        if self.scratch != self.directory:
            LOCAL.remove_tree(self.scratch)
        if removable:
            with suppress(FinkDaskError):  # whoever rolls the ledger forward tries again
                self.ledger.store.remove_tree(self.directory)

    def _check_staged(self) -> None:
        """Refuse to commit what is no longer on the object store.

        In a file system the marker is linked from the staging directory, and can't be once that was removed.

        Raises LedgerError if somebody has removed it.
        """
        if not self.ledger.store.renames:
            there = self.ledger.store.size_finder(self.directory)
            if not all(there(self.directory, name, size) for name, size in self._staged.items()):
                raise LedgerError(f"what was staged is gone from {self.directory}: the ledger was removed meanwhile")

    def _is_beaten(self) -> bool:
        marker = self.ledger.marker(self.range, self.plan_id, self.revision)
        return marker is not None and marker.attempt != self.name

    def _withdraw(self) -> bool:
        """Withdraw the marker, so that nobody can link it any more; False where somebody already has.

        On an object store it can't be withdrawn: somebody may be about to put it.
        """
        if not self.ledger.store.renames:
            return False
        withdrawn = (self.directory / MARKER).rename(self.directory / _WITHDRAWN)
        with withdrawn.open("rb") as file:  # opening makes a network file system ask its server
            alone = os.fstat(file.fileno()).st_nlink == 1
        if not alone:
            withdrawn.rename(self.directory / MARKER)
        return alone


def winner_of(ledger: Ledger, marker: Marker) -> Marker:
    """Read the marker that a range has where this one was to be linked.

    Raises LedgerError if there is none, although one was linked.
    """
    found = ledger.marker(marker.range, marker.plan_id, marker.revision)
    if found is None:
        raise LedgerError(f"the marker of range {marker.range.name} vanished as it was written")
    return found


def roll_forward(ledger: Ledger, plans: Iterable[Plan]) -> int:
    """Publish what is committed, commit and publish what is ready for it, and remove what else is staged.

    Only the holder of the lease may call this, while none of its own attempts runs.

    Raises LedgerError if a marker that is there can't be found.
    """
    planned: dict[str, list[OffsetRange]] = {}
    for plan in plans:  # of ids of 8 digits, two generations may have the same
        planned.setdefault(plan.plan_id, []).extend(plan.ranges)
    rolled = 0
    with storage_in_words(ledger.staging_path):
        ledger.store.make_directory(ledger.staging_path)  # where somebody has removed it
        # It counts for nothing until it is complete. An attempt that still sends, on a worker that its job has lost,
        # fails, as does one whose staging directory is renamed.
        ledger.store.remove_unfinished(ledger.staging_path)
        names = set(ledger.store.names(ledger.staging_path))
        for plan_id in planned.keys() - names:  # where somebody has removed what was staged
            ledger.store.create_plan_directory(ledger.staging_path / plan_id)
        revisions = ledger.revisions()
        kept: set[str] = set()
        named: dict[str, dict[str, OffsetRange]] = {}
        for directory in ledger.staged():
            plan_id = directory.parent.name
            name, _, attempt = directory.name.removesuffix(_DOOMED).rpartition("-")
            if plan_id not in named:
                named[plan_id] = {each.name: each for each in planned.get(plan_id, ())}
            offset_range = named[plan_id].get(name)
            if offset_range is None and _is_committed(ledger, directory):
                kept.add(plan_id)  # whatever has become of its plan, these may be the only copies
                continue
            reconcile = _reconcile if ledger.store.renames else _reconcile_in_place
            # A marker that is damaged, and files that somebody has removed, are for whoever holds the files against the
            # markers to tell, and for a repair, which begins here, to mend.
            last = revisions.get(name, 0)
            if offset_range is not None and _is_damaged(ledger, offset_range, plan_id, last):
                continue
            marker = reconcile(ledger, offset_range, plan_id, attempt, directory, last)
            if marker is not None:
                with suppress(LedgerError):
                    publish(ledger, marker, lambda _: None)
                rolled += 1
        for name in names - planned.keys() - kept:
            ledger.store.remove_tree(ledger.staging_path / name)
    return rolled


def _reconcile(
    ledger: Ledger, offset_range: OffsetRange | None, plan_id: str, attempt: str, directory: Path, last: int
) -> Marker | None:
    """Return the marker that names this staging directory, or remove it."""
    original = directory.with_name(directory.name.removesuffix(_DOOMED))
    marker = None if offset_range is None else _marker_of(ledger, offset_range, plan_id, attempt, last)
    if marker is None:
        # Its attempt may still run, on a worker that its job has lost. Once the directory has another name it can
        # neither write a marker nor link it.
        doomed = original.with_name(original.name + _DOOMED)
        try:
            directory.rename(doomed)
        except FileNotFoundError:
            return None  # its attempt has just removed it
        directory = doomed
        marker = None if offset_range is None else _adopt(ledger, offset_range, plan_id, attempt, doomed)
        if marker is None:
            ledger.store.remove_tree(doomed)
            return None
    if directory != original:
        directory.rename(original)
    return marker


def _reconcile_in_place(
    ledger: Ledger, offset_range: OffsetRange | None, plan_id: str, attempt: str, directory: Path, last: int
) -> Marker | None:
    """Return the marker that names what is staged on an object store, or remove it, or leave it for now.

    Nothing can be renamed there, so an attempt that may still run can't be kept from putting its marker. What it has
    staged is therefore left alone until there is a marker of its range: from then on the store refuses its own.
    """
    if offset_range is None:
        ledger.store.remove_tree(directory)
        return None
    marker = _marker_of(ledger, offset_range, plan_id, attempt, last) or _adopt(
        ledger, offset_range, plan_id, attempt, directory
    )
    # Of a range that was changed since, everything was published before.
    if marker is not None and marker.revision >= last:
        return marker
    revision = max((_revision_of(name) for name in ledger.store.names(directory)), default=0)
    if marker is not None or ledger.marker(offset_range, plan_id, revision) is not None:
        ledger.store.remove_tree(directory)
    return None


def _revision_of(staged: str) -> int:
    """Tell from a staged file's name which marker of its range its attempt would write; see `Origin.staged_prefix`."""
    match = re.match(r"([1-9][0-9]{0,5})-", staged)
    return int(match[1]) if match else 0


def _is_committed(ledger: Ledger, directory: Path) -> bool:
    """Tell whether the marker of an attempt, whatever its plan and range, is one that a range has."""
    try:
        marker = Marker.from_json(unseal("marker", directory / MARKER))
        found = ledger.marker(marker.range, marker.plan_id, marker.revision)
    except (FileNotFoundError, LedgerError):
        return False
    return found is not None and found.attempt == marker.attempt


def _is_damaged(ledger: Ledger, offset_range: OffsetRange, plan_id: str, last: int) -> bool:
    """Tell whether the marker that counts of a range can't be read."""
    try:
        ledger.marker(offset_range, plan_id, last)
    except LedgerError:
        return True
    return False


def _marker_of(ledger: Ledger, offset_range: OffsetRange, plan_id: str, attempt: str, last: int) -> Marker | None:
    """Find the marker that an attempt has won, among the revisions of its range up to the last one."""
    for revision in range(last + 1):
        try:
            marker = ledger.marker(offset_range, plan_id, revision)
        except LedgerError:
            continue  # a later one counts, which was made because this one was damaged
        if marker is not None and marker.attempt == attempt:
            return marker
    return None


def _adopt(ledger: Ledger, offset_range: OffsetRange, plan_id: str, attempt: str, directory: Path) -> Marker | None:
    """Commit what an attempt has made ready, unless it or another one has; None where it is not the range's.

    To look for the range's marker once more would not do: a network file system may remember for a minute that there
    was none, while these are the files that it names. Linking makes the server decide.
    """
    mine = directory / MARKER
    try:
        marker = Marker.from_json(unseal("marker", mine))
    except (FileNotFoundError, LedgerError):
        return None  # cut off before there was anything to link
    named = (marker.range, marker.plan_id, marker.attempt) == (offset_range, plan_id, attempt)
    if not named or missing_of(ledger, marker, directory):
        return None
    # The files were brought to the disk before the marker was written; the marker and their names may not be yet.
    ledger.store.sync(mine)
    ledger.store.sync(directory)
    ledger.store.sync(directory.parent)
    if ledger.store.link(mine, ledger.marker_path(offset_range, marker.revision)):
        return marker
    winner = winner_of(ledger, marker)
    return winner if winner.attempt == attempt else None
