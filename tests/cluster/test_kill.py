"""Whatever is killed, and whenever: one more run, and every alert is there exactly once."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.summary import summarise
from tests.alerts.made_up import AlertKind
from tests.harness.cli import run_cli, transfer_arguments
from tests.harness.oracle import Oracle, assert_exactly_once, fill_topic, places, wait_for
from tests.harness.running import Running, finish

pytestmark = pytest.mark.kills

COUNT = 12_000
PARTITIONS = 6


@pytest.fixture(scope="module")
def oracle(kafka: Any, topic: str) -> Oracle:
    return fill_topic(kafka.bootstrap_servers, topic, AlertKind.ZTF_LIGHT, COUNT, partitions=PARTITIONS)


@pytest.mark.parametrize("moment", [pytest.param(0, marks=pytest.mark.sample), *range(1, 10, 2)])
def test_a_kill_of_everything_at_a_random_moment_loses_and_repeats_nothing(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path, moment: int
) -> None:
    chance = random.Random(moment)
    outdir = tmp_path / "alerts"
    running = Running(kafka, topic, outdir)
    running.wait_until(running.ledger.exists, "the plan")
    # From the start of the workers until two ranges are left, on a machine of any speed.
    running.wait_until_committed(moment // 2)
    time.sleep(chance.random() * 0.3)  # the moment itself: anywhere between two commits
    assert running.kill(), "it was over before"
    before = places(outdir)
    assert set(before) <= set(oracle.values), "a reader saw an alert that was not published"
    finish(kafka, topic, outdir, oracle)


@pytest.mark.sample
def test_ctrl_c_stops_it_with_130_leaves_no_process_and_can_be_resumed(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path
) -> None:
    outdir = tmp_path / "alerts"
    running = Running(kafka, topic, outdir)
    running.wait_until_it_reads()
    everyone = running.family()
    os.killpg(running.process.pid, signal.SIGINT)  # a terminal sends it to the whole group
    code, err = running.finish()
    assert code == 130
    assert "stopped" in err
    assert "Traceback" not in err
    _, alive = psutil.wait_procs(everyone, timeout=60)
    assert not alive
    assert not Ledger(outdir).staged()
    finish(kafka, topic, outdir, oracle)


@pytest.mark.parametrize(
    ("number", "code"),
    [pytest.param(signal.SIGTERM, 143, marks=pytest.mark.sample), (signal.SIGHUP, 129)],
    ids=["SIGTERM", "SIGHUP"],
)
def test_a_batch_system_or_a_closing_terminal_stops_it_in_good_order(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    outdir = tmp_path / "alerts"
    running = Running(kafka, topic, outdir)
    running.wait_until_it_reads()
    running.process.send_signal(number)
    ended, err = running.finish()
    assert ended == code
    assert "stopped" in err
    finish(kafka, topic, outdir, oracle)


@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGKILL, marks=pytest.mark.sample), signal.SIGTERM, signal.SIGSEGV],
    ids=["SIGKILL", "SIGTERM", "SIGSEGV"],
)
def test_a_run_survives_the_death_of_its_workers(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path, number: signal.Signals
) -> None:
    outdir = tmp_path / "alerts"
    running = Running(kafka, topic, outdir)
    running.wait_until_it_reads()
    killed = 0
    for _ in range(3):
        wait_for(lambda: running.is_over or bool(running.workers()), "workers")
        if not running.is_over:
            victim = random.Random(number).choice(running.workers())
            victim.send_signal(number)
            killed += 1
            psutil.wait_procs([victim], timeout=20)
    running.hurry()
    code, err = running.finish()
    assert killed, "the run was over before a worker could be killed"
    assert code == 0, err
    assert_exactly_once(outdir, oracle.values)
    assert summarise(Ledger(outdir)).summary.alerts == COUNT


def test_a_second_transfer_into_the_same_directory_is_refused_while_the_first_lives(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path
) -> None:
    outdir = tmp_path / "alerts"
    first = Running(kafka, topic, outdir)
    first.wait_until_it_reads()
    status = run_cli("status", str(outdir))
    assert f"{topic}: running" in status.stdout
    assert "running    yes" in status.stdout
    second = run_cli(*transfer_arguments(kafka, topic, outdir, "-partitionby", "time"))
    assert second.returncode == 1
    assert "another transfer" in second.stderr
    verified = run_cli("verify", str(outdir))
    assert verified.returncode == 1
    assert "is running" in verified.stderr
    first.hurry()
    assert first.finish()[0] == 0
    assert_exactly_once(outdir, oracle.values)
