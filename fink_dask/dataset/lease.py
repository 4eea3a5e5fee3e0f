"""The lease on a ledger: one job at a time, and a dead job's ledger is free again.

The lease spares two jobs from doing each other's work. Exactly-once does not rest on it: that is the markers' task.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from fink_dask.dataset.durable import link_exclusively, write_file
from fink_dask.dataset.ledger import Ledger, storage_error
from fink_dask.errors import LedgerError

#: Seconds between two signs of life.
BEAT_S = 5.0
#: Seconds without one after which a job on another host counts as dead.
DEAD_AFTER_S = 60.0


@dataclass(frozen=True)
class Holder:
    """Who holds a lease.

    Parameters
    ----------
    host : str
        Name of the host.
    pid : int
        Process on that host.
    nonce : str
        Tells two leases of the same process apart.
    """

    host: str
    pid: int
    nonce: str


class Lease:
    """A lease that this process holds.

    Parameters
    ----------
    path : pathlib.Path
        The lease's file.
    holder : Holder
        This process.
    """

    def __init__(self, path: Path, holder: Holder) -> None:
        self.path = path
        self.holder = holder
        self._released = threading.Event()
        self._taken_by: Holder | None = None
        self._thread = threading.Thread(target=self._beat, name="fink-dask-lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise a LedgerError if another job has taken the lease over, as it may after a long standstill."""
        if self._taken_by is not None:
            raise LedgerError(
                f"this job stood still for so long that another one (process {self._taken_by.pid} on "
                f"{self._taken_by.host}) has taken over; what is committed is safe"
            )

    def release(self) -> None:
        """Give the lease back."""
        self._released.set()
        self._thread.join()
        if read_holder(self.path) == self.holder:
            self.path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._released.wait(BEAT_S):
            found = read_holder(self.path)
            if found is not None and found != self.holder:
                self._taken_by = found
                return
            with suppress(OSError):  # a full or absent disk shows elsewhere; the lease then runs out, as it should
                os.utime(self.path)  # the file system's clock, not this host's


@contextmanager
def hold_lease(ledger: Ledger) -> Iterator[Lease]:
    """Hold the lease on a ledger.

    Raises
    ------
    LedgerError
        If another job that is alive holds it.
    StorageError
        If the file system has no hard links, or refuses.
    """
    path = ledger.path / "lease.json"
    holder = Holder(socket.gethostname(), os.getpid(), uuid.uuid4().hex)
    aside = ledger.path / f".lease-{holder.nonce}"
    try:
        write_file(aside, json.dumps(asdict(holder)).encode())
        try:
            while not link_exclusively(aside, path):
                _evict(path, aside)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(error, path) from error
    lease = Lease(path, holder)
    try:
        yield lease
    finally:
        lease.release()


def read_holder(path: Path) -> Holder | None:
    """Read who holds the lease; None where nobody does, or the file is none of ours."""
    try:
        return Holder(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def is_held(ledger: Ledger) -> bool:
    """Tell whether a job that is alive works on this ledger; writes nothing, so this host's clock has to do."""
    return _is_alive(ledger.path / "lease.json", clock=None)


def _evict(path: Path, clock: Path) -> None:
    """Remove a dead job's lease, or raise a LedgerError for one that is alive."""
    holder = read_holder(path)
    if _is_alive(path, clock):
        who = f"process {holder.pid} on {holder.host}" if holder else "a process that is just starting"
        raise LedgerError(
            f"another transfer into this directory is running ({who}); see fink-dask status, or wait until it has ended"
        )
    stale = path.with_name(f".lease-stale-{uuid.uuid4().hex}")
    try:
        path.rename(stale)
    except FileNotFoundError:
        return  # released, or evicted by another job: try again
    if read_holder(stale) != holder:
        # Between the look and the rename another job had evicted it and taken its own: give that one back.
        link_exclusively(stale, path)
    stale.unlink(missing_ok=True)


def _is_alive(path: Path, clock: Path | None) -> bool:
    holder = read_holder(path)
    try:
        beat = path.stat().st_mtime
    except FileNotFoundError:
        return False
    if clock is not None:
        os.utime(clock)
        age = clock.stat().st_mtime - beat
    else:
        age = time.time() - beat
    if holder is not None and holder.host == socket.gethostname() and not _process_exists(holder.pid):
        return False
    return age < DEAD_AFTER_S


def _process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
