"""A process and all that it has started, as Linux tells it in /proc: who belongs to it, how much memory it holds."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROC = Path("/proc")
_PR_SET_CHILD_SUBREAPER = 36


@contextmanager
def subreaper() -> Iterator[None]:
    """Inherit the orphans of what is started inside, so that none of them gets away uncounted.

    Dask's workers come from a server process that nobody waits for: only whoever inherits it learns what they used.
    See prctl(2), PR_SET_CHILD_SUBREAPER.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")
    try:
        yield
    finally:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def children_by_parent() -> dict[int, list[int]]:
    """List the children of every process, zombies included.

    Returns: process ids by the id of their parent.
    """
    found: defaultdict[int, list[int]] = defaultdict(list)
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has ended meanwhile
                stat = (entry / "stat").read_bytes()
                # The name in brackets may hold anything: the fields begin behind the last bracket.
                found[int(stat[stat.rindex(b")") + 2 :].split()[1])].append(int(entry.name))
    return found


def descendants(roots: Iterable[int]) -> list[int]:
    """List processes, their children, and so on."""
    children = children_by_parent()
    found, waiting = [], list(roots)
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def resident_bytes(pids: Iterable[int]) -> int:
    """Sum the proportional set size: memory that several processes share is counted once among them.

    `pids`: the processes; those that have ended count nothing.
    """
    total = 0
    for pid in pids:
        with suppress(OSError):
            for line in (PROC / str(pid) / "smaps_rollup").read_bytes().splitlines():
                if line.startswith(b"Pss:"):
                    total += int(line.split()[1]) * 1024
                    break
    return total


def kill_all(roots: Iterable[int], timeout_s: float = 10.0) -> None:
    """Kill processes and all that they have started, and return when none runs."""
    deadline = time.monotonic() + timeout_s
    roots = list(roots)
    # Again and again: a process may start another one while it is being killed.
    while alive := [pid for pid in descendants(roots) if _runs(pid)]:
        for pid in alive:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        stat = (PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return False
    return stat[stat.rindex(b")") + 2 : stat.rindex(b")") + 3] not in (b"Z", b"X")
