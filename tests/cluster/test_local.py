"""The cluster on this machine: where its dashboard may be."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from fink_dask.cluster import local
from fink_dask.cluster.local import LocalCluster, LocalWorkers, free_address
from fink_dask.errors import SettingsError
from fink_dask.ranges.memory import WORKER_BYTES
from tests.alerts.made_up import AlertKind
from tests.harness.cli import PROGRAM, environment, transfer_arguments
from tests.harness.oracle import assert_exactly_once, fill_topic, wait_for
from tests.harness.running import Running

#: Too many alerts for the command's own process.
COUNT = 12_000


def kill_as_they_start(running: Running, workers: float) -> None:
    """Kill so many workers, each as soon as there is one, or all until the transfer is over."""
    killed: set[int] = set()
    ends_at = time.monotonic() + 120
    while len(killed) < workers and not running.is_over:
        assert time.monotonic() < ends_at, f"only {len(killed)} workers"
        for worker in running.workers():
            if worker.pid not in killed:
                with suppress(psutil.Error):
                    worker.kill()
                    killed.add(worker.pid)
        time.sleep(0.01)


def test_a_worker_that_is_killed_while_it_starts_costs_nothing(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, COUNT)
    running = Running(kafka, topic_name, tmp_path / "alerts", "-nconsumers", "2")
    kill_as_they_start(running, 1)
    code, err = running.finish()
    assert code == 0, err
    assert_exactly_once(running.outdir, oracle.values)


def test_workers_that_never_start_are_an_error_in_one_line(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, COUNT)
    running = Running(kafka, topic_name, tmp_path / "alerts", "-nconsumers", "2")
    kill_as_they_start(running, float("inf"))
    code, err = running.finish()
    assert code == 1, err
    (error,) = (line for line in err.splitlines() if "error: " in line)
    assert "2 workers" in error
    assert ("memory" in error) == (local._available_memory() < 2 * WORKER_BYTES)
    assert "Traceback" not in err


def test_fewer_open_files_than_the_workers_take_are_one_line_and_no_waiting(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, COUNT)
    typed = transfer_arguments(kafka, topic_name, tmp_path / "alerts")
    command = ["sh", "-c", 'ulimit -n 64 && exec "$@"', "sh", *PROGRAM, *typed]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 2, done.stderr
    assert "ulimit -n" in done.stderr.splitlines()[-1], done.stderr


def test_as_many_files_as_workers_take_may_be_open_and_a_users_own_limit_comes_back() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    own = (min(1024, before[1] if before[1] > 0 else 1024) - 100, before[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, own)
    try:
        with local._open_files(own[0] // local._WORKER_FILES):
            assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > own[0]
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == own
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_dashboard_elsewhere_is_refused_in_one_line_and_a_taken_port_is_another_one() -> None:
    with pytest.raises(SettingsError, match=r"--dashboard-address 192\.0\.2\.1:8787: ") as caught:
        free_address("192.0.2.1:8787")
    assert "\n" not in str(caught.value)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert free_address(f"127.0.0.1:{taken.getsockname()[1]}") == "127.0.0.1:0"


class StartedCluster(LocalCluster):  # type: ignore[misc]  # Dask ships no types
    """A cluster of no processes."""

    def __init__(self) -> None:
        self.closed = threading.Event()
        self.workers = {}

    def __del__(self) -> None:
        """Dask's looks at what is not there."""

    def close(self, timeout: float | None = None) -> None:
        self.closed.set()


def test_workers_that_were_still_starting_when_the_end_was_interrupted_are_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, may_start, cluster = threading.Event(), threading.Event(), StartedCluster()

    def start(*_: object) -> StartedCluster:
        begun.set()
        assert may_start.wait(20)
        return cluster

    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(local, "start_forkserver", lambda: "forkserver")
    monkeypatch.setattr(local, "_start_workers", start)
    workers = LocalWorkers(2, "127.0.0.1:0").__enter__()
    workers.start_soon()
    assert begun.wait(20)
    monkeypatch.setattr(workers._thread, "join", interrupt)
    with pytest.raises(KeyboardInterrupt):
        workers.__exit__(None, None, None)
    may_start.set()
    wait_for(cluster.closed.is_set, "the end of the workers")


def test_a_signal_while_the_workers_are_stopped_leaves_none_of_them_behind_and_stays_a_signal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(self: LocalCluster, count: int) -> object:
        os.kill(os.getpid(), signal.SIGINT)
        return scale(self, count)

    scale = LocalCluster.scale
    monkeypatch.setattr(LocalCluster, "scale", interrupted)
    with LocalWorkers(1, "127.0.0.1:0") as workers:
        running = workers.cluster(1)
        running.__enter__()
        started = workers._started
        assert isinstance(started, LocalCluster)
        processes = [psutil.Process(nanny.pid) for nanny in started.workers.values()]
        with pytest.raises(KeyboardInterrupt):
            running.__exit__(None, None, None)
        wait_for(lambda: started.status.name == "closed", "the end of the cluster")
        wait_for(lambda: not any(process.is_running() for process in processes), "the end of the workers")


def test_workers_that_do_not_end_in_time_are_killed_and_the_transfer_has_not_failed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(local, "_CLOSE_S", 0.001)
    with LocalWorkers(1, "127.0.0.1:0") as workers, workers.cluster(1):
        started = workers._started
        assert isinstance(started, LocalCluster)
        processes = [psutil.Process(nanny.pid) for nanny in started.workers.values()]
    assert "killed" in caplog.text
    wait_for(lambda: not any(process.is_running() for process in processes), "the end of the workers")
