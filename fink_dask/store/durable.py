"""The few operations that the guarantee stands on: write, fsync, link, rename; and what they are on an object store.

There an object is durable when its put is acknowledged; a put that must not replace anything stands for the link, and a
copy for the rename: what was copied stays until all that was staged with it is removed.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG

from fink_dask.errors import StorageError
from fink_dask.store.objects import ObjectPath

if sys.platform == "darwin":
    import fcntl

#: What file systems say that have no hard links, or not from one directory into another.
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}

#: Copies that are asked for at once.
_AT_ONCE = 16
#: The object that stands for a directory of an object store.
_ADMITTED = ".admitted"


def sync_file(path: Path) -> None:
    """Bring a file's content to the disk."""
    if isinstance(path, ObjectPath):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Bring a directory's entries to the disk."""
    sync_file(path)


def write_file(path: Path, content: bytes) -> None:
    """Write a new file and bring its content to the disk; its name is durable once the directory is synced."""
    if isinstance(path, ObjectPath):
        path.write_bytes(content)
        return
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        _sync(file.fileno())


class NewFile(io.RawIOBase):
    """A new file that is hashed as it is written, and brought to the disk through the descriptor that wrote it.

    That descriptor is told of what goes wrong on the way to the disk, and one that is opened later may not be; bytes
    that are read back may have gone bad before they are hashed.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        # Its name; a file that is there already is emptied.
        self.path = path
        #: Bytes that were written.
        self.size = 0
        self._file = path.open("w+b", buffering=0)
        self._hash = hashlib.sha256()
        self._is_rewritten = False

    def writable(self) -> bool:
        """Tell that it can be written to."""
        return True

    def tell(self) -> int:
        """Tell where the next byte goes."""
        return self.size

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override]
        """Add bytes, all of them."""
        whole = rest = memoryview(data).cast("B")
        if self.closed:  # what Arrow's buffer still has of a file that was given up: an error would only be printed
            return len(whole)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._hash.update(whole)
        self.size += len(whole)
        return len(whole)

    def rewrite(self, place: int, data: bytes) -> None:
        """Put other bytes in the place of some that were written."""
        os.pwrite(self._file.fileno(), data, place)
        self._is_rewritten = True

    def sha256(self) -> str:
        """Return the checksum of all of it, in hexadecimal."""
        if self._is_rewritten:
            self._file.seek(0)
            return hashlib.file_digest(self._file, "sha256").hexdigest()
        return self._hash.hexdigest()

    def sync(self) -> None:
        """Bring its content to the disk."""
        _sync(self._file.fileno())

    def close(self) -> None:
        """Close it; repeatable."""
        self._file.close()
        super().close()


def publish_file(aside: Path, target: Path, content: bytes) -> bool:
    """Write a file that appears whole or not at all; False where `target` exists already.

    `aside`: A name that nobody else uses, in a directory of the same file system.
    """
    if isinstance(target, ObjectPath):
        return target.create(content)
    try:
        write_file(aside, content)
        return link_exclusively(aside, target)
    finally:
        aside.unlink(missing_ok=True)


def publish_beside(target: Path, content: bytes) -> bool:
    """Do as `publish_file` does, by way of a hidden name beside the target that nobody else uses."""
    return publish_file(target.with_name(f".{target.name}.{uuid.uuid4().hex}"), target, content)


def replace_file(target: Path, content: bytes) -> None:
    """Replace a file, durably; a reader finds the old one or the new one, whole."""
    if isinstance(target, ObjectPath):
        target.write_bytes(content)
        return
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        write_file(aside, content)
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)
    sync_directory(target.parent)


def link_exclusively(source: Path, target: Path) -> bool:
    """Give `source` the name `target` as well, unless that name exists: False then.

    Linking is the one POSIX operation that is atomic, refuses to replace, and works over NFS. Whoever holds the name
    afterwards, it is on the disk: the loser goes by what it finds there, and must not lose it to a power cut either.

    Raises StorageError if the file system has no hard links.
    """
    if isinstance(target, ObjectPath):
        try:
            content = source.read_bytes()
        except FileNotFoundError:
            return False  # a roll forward may have put it, published what it names, and removed it
        return target.create(content)
    won = _link(source, target)
    sync_directory(target.parent)
    return won


def try_commit(trial: Path) -> None:
    """Try what a commit does with files and names, before anything is read for it; nothing is left behind.

    AFS, and BeeGFS as it is set up by default, link within one directory only; BeeGFS can also be set up to make a
    symbolic link instead, which names nothing once what was staged is removed.

    `trial`: A directory for it, which is not there yet, beside what will be committed.
    Raises StorageError if a commit would not be safe there.
    """
    if isinstance(trial, ObjectPath):
        trial.parent.check_conditions()
        return
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
        remove_tree(trial)


def _link(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except FileExistsError:
        # A network file system that carried out the link and lost the answer says this to its own second try.
        return is_same(source, target)
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


def is_same(first: Path, second: Path) -> bool:
    """Tell whether two names are the same file or directory; False where one of them is not there."""
    try:
        return first.samefile(second)
    except FileNotFoundError:
        return False


def make_directory(path: Path) -> list[Path]:
    """Make a directory and those above it, and bring their entries to the disk.

    Returns: the directories that were not there before, the outermost first.
    """
    if isinstance(path, ObjectPath):
        return []
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
        sync_directory(directory.parent)
    return made


def prepare_directory(root: Path, path: str) -> None:
    """Make the directory that a file of the dataset belongs in.

    Raises StorageError if the file system takes it for that of another partition key, because it ignores upper and
    lower case.
    """
    if isinstance(root, ObjectPath):
        return
    make_directory((root / path).parent)
    for level in directories_down_to(root, path):
        twin = level.with_name(level.name.swapcase())
        if level == root or twin.name == level.name or not is_same(level, twin):
            continue
        if level.name not in {entry.name for entry in level.parent.iterdir()}:
            raise StorageError(
                f"this file system takes {level.name!r} and another partition key for the same, because they differ "
                "in case only; partition by something else, or write to another file system"
            )


def directories_down_to(root: Path, path: str) -> list[Path]:
    """List the directories from `root` down to the one that holds `path`."""
    return [parent for parent in (root / path).parents if parent == root or root in parent.parents]


def move_file(source: Path, target: Path) -> None:
    """Give a file its final name, replacing one that may be there.

    Raises FileNotFoundError if the file is not there, or the target's directory.
    """
    if isinstance(source, ObjectPath) and isinstance(target, ObjectPath):
        source.copy_to(target)
    else:
        source.rename(target)


def objects_below(directory: Path) -> list[str]:
    """List the names of all objects below a directory of an object store, relative to it."""
    assert isinstance(directory, ObjectPath)
    return [path.relative_to(directory).as_posix() for path in directory.sizes()]


def move_objects(source: Path, target: Path, names: Sequence[str]) -> None:
    """Move objects from one directory of a store to another: all are copied, the last one last, then all are removed.

    Repeatable, by anyone: what is no longer there was moved before.
    """
    assert isinstance(source, ObjectPath)
    assert isinstance(target, ObjectPath)

    def copy(name: str) -> None:
        with suppress(FileNotFoundError):
            (source / name).copy_to(target / name)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(copy, names[:-1]))
    for last in names[-1:]:
        copy(last)
    source.delete_each(names)


def move_tree(source: Path, target: Path) -> None:
    """Give a directory another name; one that is not there was moved before.

    On an object store its objects are copied, the first of their names last, and then removed.
    """
    if has_directories(source):
        with suppress(FileNotFoundError):
            source.rename(target)
    else:
        move_objects(source, target, sorted(objects_below(source), reverse=True))


def share_file(source: Path, target: Path) -> None:
    """Give a file another name as well; on an object store, copy it."""
    if isinstance(source, ObjectPath) and isinstance(target, ObjectPath):
        source.copy_to(target)
    else:
        link_exclusively(source, target)


def has_directories(path: Path) -> bool:
    """Tell whether directories are there also when they are empty, as they are not on an object store."""
    return not isinstance(path, ObjectPath)


def remove_tree(directory: Path) -> None:
    """Remove a directory with all that is in it, as far as that can be done.

    Raises StorageError if an object store refuses: nothing may be left there that could be published once more.
    """
    if isinstance(directory, ObjectPath):
        directory.delete_below()
    else:
        shutil.rmtree(directory, ignore_errors=True)


def directories_in(path: Path) -> list[Path]:
    """List the directories directly in one."""
    if isinstance(path, ObjectPath):
        return list(path.directories())
    return sorted(filter(Path.is_dir, path.iterdir()))


def names_in(path: Path) -> list[str]:
    """List the names of what is in a directory."""
    if isinstance(path, ObjectPath):
        return [each.name for each in path.iterdir()]
    return [entry.name for entry in os.scandir(path)]


def admit(directory: Path) -> None:
    """Make a directory in which `make_room` can make others."""
    if isinstance(directory, ObjectPath):
        (directory / _ADMITTED).write_bytes(b"")
    else:
        make_directory(directory)


def is_admitted(directory: Path) -> bool:
    """Tell whether a directory that `admit` made is still there."""
    return admission(directory).exists()


def admission(directory: Path) -> Path:
    """Return what `admit` makes: the directory itself, or the object that stands for it."""
    return directory / _ADMITTED if isinstance(directory, ObjectPath) else directory


def make_room(directory: Path) -> Path:
    """Make a directory of a name that nobody else uses, and return where its files are written.

    What belongs on an object store is written in a directory of this host, and uploaded by `bring`.

    Raises FileNotFoundError if the directory around it was not made by `admit`, or was removed.
    """
    if not isinstance(directory, ObjectPath):
        directory.mkdir()
    elif not is_admitted(directory.parent):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(directory.parent))
    return scratch_of(directory)


def scratch_of(directory: Path) -> Path:
    """Return where the files of a directory are written: itself, or a new directory of this host; see `bring`."""
    return Path(tempfile.mkdtemp(prefix="fink-dask-")) if isinstance(directory, ObjectPath) else directory


def bring(files: Sequence[NewFile], directory: Path, should_stop: Callable[[], bool] = lambda: False) -> None:
    """Bring files to the disk, or move them from this host into a directory on an object store, under their own names.

    Raises InterruptedTransferError if `should_stop` said so while they were sent to an object store.
    """
    if isinstance(directory, ObjectPath):
        paths = [file.path for file in files]
        send_files(paths, directory, should_stop)
        for path in paths:
            path.unlink()
        return
    for file in files:
        file.sync()


def send_files(files: Sequence[Path], directory: Path, should_stop: Callable[[], bool] = lambda: False) -> None:
    """Send files of this host to a directory on an object store, under their own names."""
    assert isinstance(directory, ObjectPath)
    directory.upload(files, should_stop)


def remove_unfinished(directory: Path) -> None:
    """Remove what uploads into a directory on an object store have left that were cut off."""
    if isinstance(directory, ObjectPath):
        directory.remove_unfinished()


def size_finder(*roots: Path) -> Callable[[Path, int], bool]:
    """Return what `has_size` does for files below these directories; on an object store they are listed once."""
    if not isinstance(roots[0], ObjectPath):
        return has_size
    known = {path: size for root in roots if isinstance(root, ObjectPath) for path, size in root.sizes().items()}
    return lambda path, size: known.get(path) == size


def has_size(path: Path, size: int) -> bool:
    """Tell whether a file is there, with the size that it should have."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return S_ISREG(found.st_mode) and found.st_size == size


def _sync(descriptor: int) -> None:
    if sys.platform == "darwin":
        # On macOS fsync stops at the drive's cache; this does not (man 2 fsync).
        with suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    # Also where a volume has no such thing, as SMB and exFAT; what is really wrong, this says as well.
    os.fsync(descriptor)
