"""The few operations of a file system that the guarantee stands on: write, fsync, link, rename."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

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


def link_exclusively(source: Path, target: Path) -> bool:
    """Give `source` the name `target` as well, unless that name exists: False then.

    Linking is the one POSIX operation that is atomic, refuses to replace, and works over NFS.

    Raises
    ------
    StorageError
        If the file system has no hard links.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno in {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}:
            raise StorageError(
                f"the file system of {target.parent} can't make the hard links that a safe commit needs "
                f"({os.strerror(error.errno)}); keep the dataset on another one"
            ) from error
        raise
    sync_directory(target.parent)
    return True


def make_directory(path: Path) -> None:
    """Make a directory and those above it, and bring their entries to the disk."""
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        directory.mkdir(exist_ok=True)
        sync_directory(directory.parent)


def _sync(descriptor: int) -> None:
    if sys.platform == "darwin":
        # On macOS fsync stops at the drive's cache; this does not (man 2 fsync).
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)
