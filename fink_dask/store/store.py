"""What a store of datasets does: the few operations that the guarantee stands on, and who asks for which.

`fink_dask.store.local` has them for a file system, `fink_dask.store.remote` for an object store;
`fink_dask.store.location.store_of` finds the one that a place is on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from fink_dask.store.newfile import NewFile

Item = TypeVar("Item")
Result = TypeVar("Result")


class Heartbeat(Protocol):
    """What keeps a lease alive."""

    def renew(self) -> None:
        """Renew the lease."""

    def end(self) -> None:
        """Make the lease free."""


class Store(Protocol):
    """Where datasets are.

    All methods raise OSError or StorageError if the file system refuses, or the store does not answer.
    """

    #: Whether a directory can be given another name: nobody who knows its old one writes to it any more.
    renames: ClassVar[bool]
    #: Seconds between two looks at what others may have changed, and between two notes: a store charges for each.
    look_s: ClassVar[float]
    note_s: ClassVar[float]

    def sync(self, path: Path) -> None:
        """Bring a file's content, or a directory's entries, to the disk."""

    def write_new(self, path: Path, content: bytes) -> None:
        """Write a new file and bring its content to the disk; its name is durable once the directory is synced."""

    def put_new(self, target: Path, content: bytes) -> bool:
        """Write a file that appears whole or not at all, durably; False where `target` exists already."""

    def replace(self, target: Path, content: bytes) -> None:
        """Replace a file, durably; a reader finds the old one or the new one, whole."""

    def note(self, target: Path, content: bytes) -> None:
        """Replace a file which need not survive a power cut."""

    def link(self, source: Path, target: Path) -> bool:
        """Give `source` the name `target` as well, durably, unless that name exists: False then.

        It is the one thing that only one of several can do. Whoever holds the name afterwards, it is on the disk: the
        loser goes by what it finds there, and must not lose it to a power cut either.
        Raises StorageError if the file system has no hard links.
        """

    def share(self, source: Path, target: Path) -> None:
        """Give a file another name as well, which nobody else uses."""

    def move(self, source: Path, target: Path) -> None:
        """Give a file its final name, replacing one that may be there.

        Raises FileNotFoundError if the file is not there, or the target's directory.
        """

    def move_tree(self, source: Path, target: Path, names: Sequence[str] | None = None) -> None:
        """Give a directory, or some of its files, another name; what is not there was moved before.

        What can't be renamed is copied, the first of the names last, and then removed.
        """

    def remove_tree(self, directory: Path) -> None:
        """Remove a directory with all that is in it, as far as that can be done.

        Raises StorageError if an object store refuses: nothing may be left there that could be published once more.
        """

    def try_commit(self, trial: Path) -> None:
        """Try what a commit does with files and names, before anything is read for it; nothing is left behind.

        `trial`: a directory for it, which is not there yet, beside what will be committed.
        Raises StorageError if a commit would not be safe there.
        """

    def make_directory(self, path: Path) -> list[Path]:
        """Make a directory and those above it, and bring their entries to the disk.

        Returns: the directories that were not there before, the outermost first.
        """

    def make_directory_of(self, root: Path, path: str) -> None:
        """Make the directory that a file of the dataset belongs in.

        Raises StorageError if the file system takes it for that of another partition key, because it ignores upper and
        lower case.
        """

    def are_together(self, first: Path, second: Path) -> bool:
        """Tell whether files can be moved from one directory to another."""

    def is_there(self, directory: Path) -> bool:
        """Tell whether a directory that was made is there; it always is where directories are only names."""

    def directories(self, path: Path) -> list[Path]:
        """List the directories directly in one."""

    def names(self, path: Path) -> list[str]:
        """List the names of what is in a directory."""

    def files_below(self, directory: Path, known: Set[Path] = frozenset()) -> Iterator[Path]:
        """Yield in order whatever is no directory; also a link to one, which readers follow, unless it is known."""

    def glance(self, directory: Path) -> Callable[[str], bytes]:
        """Return what reads short files of a directory, of which many are read; nothing of one that may be longer."""

    def size_finder(self, *roots: Path) -> Callable[[Path, str, int], bool]:
        """Return what tells whether a file below one of these directories is there, with the size that it should have.

        It is given a directory, the path from there, with slashes, and the size.
        """

    def for_each(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
        """Yield each item with what a function returns for it; several calls may run at once."""

    def create_plan_directory(self, directory: Path) -> None:
        """Make a directory in which `create_staging` can make others."""

    def plan_directory(self, directory: Path) -> Path:
        """Name what `create_plan_directory` makes."""

    def create_staging(self, directory: Path) -> Path:
        """Make a directory of a name that nobody else uses, and return where its files are written.

        Raises FileNotFoundError if the directory around it was not made by `create_plan_directory`, or was removed.
        """

    def has_staging(self, directory: Path) -> bool:
        """Tell whether a directory that `create_staging` made is still wanted."""

    def scratch(self, directory: Path) -> Path:
        """Return where the files of a directory are written: itself, or a new directory of this host; see `persist`."""

    def persist(
        self, files: Sequence[NewFile], directory: Path, should_stop: Callable[[], bool] = lambda: False
    ) -> None:
        """Bring files to the disk, or move them from this host into their directory, under their own names.

        Raises InterruptedTransferError if `should_stop` said so while they were sent.
        """

    def send(self, files: Sequence[Path], directory: Path, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Copy files of this host into a directory, under their own names; raises as `persist` does."""

    def remove_unfinished(self, directory: Path) -> None:
        """Remove what uploads into a directory have left that were cut off."""

    def heartbeat(self, path: Path) -> Heartbeat:
        """Return the heartbeat of a lease that this process has just taken."""

    def last_heartbeat(self, path: Path) -> float | None:
        """Tell when a lease was renewed, in seconds since 1970-01-01 UTC; None where it is free, or gone."""

    def time(self, aside: Path) -> float:
        """Ask for the time, by writing to a file of one's own; seconds since 1970-01-01 UTC."""

    def free_bytes(self, place: Path) -> int | None:
        """Tell how many bytes are free at a place that may not be there yet; None where that is not known."""

    def number(self, path: Path) -> int:
        """Tell one directory from another one that had its name before."""

    def shared_directory(self, path: Path, what: str) -> Path:
        """Name a directory of a dataset that other hosts see, for what is no part of it, such as logs."""

    def source(self, path: Path) -> Any:
        """Return what pyarrow is to read a Parquet file from."""

    def filesystem(self, path: Path) -> tuple[Any, str]:
        """Return the file system through which pyarrow reads a dataset (None: this host's), and its name there."""
