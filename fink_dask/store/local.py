"""A file system: write, fsync, link, rename."""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import suppress
from pathlib import Path
from stat import S_ISCHR, S_ISFIFO, S_ISREG
from typing import Any, ClassVar

from fink_dask.errors import StorageError
from fink_dask.store import newfile
from fink_dask.store.newfile import NewFile
from fink_dask.store.store import Heartbeat, Item, Result

#: What is read of a file at once.
_AT_ONCE_BYTES = 2**16
#: Where a process finds what it was started with.
_DESCRIPTOR = re.compile(r"/dev/(?:stdout|stderr|fd/[0-9]+)|/proc/self/fd/[0-9]+")
#: What file systems say that have no hard links, or not from one directory into another.
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


def is_stream(path: Path) -> bool:
    """Tell whether a path is a pipe, a terminal or another such device: what is written there replaces nothing."""
    if _DESCRIPTOR.fullmatch(str(path)):
        return True  # even where the shell has led it to a file
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return S_ISFIFO(mode) or S_ISCHR(mode)


def nearest(path: Path) -> Path:
    """Return a path, or the nearest directory above it that is there."""
    while not os.path.exists(path) and path != path.parent:  # noqa: PTH110 - Path.exists may not be let in
        path = path.parent
    return path


class LocalStore:
    """A file system."""

    renames: ClassVar = True
    look_s: ClassVar = 0.0
    note_s: ClassVar = 1.0

    def sync(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            newfile.to_disk(descriptor)
        finally:
            os.close(descriptor)

    def write_new(self, path: Path, content: bytes) -> None:
        with path.open("xb") as file:
            file.write(content)
            file.flush()
            newfile.to_disk(file.fileno())

    def put_new(self, target: Path, content: bytes) -> bool:
        aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            self.write_new(aside, content)
            return self.link(aside, target)
        finally:
            aside.unlink(missing_ok=True)

    def replace(self, target: Path, content: bytes) -> None:
        aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            self.write_new(aside, content)
            aside.replace(target)
        finally:
            aside.unlink(missing_ok=True)
        self.sync(target.parent)

    def note(self, target: Path, content: bytes) -> None:
        aside = target.with_name(f".{target.name}.{os.getpid()}")
        aside.write_bytes(content)
        aside.replace(target)

    def link(self, source: Path, target: Path) -> bool:
        """Link, the one POSIX operation that is atomic, refuses to replace, and works over NFS."""
        won = _link(source, target)
        self.sync(target.parent)
        return won

    def share(self, source: Path, target: Path) -> None:
        self.link(source, target)

    def move(self, source: Path, target: Path) -> None:
        source.rename(target)

    def move_tree(self, source: Path, target: Path, names: Sequence[str] | None = None) -> None:
        assert names is None, "directories are moved as a whole"
        with suppress(FileNotFoundError):
            source.rename(target)

    def remove_tree(self, directory: Path) -> None:
        shutil.rmtree(directory, ignore_errors=True)

    def try_commit(self, trial: Path) -> None:
        """Link and rename.

        AFS, and BeeGFS as it is set up by default, link within one directory only; BeeGFS can also be set up to make a
        symbolic link instead, which names nothing once what was staged is removed.
        """
        trial.mkdir()
        try:
            staged, marker, published = (trial / name for name in ("staging/.file", "markers/.file", "data/.file"))
            for file in (staged, marker, published):
                file.parent.mkdir()
            staged.write_bytes(b"alert")
            (other := staged.with_name(".other")).write_bytes(b"another")
            is_linked, replaces = _link(staged, marker), _link(other, marker)
            # A commit tells by the number of its names whether somebody has linked a marker.
            is_same_file = S_ISREG(marker.lstat().st_mode) and marker.lstat().st_nlink == 2
            staged.rename(published)
            if not is_linked or replaces or not is_same_file or marker.read_bytes() != b"alert":
                raise _unsafe(trial.parent, "what it makes of one is something else")
        finally:
            self.remove_tree(trial)

    def make_directory(self, path: Path) -> list[Path]:
        missing = []
        while not path.is_dir():
            missing.append(path)
            path = path.parent
        made = []
        for directory in reversed(missing):
            try:
                directory.mkdir()
                made.append(directory)
            except FileExistsError:
                if not directory.is_dir():
                    raise
            self.sync(directory.parent)
        return made

    def make_directory_of(self, root: Path, path: str) -> None:
        self.make_directory((root / path).parent)
        for level in directories_down_to(root, path):
            twin = level.with_name(level.name.swapcase())
            if level == root or twin.name == level.name or not _is_same(level, twin):
                continue
            if level.name not in {entry.name for entry in level.parent.iterdir()}:
                raise StorageError(
                    f"this file system takes {level.name!r} and another partition key for the same, because they "
                    "differ in case only; partition by something else, or write to another file system"
                )

    def are_together(self, first: Path, second: Path) -> bool:
        """Tell whether both are on one file system."""
        return first.stat().st_dev == second.stat().st_dev

    def is_there(self, directory: Path) -> bool:
        return directory.exists()

    def directories(self, path: Path) -> list[Path]:
        return sorted(filter(Path.is_dir, path.iterdir()))

    def names(self, path: Path) -> list[str]:
        return os.listdir(path)  # noqa: PTH208 - a Path for each takes longer

    def files_below(self, directory: Path, known: Set[Path] = frozenset()) -> Iterator[Path]:
        """Yield them; a directory of the dataset may be a link to another disk."""
        if not directory.exists():
            return
        for entry in sorted(directory.iterdir()):
            if entry.is_dir() and (not entry.is_symlink() or entry in known):
                yield from self.files_below(entry, known)
            elif not is_finder_file(entry):
                yield entry

    def glance(self, directory: Path) -> Callable[[str], bytes]:
        """Return it; opening a Path takes twice as long, and a ledger may have a hundred thousand markers."""
        within = f"{directory}{os.sep}"
        return lambda name: _read_short(within + name)

    def size_finder(self, *roots: Path) -> Callable[[Path, str, int], bool]:
        # Joining Paths takes as long as all the rest.
        return lambda root, path, size: _has_size(f"{root}{os.sep}{path}", size)

    def for_each(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
        return ((item, function(item)) for item in items)

    def create_plan_directory(self, directory: Path) -> None:
        self.make_directory(directory)

    def plan_directory(self, directory: Path) -> Path:
        return directory

    def create_staging(self, directory: Path) -> Path:
        directory.mkdir()
        return directory

    def has_staging(self, directory: Path) -> bool:
        return directory.is_dir()

    def scratch(self, directory: Path) -> Path:
        return directory

    def persist(
        self, files: Sequence[NewFile], directory: Path, should_stop: Callable[[], bool] = lambda: False
    ) -> None:
        for file in files:
            file.sync()

    def send(self, files: Sequence[Path], directory: Path, should_stop: Callable[[], bool] = lambda: False) -> None:
        self.make_directory(directory)
        for file in files:
            self.replace(directory / file.name, file.read_bytes())

    def remove_unfinished(self, directory: Path) -> None:
        pass

    def heartbeat(self, path: Path) -> Heartbeat:
        return _Heartbeat(path)

    def last_heartbeat(self, path: Path) -> float | None:
        with suppress(FileNotFoundError):
            return path.stat().st_mtime
        return None

    def time(self, aside: Path) -> float:
        os.utime(aside)
        return aside.stat().st_mtime

    def free_bytes(self, place: Path) -> int | None:
        """Tell them; quotas are not seen."""
        try:
            return shutil.disk_usage(nearest(place.absolute())).free
        except OSError:
            return None

    def number(self, path: Path) -> int:
        return path.stat().st_ino

    def shared_directory(self, path: Path, what: str) -> Path:
        return path / what

    def source(self, path: Path) -> Any:
        return path

    def filesystem(self, path: Path) -> tuple[Any, str]:
        return None, str(path)


LOCAL = LocalStore()


class _Heartbeat:
    """The modification time of a lease's file."""

    def __init__(self, path: Path) -> None:
        # Held open, so that this job never renews the lease of a ledger that was moved or taken over.
        self._descriptor = os.open(path, os.O_RDONLY)

    def renew(self) -> None:
        os.utime(self._descriptor)  # the file system's clock, not this host's

    def end(self) -> None:
        try:
            os.utime(self._descriptor, (0, 0))  # so long ago that the lease is free
        finally:
            os.close(self._descriptor)


def _read_short(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        # To ask whether there is more would take as long as this.
        content = os.read(descriptor, _AT_ONCE_BYTES)
        return content if len(content) < _AT_ONCE_BYTES else b""
    finally:
        os.close(descriptor)


def has_size(root: Path, path: str, size: int) -> bool:
    """Tell whether a file or an object is there, with the size that it should have."""
    return _has_size(root / path, size)


def _has_size(place: Path | str, size: int) -> bool:
    try:
        found = os.stat(place) if isinstance(place, str) else place.stat()  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return False
    return S_ISREG(found.st_mode) and found.st_size == size


def is_finder_file(path: Path) -> bool:
    """Tell whether a file is one that macOS puts into directories by itself, so that it counts as nobody's."""
    return (path.name == ".DS_Store" or path.name.startswith("._")) and path.is_file() and not path.is_symlink()


def directories_down_to(root: Path, path: str) -> list[Path]:
    """List the directories from `root` down to the one that holds `path`."""
    return [parent for parent in (root / path).parents if parent == root or root in parent.parents]


def _link(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except FileExistsError:
        # A network file system that carried out the link and lost the answer says this to its own second try.
        return _is_same(source, target)
    except OSError as error:
        if error.errno in _NO_LINKS:
            raise _unsafe(target.parent, os.strerror(error.errno)) from error
        raise
    return True


def _unsafe(directory: Path, reason: str) -> StorageError:
    return StorageError(
        f"the file system of {directory} can't make the hard links that a safe commit needs ({reason}); keep the "
        "dataset on another file system"
    )


def _is_same(first: Path, second: Path) -> bool:
    """Tell whether two names are the same file or directory; False where one of them is not there."""
    try:
        return first.samefile(second)
    except FileNotFoundError:
        return False
