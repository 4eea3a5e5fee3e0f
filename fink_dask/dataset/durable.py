"""The few operations of a file system that the guarantee stands on: write, fsync, link, rename."""

from __future__ import annotations

import errno
import os
import sys
import uuid
from pathlib import Path
from stat import S_ISREG

from fink_dask.errors import StorageError

if sys.platform == "darwin":
    import fcntl


def sync_file(path: Path) -> None:
    """Bring a file's content to the disk."""
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
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        _sync(file.fileno())


def publish_file(aside: Path, target: Path, content: bytes) -> bool:
    """Write a file that appears whole or not at all; False where `target` exists already.

    Parameters
    ----------
    aside : pathlib.Path
        A name that nobody else uses, in a directory of the same file system.
    target : pathlib.Path
        Its final name.
    content : bytes
        What is in it.
    """
    try:
        write_file(aside, content)
        return link_exclusively(aside, target)
    finally:
        aside.unlink(missing_ok=True)


def publish_beside(target: Path, content: bytes) -> bool:
    """Do as `publish_file` does, by way of a hidden name beside the target's that nobody else uses."""
    return publish_file(target.with_name(f".{target.name}.{uuid.uuid4().hex}"), target, content)


def replace_file(target: Path, content: bytes) -> None:
    """Put a file in the place of another one, durably; a reader finds the old one or the new one, whole."""
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    write_file(aside, content)
    aside.replace(target)
    sync_directory(target.parent)


def link_exclusively(source: Path, target: Path) -> bool:
    """Give `source` the name `target` as well, unless that name exists: False then.

    Linking is the one POSIX operation that is atomic, refuses to replace, and works over NFS. Whoever holds the name
    afterwards, it is on the disk: the loser goes by what it finds there, and must not lose it to a power cut either.

    Raises
    ------
    StorageError
        If the file system has no hard links.
    """
    won = True
    try:
        os.link(source, target)
    except FileExistsError:
        # A network file system that carried out the link and lost the answer says this to its own second try.
        won = is_same(source, target)
    except OSError as error:
        if error.errno in {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}:
            raise StorageError(
                f"the file system of {target.parent} can't make the hard links that a safe commit needs "
                f"({os.strerror(error.errno)}); keep the dataset on another one"
            ) from error
        raise
    sync_directory(target.parent)
    return won


def is_same(first: Path, second: Path) -> bool:
    """Tell whether two names are the same file or directory; False where one of them is not there."""
    try:
        return first.samefile(second)
    except FileNotFoundError:
        return False


def make_directory(path: Path) -> list[Path]:
    """Make a directory and those above it, and bring their entries to the disk.

    Returns
    -------
    list of pathlib.Path
        The directories that were not there before, the outermost first.
    """
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

    Raises
    ------
    StorageError
        If the file system takes it for another partition key's, because it does not tell upper and lower case apart.
    """
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
    target = root / path
    return [parent for parent in target.parents if parent == root or root in parent.parents]


def has_size(path: Path, size: int) -> bool:
    """Tell whether a file is there, as large as it should be."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return S_ISREG(found.st_mode) and found.st_size == size


def _sync(descriptor: int) -> None:
    if sys.platform == "darwin":
        # On macOS fsync stops at the drive's cache; this does not (man 2 fsync).
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)
