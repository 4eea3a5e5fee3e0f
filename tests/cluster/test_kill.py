"""Whatever is killed, and whenever: one more run, and every alert is there exactly once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from fink_dask.dataset.ledger import Ledger
from fink_dask.dataset.summary import summarise
from fink_dask.demo.alerts import AlertKind
from tests.harness.cli import PROGRAM, SLOWLY, environment, run_cli, transfer_arguments
from tests.harness.oracle import Oracle, assert_exactly_once, fill_topic, places, wait_for

COUNT = 12_000
PARTITIONS = 6


@pytest.fixture(scope="module")
def topic(module_topic: str) -> str:
    return module_topic


@pytest.fixture(scope="module")
def oracle(kafka: Any, topic: str) -> Oracle:
    return fill_topic(kafka.bootstrap_servers, topic, AlertKind.ZTF_LIGHT, COUNT, partitions=PARTITIONS)


def start(kafka: Any, topic: str, outdir: Path) -> subprocess.Popen[str]:
    """Start a transfer in a process group of its own, as a shell does; one alert at a time, to last some seconds."""
    arguments = transfer_arguments(kafka, topic, outdir, "-partitionby", "time", "-batchsize", "1")
    return subprocess.Popen(
        [*PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(SLOWLY),
        start_new_session=True,
    )


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    parent = psutil.Process(process.pid)
    return [parent, *parent.children(recursive=True)]


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """List the Dask workers: what the process that has everything loaded has forked."""
    servers = psutil.Process(process.pid).children()
    return [worker for server in servers if "forkserver" in " ".join(server.cmdline()) for worker in server.children()]


def has_begun(outdir: Path) -> bool:
    return Ledger(outdir).exists() and bool(Ledger(outdir).staged())


def finish(kafka: Any, topic: str, outdir: Path, oracle: Oracle) -> None:
    """Run once more and hold the dataset against what was published."""
    result = run_cli(*transfer_arguments(kafka, topic, outdir, "-partitionby", "time"))
    assert result.returncode == 0, result.stderr
    assert_exactly_once(outdir, oracle.values)
    verified = run_cli("verify", str(outdir))
    assert verified.returncode == 0, verified.stdout
    assert not Ledger(outdir).staged()


@pytest.mark.parametrize("moment", range(10))
def test_a_kill_of_everything_at_a_random_moment_loses_and_repeats_nothing(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path, moment: int
) -> None:
    chance = random.Random(moment)
    outdir = tmp_path / "alerts"
    process = start(kafka, topic, outdir)
    wait_for(lambda: Ledger(outdir).exists() or process.poll() is not None, 60, "the plan")
    # From the start of the workers to the end of the run, on a machine of any speed.
    share = chance.random()
    wait_for(
        lambda: process.poll() is not None or len(list(Ledger(outdir).markers_path.iterdir())) >= share * PARTITIONS,
        90,
        "some ranges",
    )
    time.sleep(chance.random() * 0.3)  # the moment itself: anywhere between two commits
    everyone = family(process) if process.poll() is None else []
    with suppress(ProcessLookupError):  # the last moments can come after the end
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    psutil.wait_procs(everyone, timeout=30)
    before = places(outdir)
    assert set(before) <= set(oracle.values), "a reader saw an alert that was not published"
    finish(kafka, topic, outdir, oracle)


def test_ctrl_c_stops_in_seconds_with_130_leaves_no_process_and_can_be_resumed(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path
) -> None:
    outdir = tmp_path / "alerts"
    process = start(kafka, topic, outdir)
    wait_for(lambda: has_begun(outdir) or process.poll() is not None, 60, "the first range")
    everyone = family(process)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the whole group
    _, err = process.communicate(timeout=15)
    assert process.returncode == 130
    assert "run the same command again" in err
    assert "Traceback" not in err
    _, alive = psutil.wait_procs(everyone, timeout=5)
    assert not alive
    assert not Ledger(outdir).staged()
    finish(kafka, topic, outdir, oracle)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["SIGTERM", "SIGHUP"])
def test_a_batch_system_or_a_closing_terminal_stops_it_in_good_order(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    outdir = tmp_path / "alerts"
    process = start(kafka, topic, outdir)
    wait_for(lambda: has_begun(outdir) or process.poll() is not None, 60, "the first range")
    process.send_signal(number)
    _, err = process.communicate(timeout=15)
    assert process.returncode == code
    assert "run the same command again" in err
    finish(kafka, topic, outdir, oracle)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV], ids=lambda number: number.name)
def test_a_run_survives_the_death_of_its_workers(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path, number: signal.Signals
) -> None:
    outdir = tmp_path / "alerts"
    process = start(kafka, topic, outdir)
    killed = 0
    for _ in range(3):
        wait_for(lambda: process.poll() is not None or (has_begun(outdir) and bool(workers(process))), 60, "workers")
        if process.poll() is None:
            victim = random.Random(number).choice(workers(process))
            victim.send_signal(number)
            killed += 1
            psutil.wait_procs([victim], timeout=20)
    _, err = process.communicate(timeout=120)
    assert killed, "the run was over before a worker could be killed"
    assert process.returncode == 0, err
    assert_exactly_once(outdir, oracle.values)
    assert summarise(Ledger(outdir)).summary.alerts == COUNT


def test_a_second_transfer_into_the_same_directory_is_refused_while_the_first_lives(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path
) -> None:
    outdir = tmp_path / "alerts"
    first = start(kafka, topic, outdir)
    wait_for(lambda: has_begun(outdir) or first.poll() is not None, 60, "the first range")
    status = run_cli("status", str(outdir))
    assert f"{topic}: running" in status.stdout
    assert "running    yes" in status.stdout
    second = run_cli(*transfer_arguments(kafka, topic, outdir, "-partitionby", "time"))
    assert second.returncode == 1
    assert "another transfer into this directory is running" in second.stderr
    verified = run_cli("verify", str(outdir))
    assert verified.returncode == 1
    assert "is running: verify it when it has ended" in verified.stderr
    first.communicate(timeout=120)
    assert first.returncode == 0
    assert_exactly_once(outdir, oracle.values)
