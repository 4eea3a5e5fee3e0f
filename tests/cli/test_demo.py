"""The demo is the ordinary path, and what it prints can be typed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from shlex import quote
from textwrap import dedent

import pandas as pd
import pytest

from fink_dask.demo.fill import DEMO_TOPIC
from fink_dask.kafka.offsets import OffsetRange
from tests.harness.cli import PROGRAM, environment, remarks, run_cli
from tests.harness.ledgers import make_ledger, make_plan


def test_the_demo_transfers_verifies_and_shows_lines_that_read_the_dataset(tmp_path: Path) -> None:
    bare = {"PATH": os.defpath}
    result = run_cli("demo", "--alerts", "3000", cwd=tmp_path, env=bare)
    assert result.returncode == 0, result.stderr
    assert "complete: 3,000 offsets, 3,000 alerts" in result.stdout
    assert "year=2026/month=02/day=24" in result.stdout
    lines = dedent(result.stdout.split("Read it:")[1].rpartition("'fink-dask read")[0])
    *_, path = result.stdout.splitlines()
    command = ["/bin/sh", "-c", f"{path}; fink-dask status fink-dask-demo && python -c {quote(lines)}"]
    env = environment(bare)
    read = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert read.returncode == 0, read.stderr
    assert "objectId" in read.stdout
    assert "3000" in read.stdout
    assert len(pd.read_parquet(tmp_path / "fink-dask-demo", dtype_backend="pyarrow")) == 3000


@pytest.mark.commands
def test_a_second_demo_replaces_the_first_and_no_other_dataset(tmp_path: Path) -> None:
    assert run_cli("demo", "--alerts", "500", cwd=tmp_path).returncode == 0
    again = run_cli("demo", "--alerts", "400", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert len(pd.read_parquet(tmp_path / "fink-dask-demo")) == 400
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fink-dask-demo", "fink-dask-demo.fink"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "data.txt").write_text("mine")
    refused = run_cli("demo", "--outdir", "mine", cwd=tmp_path)
    assert refused.returncode == 1
    assert "ledger" in refused.stderr
    assert (tmp_path / "mine" / "data.txt").read_text() == "mine"


def test_a_users_dataset_of_a_topic_of_the_demos_name_is_left_alone(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path / "mine", make_plan([OffsetRange(0, 0, 25)], topic=DEMO_TOPIC))
    refused = run_cli("demo", "--outdir", "mine", cwd=tmp_path)
    assert refused.returncode == 2
    assert "--outdir" in refused.stderr
    assert len(ledger.plans()) == 1


@pytest.mark.parametrize("later_s", [0.0, 0.1])
def test_a_stop_while_it_publishes_is_no_error(later_s: float, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*PROGRAM, "demo", "--alerts", "12000"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("1. publish")
    time.sleep(later_s)  # into the middle of it, at one place or another
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGINT, err
    assert [("stopped" in line) for line in remarks(err)] == [True], f"more than that it was stopped: {err}"
    assert "2. transfer" not in out, "it was stopped later"
    assert not list(tmp_path.glob("*/*.parquet"))
