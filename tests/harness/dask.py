"""Dask schedulers that tests start as processes of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from distributed import Client
from distributed.security import Security

from tests.harness.cli import environment
from tests.harness.kafka_settings import free_ports
from tests.harness.oracle import wait_for


def answers(address: str, workers: int = 1, security: Security | None = None) -> bool:
    """Tell whether a scheduler answers, and has that many workers."""
    try:
        with Client(address, timeout=2, security=security) as client:
            client.wait_for_workers(workers, timeout=20)
    except (OSError, TimeoutError):
        return False
    return True


@contextmanager
def running_scheduler(
    python: str = sys.executable, options: tuple[str, ...] = (), env: Mapping[str, str] | None = None
) -> Iterator[tuple[str, str]]:
    """Run a scheduler and a worker with two threads; yields the addresses of the scheduler and of its dashboard."""
    port, pages = free_ports(2)
    address = f"tcp://127.0.0.1:{port}"
    scheduler = ["dask_scheduler", "--host", "127.0.0.1", "--port", str(port)]
    scheduler += ["--dashboard-address", f"127.0.0.1:{pages}", *options]
    worker = ["dask_worker", address, "--no-dashboard", "--nthreads", "2"]
    started = [
        subprocess.Popen(
            [python, "-m", f"distributed.cli.{name}", *more], stderr=subprocess.DEVNULL, env=dict(env or environment())
        )
        for name, *more in (scheduler, worker)
    ]
    try:
        wait_for(lambda: answers(address), "the scheduler")
        yield address, f"http://127.0.0.1:{pages}"
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(30)
