"""Dask schedulers that tests start as processes of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import dask
from distributed import Client, LocalCluster
from distributed.security import Security

from fink_dask.cluster.local import DASK_CONFIG
from tests.harness.cli import environment
from tests.harness.kafka_settings import free_ports
from tests.harness.oracle import wait_for

ROOT = Path(__file__).resolve().parents[2]


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


@contextmanager
def shared_scheduler() -> Iterator[str]:
    """Run a scheduler with two workers in a process of its own, which ends with this one; yields its address.

    Dask changes the environment of the process that it starts workers from, and commands would no longer be those of
    the zygote.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.harness.dask"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env=environment(),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        assert address, "no Dask scheduler starts"
        yield address
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()


def main() -> None:
    """Say the address, and wait until nobody listens any more."""
    with (
        dask.config.set(DASK_CONFIG),
        LocalCluster(n_workers=2, threads_per_worker=4, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster,
    ):
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
