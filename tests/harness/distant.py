"""What runs on hosts of a test's network: an object store, and a Dask cluster of which anything may die."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.harness.dask import answers
from tests.harness.hosts import Host
from tests.harness.object_store import ObjectStore, S3Proxy
from tests.harness.oracle import wait_for

PORT = 8786
_SCHEDULER, _WORKER = "scheduler", "worker"


@contextmanager
def distant_store(host: Host, folder: Path) -> Iterator[ObjectStore]:
    """Run an object store on a host; its environment leads other hosts to it."""
    proxy = S3Proxy(folder)
    try:
        with host.inside():
            proxy.start()
            store = ObjectStore(proxy, host.address)
        yield store
        store.wire.close()
    finally:
        proxy.discard()


class DistantDask:
    """A scheduler on one host and a worker on each of others; a context manager."""

    def __init__(
        self, scheduler: Host, workers: Sequence[Host], folder: Path, environment: Mapping[str, str], threads: int = 1
    ) -> None:
        # The scheduler's host, and where a client runs.
        self._host = scheduler
        self.workers = list(workers)
        # Of logs, and of what workers keep.
        self._folder = folder
        # Of scheduler and workers.
        self._environment = environment
        # Of each worker.
        self._threads = threads
        self.address = f"tcp://{scheduler.address}:{PORT}"

    def __enter__(self) -> DistantDask:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for host in reversed((self._host, *self.workers)):
            host.stop()

    def start(self) -> None:
        """Start what does not run, and return when all workers are there."""
        if not self._host.runs(_SCHEDULER):
            command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", self._host.address]
            command += ["--port", str(PORT), "--no-dashboard"]
            self._host.start(_SCHEDULER, command, self._folder / "scheduler.log", self._environment)
        for host in self.workers:
            if not host.runs(_WORKER):
                self.start_worker(host)
        with self._host.inside():
            wait_for(lambda: answers(self.address, len(self.workers)), "the workers")

    def start_worker(self, host: Host) -> None:
        """Start a worker, which a process of its own starts again if it dies; one more, if it is on another host."""
        if host not in self.workers:
            self.workers.append(host)
        command = [sys.executable, "-m", "distributed.cli.dask_worker", self.address, "--host", host.address]
        command += ["--nthreads", str(self._threads), "--no-dashboard"]
        command += ["--local-directory", str(self._folder / host.name)]
        host.start(_WORKER, command, self._folder / f"{host.name}.log", self._environment)

    def kill_worker(self, host: Host) -> None:
        """End the process that transfers, and only that."""
        with suppress(psutil.Error):
            for child in psutil.Process(host.pid_of(_WORKER)).children():
                child.send_signal(signal.SIGKILL)

    def kill_host(self, host: Host) -> None:
        """End all that runs on the host of a worker, as if its power was cut."""
        host.kill(_WORKER)

    def kill_scheduler(self) -> None:
        """End the scheduler, and what is left of the workers, so that all of it can be started again."""
        self._host.kill(_SCHEDULER)
        for host in self.workers:
            host.kill(_WORKER)

    def pids(self) -> dict[str, list[int]]:
        """Tell which processes are whose: the scheduler's, and those of all workers."""
        return {
            _SCHEDULER: [self._host.pid_of(_SCHEDULER)],
            "workers": [host.pid_of(_WORKER) for host in self.workers],
        }
