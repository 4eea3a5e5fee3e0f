"""Dask schedulers that tests start as processes of their own."""

from __future__ import annotations

import subprocess
import sys
import venv
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


def scheduler_command(port: int, python: str = sys.executable) -> list[str]:
    """Return what starts a scheduler without pages."""
    place = ["--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
    return [python, "-m", "distributed.cli.dask_scheduler", *place]


def worker_command(address: str, *options: str, python: str = sys.executable) -> list[str]:
    """Return what starts a worker that no nanny starts again."""
    return [python, "-m", "distributed.cli.dask_worker", address, "--no-nanny", "--no-dashboard", *options]


def without_package(folder: Path) -> str:
    """Make an environment that has everything but this package; returns its Python."""
    venv.create(folder, with_pip=False)
    site = next((folder / "lib").glob("python*/site-packages"))
    for entry in (Path(sys.prefix) / "lib" / site.parent.name / "site-packages").iterdir():
        if "fink_dask" not in entry.name:
            (site / entry.name).symlink_to(entry)
    return str(folder / "bin" / "python")


#: A script of a user whose cluster grows from nothing to three workers, and then is to shrink to one.
_ADAPTING = """\
import threading
from dataclasses import replace
from pathlib import Path

import {module}
import fink_dask
from fink_dask.api import transfer


def slowly(*given, **more):
    return replace(asked(*given, **more), batchsize=1)  # it then takes some seconds


def watch():
    while not over.wait(0.1):
        seen.append(len(client.nthreads()))
        if seen[-1] == 3 and 3 not in seen[:-1]:
            cluster.adapt(minimum=0, maximum=1{pace})
        elif seen[-1] <= 1 and 3 in seen:
            Path("hurry").touch()


if __name__ == "__main__":
    asked, transfer.transfer_settings = transfer.transfer_settings, slowly
    seen, over = [], threading.Event()
    with {module}.{cluster} as cluster:
        cluster.adapt(minimum=0, maximum=3{pace})
        with cluster.get_client() as client:
            watching = threading.Thread(target=watch)
            watching.start()
            done = fink_dask.transfer({topic!r}, "alerts", {servers!r}, client=client)
            over.set()
            watching.join()
    print(done.summary.alerts, seen[0], max(seen), min(seen[seen.index(3) :]))
"""
#: How fast Dask's own clusters adapt.
DASKS_PACE = ', interval="200ms", wait_count=2, target_duration="100ms"'


def transfer_adapting(
    cluster: str,
    topic: str,
    bootstrap: str,
    cwd: Path,
    env: Mapping[str, str],
    pace: str = DASKS_PACE,
    python: str = sys.executable,
) -> list[int]:
    """Transfer a topic into ``alerts`` on a cluster, ``module.Class(…)``, that adapts itself.

    `env`: with it, workers wait until there is a file ``hurry`` in `cwd`; there is one when they have been fewer again.

    Returns: how many alerts there are; and how many workers there were at first, at most, and at least after that.
    """
    module, _, made = cluster.partition(".")
    words = {"module": module, "cluster": made, "topic": topic, "servers": bootstrap, "pace": pace}
    script = cwd / "script.py"
    script.write_text(_ADAPTING.format(**words))
    done = subprocess.run(
        [python, str(script)], cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


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
