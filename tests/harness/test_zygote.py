"""A command that is forked is the command that a user starts, and nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.harness.cli import PROGRAM, environment, run_cli
from tests.harness.oracle import wait_for
from tests.harness.zygote import ROOT


@pytest.mark.parametrize(
    "arguments",
    [("--version",), ("transfer", "--no-such-option"), ("verify", "nowhere"), (), ("completion", "bash")],
    ids=" ".join,
)
def test_it_says_and_ends_as_one_that_is_started(arguments: tuple[str, ...], tmp_path: Path) -> None:
    started = subprocess.run(
        [*PROGRAM, *arguments], capture_output=True, text=True, cwd=tmp_path, env=environment(), input="", check=False
    )
    forked = run_cli(*arguments, cwd=tmp_path)
    assert (forked.returncode, forked.stdout, forked.stderr) == (started.returncode, started.stdout, started.stderr)


def test_it_has_the_environment_the_directory_and_the_input_that_were_given(tmp_path: Path) -> None:
    done = run_cli("transfer", "--topic", "x", "--outdir", "y", env={"FINK_DASK_SURVEY": "neither"}, cwd=tmp_path)
    assert done.returncode == 2
    assert "neither" in done.stderr
    assert "FINK_DASK_SURVEY" not in os.environ


def test_one_that_takes_too_long_is_killed_and_the_next_one_runs(tmp_path: Path) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        run_cli("demo", "--alerts", "500", cwd=tmp_path, timeout_s=0.2)
    assert run_cli("--version").returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, commands are started")
def test_it_ends_with_the_tests_that_asked_for_it(tmp_path: Path) -> None:
    script = "import time; from tests.harness.cli import run_cli; run_cli(); print('x', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.read(1) == b"x"
    (zygote,) = psutil.Process(process.pid).children()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    wait_for(lambda: not zygote.is_running() or zygote.status() == psutil.STATUS_ZOMBIE, "the end of the zygote")
