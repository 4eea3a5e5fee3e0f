"""The process that workers are forked from; importing this module costs nothing, so that it can be started first."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker


def start_forkserver() -> str:
    """Start the process that workers are forked from, which meanwhile loads what they need; repeatable.

    Workers that are spawned load it one by one, and two at once take twice as long on two cores. Only Linux: on macOS
    some system libraries do not survive a fork.

    Returns
    -------
    str
        How Dask is to start workers: ``forkserver``, or ``spawn`` elsewhere.
    """
    if sys.platform != "linux":
        return "spawn"
    multiprocessing.set_forkserver_preload(["fink_dask.cluster.preload"])
    with without_interrupts():
        forkserver.ensure_running()
    return "forkserver"


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Hold SIGINT back until the block ends.

    A terminal sends it to the whole process group. Threads and processes inherit the mask of the thread that starts
    them, so that workers never see it, and this process decides what becomes of them.
    """
    # Started later, from a thread that holds SIGINT back, multiprocessing's own helper would let it through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
