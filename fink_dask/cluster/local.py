"""Run on the cores of this machine."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import dask
import distributed.utils
from dask.system import CPU_COUNT
from dask.utils import parse_bytes, parse_timedelta
from distributed import Client, LocalCluster
from distributed.system import MEMORY_LIMIT

from fink_dask.cluster.forkserver import prepare_decoder, start_forkserver, without_interrupts
from fink_dask.dashboard.dashboard import offer_dashboard
from fink_dask.errors import SettingsError, TransferError
from fink_dask.transfers.crew import NO_LOOKAHEAD, Lookahead
from fink_dask.transfers.memory import BASE_BYTES, WORKER_BYTES, MemoryShare, share_memory

DASK_CONFIG = {
    # With more, a range would wait behind a running one while another worker idles.
    "distributed.scheduler.worker-saturation": 1.0,
    # Dask blames a killed worker on every range that it had been given; the job counts its own tries.
    "distributed.scheduler.allowed-failures": 10,
    # Ranges hold their memory in buffers of their own, which Dask can neither spill nor see: pausing never helps.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.worker.profile.enabled": False,
    # By default Dask checks fifty times a second, in each process, whether its event loop is late; a follower idles
    # for hours.
    "distributed.admin.tick.interval": "500ms",
}


#: Of what this process may use: other programs need memory as well.
MEMORY_FRACTION = 0.5
#: How often starting the workers is tried, where one of them ends before all are there.
_STARTS = 3
#: So many consumers get all the memory that they can use, even where there are fewer cores; more of them share it.
_FULL_SHARES = 16


@dataclass(frozen=True)
class Cluster:
    """Where ranges run, and what each may take there.

    Parameters
    ----------
    client : distributed.Client
        A client of the cluster.
    memory : MemoryShare
        What a consumer may hold.
    lookahead : Lookahead
        Ranges that are prepared beyond those that are consumed.
    check : callable
        To be called several times a second while ranges run; raises the error that ends them.
    others_join : bool
        Whether workers may join later that were not checked.
    """

    client: Client
    memory: MemoryShare
    lookahead: Lookahead = NO_LOOKAHEAD
    check: Callable[[], None] = lambda: None
    others_join: bool = False


def usable_cores() -> int:
    """Count the cores that this process may use, by its affinity and the quota of its cgroup."""
    return max(1, int(CPU_COUNT))


def usable_memory() -> int:
    """Return the bytes of memory that this process may use, by its cgroup and the machine."""
    return int(MEMORY_LIMIT)


def parse_memory(option: str, text: str) -> int:
    """Read an amount of memory such as ``4GB``, ``512MiB`` or ``2e9``.

    Returns
    -------
    int
        Bytes.

    Raises
    ------
    SettingsError
        If it is not one; the error names the option.
    """
    try:
        # Dask reads a unit alone as one of it.
        amount = int(parse_bytes(text)) if any(map(str.isdigit, text)) else 0
    except (ValueError, OverflowError):
        amount = 0
    if amount < 1:
        raise SettingsError(f"{option} {text[:40]!r} is not an amount of memory such as 4GB or 512MiB")
    return amount


def parse_duration(option: str, text: str) -> float:
    """Read a duration such as ``90``, ``90s``, ``5m`` or ``2h``.

    Returns
    -------
    float
        Seconds.

    Raises
    ------
    SettingsError
        If it is not one; the error names the option.
    """
    try:
        # Dask reads a unit alone as one of it.
        seconds = float(parse_timedelta(text)) if any(map(str.isdigit, text)) else -1.0
    except (ValueError, KeyError, OverflowError):
        seconds = -1.0
    if not seconds >= 0:
        raise SettingsError(f"{option} {text[:40]!r} is not a duration such as 90s, 5m or 2h")
    return seconds


@contextmanager
def local_cluster(
    nconsumers: int,
    ranges: int,
    dashboard_address: str,
    memory_limit: int | None = None,
) -> Iterator[Cluster]:
    """Start as many workers as are of use, and stop them at the end.

    Parameters
    ----------
    nconsumers : int
        How many ranges to consume at once; those beyond the cores become threads.
    ranges : int
        How many ranges there are.
    dashboard_address : str
        ``host:port`` of the dashboard; where the port is taken, another one that is free.
    memory_limit : int, optional
        Bytes that all processes together may take; by default half of what this process may use.

    Yields
    ------
    Cluster
        The cluster.

    Raises
    ------
    SettingsError
        If there is too little memory, or no such address.
    TransferError
        If the workers do not start.
    """
    busy = max(1, min(nconsumers, ranges))
    workers = min(busy, usable_cores())
    # Consumers beyond the cores are threads, and each process has at least two: one prepares a range, or writes one to
    # disk, while the other has its turn to decode.
    threads = max(2, -(-busy // workers))
    limit = memory_limit if memory_limit is not None else int(MEMORY_LIMIT * MEMORY_FRACTION)
    memory = share_memory(
        limit, BASE_BYTES + workers * WORKER_BYTES, threads * workers, max(_FULL_SHARES, usable_cores())
    )
    method = start_forkserver()
    if method == "spawn":  # the process that workers are forked from does so itself, and they wait for it
        prepare_decoder()
    with dask.config.set({**DASK_CONFIG, "distributed.worker.multiprocessing-method": method}):
        # Otherwise Dask has the process that workers are forked from import pandas and more, which nobody needs.
        distributed.utils._forkserver_preload_set = True
        with without_interrupts():
            cluster = _start_workers(workers, threads, dashboard_address)
        try:
            offer_dashboard(cluster.scheduler)
            with Client(cluster) as client:
                yield Cluster(client, memory, Lookahead(max(0, threads * workers - busy), turns=1))
        finally:
            cluster.close(timeout=5)


def _start_workers(workers: int, threads: int, dashboard_address: str) -> LocalCluster:
    """Start them all, and again where one ended as it started: there Dask gives up, though later it replaces them."""
    for left in reversed(range(_STARTS)):
        try:
            return LocalCluster(
                n_workers=workers,
                threads_per_worker=threads,
                memory_limit=MEMORY_LIMIT // workers,
                processes=True,
                host="127.0.0.1",
                dashboard_address=free_address(dashboard_address),
                scheduler_kwargs={"dashboard": False},  # not before somebody opens it
                # A worker that is stopped in the middle of a range says so at length; the job does in a line.
                silence_logs=logging.CRITICAL,
            )
        except RuntimeError as error:
            if not left:
                raise TransferError(
                    f"Dask tried {_STARTS} times to start {workers} workers, and failed "
                    f"({error.__cause__ or error}); where memory is short they are killed as they start: "
                    "a smaller --nconsumers starts fewer"
                ) from error
    raise AssertionError("no start was tried")


def free_address(address: str) -> str:
    """Return the address, with any free port where the wanted one is taken.

    Raises
    ------
    SettingsError
        If there is no such address on this machine.
    """
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except socket.gaierror as error:
            raise SettingsError(f"--dashboard-address {address}: there is no address {host} here") from error
        except OSError as error:
            if error.errno not in {errno.EADDRINUSE, errno.EACCES}:
                raise SettingsError(f"--dashboard-address {address}: {error.strerror}") from error
            return f"{host}:0"
    return address
