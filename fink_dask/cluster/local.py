"""Run on the cores of this machine."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

import dask
import pyarrow as pa
from distributed import Client, LocalCluster

from fink_dask.config import usable_cores

DASK_CONFIG = {
    # One range of lookahead would sit behind a running one while another worker idles.
    "distributed.scheduler.worker-saturation": 1.0,
    # A worker that is killed takes the blame for all ranges it was given; the job counts its own tries.
    "distributed.scheduler.allowed-failures": 10,
    # Ranges hold their memory in buffers of their own, which Dask can neither spill nor see: pausing never helps.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.worker.profile.enabled": False,
}


@contextmanager
def local_cluster(nconsumers: int, ranges: int, dashboard_address: str) -> Iterator[Client]:
    """Start as many workers as are of use, and stop them at the end.

    Parameters
    ----------
    nconsumers : int
        Ranges that are to be consumed at once; beyond the cores they become threads.
    ranges : int
        Ranges there are.
    dashboard_address : str
        ``host:port`` of the dashboard; another free port where that one is taken.

    Yields
    ------
    distributed.Client
        A client of the cluster.
    """
    busy = max(1, min(nconsumers, ranges))
    workers = min(busy, usable_cores())
    with dask.config.set({**DASK_CONFIG, "distributed.nanny.pre-spawn-environ": _worker_environment()}):
        with _without_interrupts():
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=-(-busy // workers),
                processes=True,
                host="127.0.0.1",
                dashboard_address=_free_address(dashboard_address),
                # A worker that is stopped in the middle of a range says so at length; the job says it in a line.
                silence_logs=logging.CRITICAL,
            )
        try:
            with Client(cluster) as client:
                yield client
        finally:
            cluster.close(timeout=5)


@contextmanager
def _without_interrupts() -> Iterator[None]:
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


def _worker_environment() -> dict[str, str | int]:
    """Choose Arrow's allocator for the workers: the wheel's default keeps what it has freed, and looks like a leak."""
    base = dict(dask.config.get("distributed.nanny.pre-spawn-environ", {}))
    backends = pa.supported_memory_backends()
    return {**base, "ARROW_DEFAULT_MEMORY_POOL": "jemalloc" if "jemalloc" in backends else "system"}


def _free_address(address: str) -> str:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError:
            return f"{host}:0"
    return address
