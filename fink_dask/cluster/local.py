"""Run on the cores of this machine."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker

import dask
import pyarrow as pa
from dask.system import CPU_COUNT
from distributed import Client, LocalCluster
from distributed.system import MEMORY_LIMIT

from fink_dask.avro.warm_up import is_compiled, warm_up
from fink_dask.errors import SettingsError
from fink_dask.transfer.events import Note, Observer

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


def usable_cores() -> int:
    """Count the cores that this process may use, by its affinity and the quota of its cgroup."""
    return max(1, int(CPU_COUNT))


@contextmanager
def local_cluster(
    nconsumers: int, ranges: int, dashboard_address: str, observe: Observer = lambda _: None
) -> Iterator[Client]:
    """Start as many workers as are of use, and stop them at the end.

    Parameters
    ----------
    nconsumers : int
        Ranges that are to be consumed at once; beyond the cores they become threads.
    ranges : int
        Ranges there are.
    dashboard_address : str
        ``host:port`` of the dashboard; another free port where that one is taken.
    observe : callable
        Told when the decoder has to be compiled first.

    Yields
    ------
    distributed.Client
        A client of the cluster.
    """
    busy = max(1, min(nconsumers, ranges))
    workers = min(busy, usable_cores())
    method = _start_forkserver() if sys.platform == "linux" else "spawn"
    if not is_compiled():
        observe(Note("compiling the decoder for this machine, once; it takes some seconds"))
        if method == "spawn":  # what workers are forked from compiles by itself, and they wait for it
            warm_up()
    config = {
        **DASK_CONFIG,
        "distributed.worker.multiprocessing-method": method,
        "distributed.nanny.pre-spawn-environ": {
            **dask.config.get("distributed.nanny.pre-spawn-environ", {}),
            **_worker_environment(),
        },
    }
    with dask.config.set(config):
        with _without_interrupts():
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=-(-busy // workers),
                memory_limit=MEMORY_LIMIT // workers,
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


def _start_forkserver() -> str:
    """Start the process that workers are forked from, which meanwhile loads what they need.

    Workers that are spawned load it one by one, and two at once take twice as long on two cores. Only Linux: on macOS
    some system libraries do not survive a fork.
    """
    multiprocessing.set_forkserver_preload(["fink_dask.cluster.preload"])
    before = {name: os.environ.get(name) for name in _worker_environment()}
    # Arrow reads its choice when it is loaded, which is there and not in the forked worker.
    os.environ.update(_worker_environment())
    try:
        with _without_interrupts():
            forkserver.ensure_running()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    return "forkserver"


def _worker_environment() -> dict[str, str]:
    """Choose Arrow's allocator for the workers: the wheel's default keeps what it has freed, and looks like a leak."""
    return {"ARROW_DEFAULT_MEMORY_POOL": "jemalloc" if "jemalloc" in pa.supported_memory_backends() else "system"}


def _free_address(address: str) -> str:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except socket.gaierror as error:
            raise SettingsError(f"--dashboard-address {address}: there is no address {host} here") from error
        except OSError:
            return f"{host}:0"
    return address
