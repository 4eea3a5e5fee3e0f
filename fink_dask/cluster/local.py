"""Run on the cores of this machine."""

from __future__ import annotations

import errno
import logging
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from dask.system import CPU_COUNT
from distributed import Client, LocalCluster, Worker
from distributed.comm.inproc import global_manager
from distributed.scheduler import DEFAULT_EXTENSIONS
from distributed.spans import SpansSchedulerExtension
from distributed.system import MEMORY_LIMIT
from distributed.utils import format_dashboard_link

from fink_dask.cluster.client import open_client
from fink_dask.cluster.forkserver import do_without_pandas, prepare_decoder, start_forkserver, without_interrupts
from fink_dask.cluster.leftovers import dask_configuration
from fink_dask.cluster.readiness import NO_LOOKAHEAD, NO_WORKERS_S, Lookahead
from fink_dask.cluster.worker import WarmUp
from fink_dask.dashboard.plugin import offer_dashboard
from fink_dask.errors import SettingsError, TransferError, parameter
from fink_dask.ranges.memory import BASE_BYTES, LEAST_AHEAD, WORKER_BYTES, MemoryShare, share_memory
from fink_dask.settings import KafkaSettings

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
    # By default a worker that was not heard of for five minutes is replaced, and its ranges are read again: a laptop
    # that has slept would lose what has arrived. A worker that dies is noticed at once all the same.
    "distributed.scheduler.worker-ttl": "30 minutes",
    # By default Dask checks fifty times a second, in each process, whether its event loop is late; a follower idles
    # for hours.
    "distributed.admin.tick.interval": "500ms",
}


class NoSpans(SpansSchedulerExtension):  # type: ignore[misc]
    """Keeps no account of spans, of which Dask forgets none: a topic that is followed makes one with each roll."""

    def observe_tasks(self, *_: Any, **__: Any) -> dict[Any, Any]:
        """Put no task into a span."""
        return {}

    def heartbeat(self, *_: Any, **__: Any) -> None:
        """Add nothing up."""


#: Of a scheduler in this process, which shows no dashboard before somebody opens it.
SCHEDULER_OPTIONS = {"dashboard": False, "extensions": {**DEFAULT_EXTENSIONS, "spans": NoSpans}}

log = logging.getLogger(__name__)

#: Of what this process may use: other programs need memory as well.
MEMORY_FRACTION = 0.5
#: Where workers and their pages are reached.
_HERE = "127.0.0.1"
#: Seconds that the workers have to end, on a machine that has much else to do.
_CLOSE_S = 60
#: How often starting the workers is tried, where one of them ends before all are there.
_STARTS = 3
#: Seconds after which workers start although it is not known yet whether there is anything to do.
_SOON_S = 0.5
#: Open files and connections of this process, and how many more there are for each worker: some 50 and 10 were counted.
_FILES, _WORKER_FILES = 64, 12
#: So many consumers get all the memory that they can use, even where there are fewer cores; more of them share it.
_FULL_SHARES = 16


@dataclass(frozen=True)
class Cluster:
    """Where ranges run, and what each may take there."""

    #: A client of the cluster.
    client: Client
    #: What a consumer may hold.
    memory: MemoryShare
    #: Ranges that are prepared beyond those that are consumed.
    lookahead: Lookahead = NO_LOOKAHEAD
    #: To be called several times a second while ranges run; raises the error that ends them.
    check: Callable[[], None] = lambda: None
    #: Whether workers may join later that were not checked.
    others_join: bool = False
    #: Whether as many ranges are consumed as there are threads, whatever workers come and go.
    all_threads: bool = False
    #: Seconds that it may be without workers.
    patience_s: float = NO_WORKERS_S


def usable_cores() -> int:
    """Count the cores that this process may use, by its affinity and the quota of its cgroup."""
    return max(1, int(CPU_COUNT))


def usable_memory() -> int:
    """Return the bytes of memory that this process may use, by its cgroup and the machine."""
    return int(MEMORY_LIMIT)


def threads_of_memory(size: int) -> int:
    """Count the threads that may each hold so many bytes, with half of the memory: as many as cores at the most."""
    return max(1, min(usable_cores(), usable_memory() // (2 * size)))


class LocalWorkers:
    """Workers on the cores of this machine, which may start while it is still found out what there is to do.

    A context manager that stops them at the end.

    `memory_limit`: bytes that all processes together may take; by default half of what this process may use.
    """

    def __init__(
        self,
        nconsumers: int,
        dashboard_address: str,
        memory_limit: int | None = None,
        kafka: KafkaSettings | None = None,
        topics: Sequence[str] = (),
    ) -> None:
        # How many ranges to consume at once; those beyond the cores become threads.
        self._nconsumers = nconsumers
        # ``host:port`` of the dashboard; where the port is taken, another one that is free.
        self._dashboard_address = dashboard_address
        self._limit = memory_limit if memory_limit is not None else int(MEMORY_LIMIT * MEMORY_FRACTION)
        # Where the workers connect to as they start.
        self._kafka = kafka
        self._topics = topics
        #: Tells whether Kafka has refused the password: each connection of a worker would be one more failed login,
        #: and after a few of them accounts may be locked.
        self.is_refused: Callable[[], bool] = lambda: False
        self._wanted = _Size(nconsumers, nconsumers)
        self._is_over = False
        self._begin = threading.Event()
        #: Held while it is decided how many workers there will be.
        self._deciding = threading.Lock()
        self._thread: threading.Thread | None = None
        self._started: LocalCluster | BaseException | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._begin.set()
        try:
            if self._thread is not None:
                self._thread.join()
        finally:
            self._close()
            self._stack.close()

    def start_soon(self) -> None:
        """Start in the background, unless the end comes or `cluster` is called within half a second.

        Where Kafka is near, by then it has refused what can't be transferred, and the number of ranges is known.
        """
        with self._deciding:
            if self._begin.is_set():
                return
            self._thread = threading.Thread(target=self._start_later, name="fink-dask-workers", daemon=True)
            self._thread.start()

    def connect_here(self) -> None:
        """Begin to connect to Kafka from this process, where it may turn out that it does it all.

        That is known after some round trips, and connecting takes seven more: far away, together they take seconds.
        """
        for each in self._plugins(_Size(self._nconsumers, self._nconsumers, is_here=True)):
            each.setup(None)

    @contextmanager
    def cluster(self, ranges: int, is_here: bool = False) -> Iterator[Cluster]:
        """Start as many workers as are of use for so many ranges, where they have not begun to start.

        `is_here`: have one in this process instead, with as many threads as the others would have together.
        Raises SettingsError if there is too little memory, or no such address for the dashboard.
        Raises TransferError if the workers do not start.
        """
        with self._deciding:
            if not self._begin.is_set():
                self._wanted = _Size(self._nconsumers, ranges, is_here)
            memory = self._wanted.share(self._limit)
            self._begin.set()
        if self._thread is None:
            self._start()
        else:
            self._thread.join()
        if isinstance(self._started, BaseException):
            raise self._started
        assert self._started is not None
        size = self._wanted
        ahead = max(0, size.threads * size.workers - size.busy)
        try:
            offer_dashboard(self._started.scheduler)
            # Nobody's default: with two at once, the second would take this one for its user's, and the last to close
            # would leave Dask asking for a client.
            with open_client(self._started, set_as_default=False) as client:
                yield Cluster(client, memory, Lookahead(ahead, size.turns))
        finally:
            self._close()  # whoever settles what is left over relies on it that no attempt goes on

    def _plugins(self, size: _Size) -> tuple[WarmUp, ...]:
        if self._kafka is None or self.is_refused():
            return ()
        # With the queue of a small plan; for a larger one it does not matter that others have to be made.
        kafka = replace(self._kafka, queue_bytes=LEAST_AHEAD)
        return (WarmUp(kafka, size.threads, self._topics, size.workers),)

    def _close(self) -> None:
        if not isinstance(self._started, LocalCluster):
            return
        started, self._started = self._started, None
        processes = [pid for each in started.workers.values() if (pid := getattr(each, "pid", None))]
        # In a thread, as signals reach only the main one: Dask would leave off in the middle, and each further attempt
        # to close would wait in vain.
        with ThreadPoolExecutor(1, "fink-dask-close") as thread:
            closing = thread.submit(_end, started, processes)
            try:
                closing.result()
            except KeyboardInterrupt:
                wait([closing])
                raise

    def _start_later(self) -> None:
        if not self._begin.wait(_SOON_S):
            with self._deciding, suppress(SettingsError):  # there may be fewer ranges than consumers
                self._wanted.share(self._limit)
                self._begin.set()
            self._begin.wait()
        if not self._is_over:
            self._start()
        if self._is_over:  # whoever waited for this thread may have been interrupted
            self._close()

    def _start(self) -> None:
        try:
            self._stack.enter_context(_open_files(self._wanted.workers))
            if self._wanted.is_here:
                do_without_pandas()
                # Dask would look for this machine's address, and warn where there is no network or no such name.
                global_manager._ip = _HERE
            method = "spawn" if self._wanted.is_here else start_forkserver()
            if method == "spawn":  # the process that workers are forked from does so itself, and they wait for it
                prepare_decoder(is_ours=self._wanted.is_here)
            self._stack.enter_context(
                dask_configuration({**DASK_CONFIG, "distributed.worker.multiprocessing-method": method}, is_whole=True)
            )
            with without_interrupts(starts_processes=not self._wanted.is_here):
                self._started = _start_workers(self._wanted, self._dashboard_address, self._plugins(self._wanted))
        except BaseException as error:
            self._close()  # where an interrupt came as they had just started
            self._started = error


def _end(started: LocalCluster, processes: Sequence[int]) -> None:
    """Close a cluster; what does not end in time is killed, and nothing is lost by it: what counts is committed."""
    try:
        started.close(timeout=_CLOSE_S)
    except TimeoutError:
        log.warning("the workers did not end within %g s, and are killed", _CLOSE_S)
        for pid in processes:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@dataclass(frozen=True)
class _Size:
    """How many workers there are to be, for so many ranges of which so many are consumed at once."""

    nconsumers: int
    ranges: int
    #: Whether one worker does it all, in this process.
    is_here: bool = False

    @property
    def busy(self) -> int:
        return max(1, min(self.nconsumers, self.ranges))

    @property
    def cores(self) -> int:
        return min(self.busy, usable_cores())

    @property
    def workers(self) -> int:
        return 1 if self.is_here else self.cores

    @property
    def turns(self) -> int:
        return self.cores // self.workers

    @property
    def threads(self) -> int:
        # Consumers beyond the cores are threads, and each core has at least two: one prepares a range, or writes one to
        # disk, while the other has its turn to decode.
        return self.turns * max(2, -(-self.busy // self.cores))

    def share(self, limit: int) -> MemoryShare:
        """Divide the memory among the consumers."""
        overhead = BASE_BYTES + (0 if self.is_here else self.workers * WORKER_BYTES)
        full = max(_FULL_SHARES, usable_cores())
        return share_memory(limit, overhead, self.threads * self.workers, full, asked=self.busy)


@contextmanager
def local_cluster(
    nconsumers: int,
    ranges: int,
    dashboard_address: str,
    memory_limit: int | None = None,
) -> Iterator[Cluster]:
    """Start workers, and stop them at the end; see `LocalWorkers`."""
    with (
        LocalWorkers(nconsumers, dashboard_address, memory_limit) as workers,
        workers.cluster(ranges) as cluster,
    ):
        yield cluster


@contextmanager
def _open_files(workers: int) -> Iterator[None]:
    """Let this process open what so many workers take of it: where it may not, Dask waits for them for ever.

    Raises SettingsError if it may never.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _FILES + workers * _WORKER_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        yield
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        words = f"{workers} workers take {needed} open files, and {hard} are allowed here (ulimit -n)"
        raise SettingsError(f"{words}: have that raised, or give a smaller {parameter('nconsumers')}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class _WorkerHere(Worker):  # type: ignore[misc]
    """A worker in this process, whose pages are for this machine alone: without a host it would listen on all."""

    def start_http_server(self, routes: Any, dashboard_address: Any, *args: Any, **options: Any) -> None:
        super().start_http_server(routes, f"{_HERE}:0", *args, **options)


class _ClusterHere(LocalCluster):  # type: ignore[misc]
    """A scheduler and its workers in this process, whose dashboard is that of any other local transfer."""

    @property
    def dashboard_link(self) -> str:
        return str(format_dashboard_link(_HERE, self.scheduler.services["dashboard"].port))


def _start_workers(size: _Size, dashboard_address: str, plugins: Sequence[WarmUp]) -> LocalCluster:
    """Start them all, and again where one ended as it started: there Dask gives up, though later it replaces them."""
    for left in reversed(range(_STARTS)):
        try:
            return (_ClusterHere if size.is_here else LocalCluster)(
                n_workers=size.workers,
                threads_per_worker=size.threads,
                # A nanny ends a worker that has taken more; nobody would end this process.
                memory_limit=0 if size.is_here else MEMORY_LIMIT // size.workers,
                plugins=tuple(plugins),
                processes=not size.is_here,
                # Within a process nothing has to be packed for a connection.
                protocol="inproc" if size.is_here else "tcp",
                host=None if size.is_here else _HERE,
                worker_class=_WorkerHere if size.is_here else None,
                dashboard_address=free_address(dashboard_address),
                scheduler_kwargs=SCHEDULER_OPTIONS,
                # A worker that is stopped in the middle of a range says so at length; the job does in a line.
                silence_logs=logging.CRITICAL,
            )
        except RuntimeError as error:
            if not left:
                words = f"Dask tried {_STARTS} times to start {size.workers} workers, and failed"
                reason = " ".join(str(error.__cause__ or error).split())[:200]
                if _available_memory() < size.workers * WORKER_BYTES:
                    reason += f"; memory is short here: a smaller {parameter('nconsumers')} starts fewer"
                raise TransferError(f"{words} ({reason})") from error
    raise AssertionError("no start was tried")


def _available_memory() -> int:
    """Return the bytes that the machine has left; as many as there may be where it does not say."""
    try:
        words = Path("/proc/meminfo").read_text().split()
        return int(words[words.index("MemAvailable:") + 1]) * 1024
    except (OSError, ValueError, IndexError):
        return usable_memory()


def free_address(address: str) -> str:
    """Return the address, with any free port where the wanted one is taken.

    Raises SettingsError if there is no such address on this machine.
    """
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), int(port)))
        except socket.gaierror as error:
            raise SettingsError(
                f"{parameter('dashboard_address')} {address}: there is no address {host} here"
            ) from error
        except OSError as error:
            if error.errno not in {errno.EADDRINUSE, errno.EACCES}:
                raise SettingsError(f"{parameter('dashboard_address')} {address}: {error.strerror}") from error
            return f"{host}:0"
    return address
