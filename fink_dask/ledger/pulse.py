"""The heartbeat of a lease: times of a file system's clock, or of an object store's, never of this host's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from fink_dask.store.objects import ObjectPath


class Pulse(Protocol):
    """What keeps a lease alive."""

    def beat(self) -> None:
        """Renew the lease."""

    def end(self) -> None:
        """Make the lease free."""


def pulse_of(path: Path) -> Pulse:
    """Return the heartbeat of a lease that this process has just taken."""
    return _ObjectPulse(path) if isinstance(path, ObjectPath) else _FilePulse(path)


def time_of(aside: Path) -> float:
    """Ask for the time, by writing to a file of one's own; seconds since 1970-01-01 UTC."""
    if isinstance(aside, ObjectPath):
        aside.write_bytes(aside.read_bytes())
    else:
        os.utime(aside)
    return aside.stat().st_mtime


class _FilePulse:
    """The modification time of a lease's file."""

    def __init__(self, path: Path) -> None:
        # Held open, so that this job never renews the lease of a ledger that was moved or taken over.
        self._descriptor = os.open(path, os.O_RDONLY)

    def beat(self) -> None:
        os.utime(self._descriptor)  # the file system's clock, not this host's

    def end(self) -> None:
        try:
            os.utime(self._descriptor, (0, 0))  # so long ago that the lease is free
        finally:
            os.close(self._descriptor)


class _ObjectPulse:
    """An object that is written again and again, as long as nobody has replaced it; an empty one is a free lease."""

    def __init__(self, path: ObjectPath) -> None:
        self._path = path
        self._content = path.read_bytes()

    def beat(self) -> None:
        self._path.exchange(self._content, self._content)

    def end(self) -> None:
        self._path.exchange(self._content, b"")
