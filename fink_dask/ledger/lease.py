"""The lease on a ledger: one job at a time, and a dead job's ledger is free again.

A lease is a numbered file. A free or dead one is taken over by linking the next number, which only one job can do; a
lease is never removed under a name that somebody else might have taken in the meantime. On an object store it is the
same with objects.

The lease spares two jobs from doing each other's work. Exactly-once does not rest on it: that is the markers' task.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from fink_dask.errors import LedgerError, StorageError
from fink_dask.ledger.ledger import Ledger, storage_error, storage_in_words
from fink_dask.store.location import store_of

#: Seconds between two signs of life.
BEAT_S = 5.0
#: Seconds without one after which a job on another host counts as dead.
DEAD_AFTER_S = 60.0
#: Seconds by which the clock of a host that only looks may be ahead of the file system's.
_AHEAD_S = 600.0

_LEASE_NAME = re.compile(r"lease-\d{8}\.json")


@dataclass(frozen=True)
class Holder:
    """Who holds a lease."""

    #: Name of the host.
    host: str
    #: Process on that host.
    pid: int
    #: Tells two leases of the same process apart.
    nonce: str
    #: Where the number of the process means something: hosts of one name may be several, or containers of one host;
    #: empty where that is not known.
    namespace: str = ""


class Lease:
    """A lease that this process holds."""

    def __init__(self, path: Path, holder: Holder) -> None:
        self.path = path
        self.holder = holder
        self._heartbeat = store_of(path).heartbeat(path)
        self._look_s = store_of(path).look_s
        self._looked = time.monotonic()
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="fink-dask-lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise a LedgerError if another job has taken over the lease, as it may after a long standstill."""
        now = time.monotonic()
        if now - self._looked < self._look_s:
            return
        self._looked = now
        try:
            leases = _leases(self.path.parent)
            found = read_holder(leases[-1]) if leases else None
        except (OSError, StorageError):
            return  # a disk that does not answer shows elsewhere
        if not leases:
            raise LedgerError(f"the ledger {self.path.parent} was moved or removed while this job worked on it")
        if found is not None and found != self.holder:
            raise LedgerError(
                f"this job stood still for so long that another one (process {found.pid} on {found.host}) has taken "
                "over; what is committed is safe"
            )

    def release(self) -> None:
        """Give the lease back."""
        self._released.set()
        self._thread.join()
        with suppress(OSError, StorageError):
            self._heartbeat.end()

    def _beat(self) -> None:
        while not self._released.wait(BEAT_S):
            with suppress(OSError, StorageError):  # a full or absent disk shows elsewhere; the lease then runs out
                self._heartbeat.renew()


@contextmanager
def hold_lease(ledger: Ledger) -> Iterator[Lease]:
    """Hold the lease on a ledger.

    Raises LedgerError if another job that is alive holds it, or the dataset has a ledger elsewhere.
    Raises StorageError if the file system has no hard links that a commit can use, or refuses; or if the object store
    can't keep a put from replacing an object.
    """
    holder = Holder(socket.gethostname(), os.getpid(), uuid.uuid4().hex, _namespace())
    aside = ledger.path / f".lease-{holder.nonce}"
    with storage_in_words(ledger.path):
        # A lease stands on it, and so does every marker.
        ledger.store.try_commit(ledger.path / f".trial-{holder.nonce}")
        ledger.store.write_new(aside, json.dumps(asdict(holder)).encode())
        try:
            path = _take(aside)
        finally:
            aside.unlink(missing_ok=True)
        lease = Lease(path, holder)
    try:
        # Each of two jobs that chose another place for the ledger sees at least the lease of the other one.
        if ledger.elsewhere is not None and (ledger.elsewhere.exists() or is_held(ledger.elsewhere)):
            raise LedgerError(
                f"{ledger.outdir} has two ledgers, {ledger.path} and {ledger.elsewhere.path}: another job begins with "
                "it, or a copy of one is in the way"
            )
        yield lease
    finally:
        is_unused = False
        try:
            with suppress(StorageError):
                is_unused = not ledger.exists() and read_holder(path) == holder
        finally:
            lease.release()
        if is_unused:
            with suppress(OSError, StorageError):
                path.unlink(missing_ok=True)  # so that a ledger that came to nothing can be removed


def read_holder(path: Path) -> Holder | None:
    """Read who holds the lease; None where the file is gone, or not one of ours."""
    try:
        holder = Holder(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return holder if isinstance(holder.pid, int) and 0 < holder.pid < 2**31 else None


def check_free(ledger: Ledger) -> None:
    """Raise a LedgerError if a job that is alive works on this ledger, as `hold_lease` would; writes nothing."""
    if is_held(ledger):
        raise _is_running(_leases(ledger.path)[-1:])


def is_held(ledger: Ledger) -> bool:
    """Tell whether a job that is alive works on this ledger; writes nothing.

    A lease has the file system's time, and this host's clock may be ahead of it: what seems dead is watched for a beat.
    """
    leases, now = _leases(ledger.path), time.time()
    if not leases or _is_alive(leases[-1], now) or not _is_alive(leases[-1], now - _AHEAD_S):
        return bool(leases) and _is_alive(leases[-1], now)
    before = _renewed(leases[-1])
    time.sleep(1.2 * BEAT_S)
    leases = _leases(ledger.path)
    return bool(leases) and _renewed(leases[-1]) > before


def _leases(directory: Path) -> list[Path]:
    """List the leases, of which the last one counts."""
    try:
        return sorted(path for path in directory.iterdir() if _LEASE_NAME.fullmatch(path.name))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise storage_error(error, directory) from error


def _take(aside: Path) -> Path:
    """Link `aside` as the next lease, or raise a LedgerError where the last one is alive."""
    while True:
        earlier = _leases(aside.parent)
        now = store_of(aside).time(aside)
        if earlier and _is_alive(earlier[-1], now):
            raise _is_running(earlier[-1:])
        number = int(earlier[-1].stem.removeprefix("lease-")) + 1 if earlier else 1
        mine = aside.with_name(f"lease-{number:08d}.json")
        if not store_of(aside).link(aside, mine):
            continue
        # A job that had stood still since it looked may link a number that is long past.
        *earlier, last = _leases(aside.parent) or [aside]
        if last == mine:
            for path in earlier:
                path.unlink(missing_ok=True)
            return mine
        mine.unlink(missing_ok=True)


def _is_running(last: Sequence[Path]) -> LedgerError:
    """Say that another job works on a ledger, and which one, as its last lease tells."""
    holder = read_holder(last[0]) if last else None
    who = f"process {holder.pid} on {holder.host}" if holder else "its lease can't be read"
    return LedgerError(
        f"another transfer into this directory is running ({who}): wait until it ends, see fink-dask status"
    )


def _is_alive(path: Path, now: float) -> bool:
    holder = read_holder(path)  # opens the file, which makes a network file system ask for its time again
    renewed_at = store_of(path).last_heartbeat(path)
    if renewed_at is None:
        return False
    is_here = holder is not None and holder.host == socket.gethostname() and holder.namespace in {"", _namespace()}
    if holder is not None and is_here and not _process_exists(holder.pid):
        return False
    return now - renewed_at < DEAD_AFTER_S


def _renewed(path: Path) -> float:
    """Say when a lease was renewed, in the file system's time; 0 where it was given back."""
    read_holder(path)  # as above
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


@lru_cache(maxsize=1)
def _namespace() -> str:
    """Name the boot of this host, and the set of processes that this one sees; Linux only."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def _process_exists(pid: int) -> bool:
    """Tell whether a process lives; one that was killed and that nobody has waited for yet does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    with suppress(OSError):  # Linux: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
        # The first thread can end before the others, which then still work.
        return state not in {b"Z", b"X"} or len([*Path(f"/proc/{pid}/task").iterdir()]) > 1
    return True
