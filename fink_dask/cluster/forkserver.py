"""The process that workers are forked from; this module costs nothing to import, so that it can be started first."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker


def start_forkserver() -> str:
    """Start the process that workers are forked from, which loads what they need in the background; repeatable.

    Spawned workers would each load it, and two at once take twice as long on two cores. Linux only: on macOS some
    system libraries do not survive a fork.

    Returns
    -------
    str
        How Dask is to start workers: ``forkserver`` on Linux, ``spawn`` elsewhere.
    """
    # Nothing here multiplies matrices, yet numpy's BLAS would start a thread per core in every process.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Dask sets this for workers that it starts; here it must be set before the process that they are forked from
    # starts. Without it the C library keeps the memory of messages that were freed.
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", "65536")
    if sys.platform != "linux":
        return "spawn"
    multiprocessing.set_forkserver_preload(["fink_dask.cluster.preload"])
    with without_interrupts():
        forkserver.ensure_running()
    return "forkserver"


def prepare_decoder() -> None:
    """Compile the decoder or load it from numba's cache; say so where it takes a while."""
    # Imported late: the compiler takes a third of a second to import, and this process may not need it.
    from fink_dask.avro.kernels import is_compiled, is_kept_on_disk, warm_up

    if not is_compiled():
        # A terminal may show on this line the spinner of the process that started this one.
        clear = "\r\x1b[2K" if sys.stderr.isatty() else ""
        often = (
            "once; it takes some seconds"
            if is_kept_on_disk()
            else "at each start; NUMBA_CACHE_DIR=DIR keeps it in a directory that you may write to"
        )
        sys.stderr.write(f"{clear}compiling the decoder for this machine, {often}\n")
    warm_up()


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Hold SIGINT back until the block ends.

    A terminal sends it to the whole process group. Threads and processes inherit the mask of the thread that starts
    them, so workers never see it, and this process decides what becomes of them.
    """
    # Started later, in a thread that holds SIGINT back, multiprocessing's own helper would let it through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
