"""Wherever a signal comes, a command ends as one that was stopped."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.cli import PROGRAM, environment

#: What fastavro does, and other compiled code, when a signal comes in its middle.
_FILL = """
import os, signal
import fink_dask.cli.main as main

@main.cli.command("fill")
def fill():
    try:
        os.kill(os.getpid(), signal.{name})
    except KeyboardInterrupt as stopped:
        raise SystemError("<cyfunction _validate> returned a result with an exception set") from stopped

main.main(["fill"])
"""


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_in_the_middle_of_compiled_code_is_no_bug(name: str, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FILL.format(name=name)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == code, done.stderr
    assert done.stderr == "fink-dask: stopped; what is written is safe, and the same command may be run again\n"


_BUG = """
import fink_dask.cli.main as main

def fail(*_, **__):
    raise ValueError("a bug")

main.cli.commands["{name}"].callback = fail
main.main(["{name}", "alerts"])
"""


@pytest.mark.parametrize(("name", "hint"), [("verify", " (-v shows where)"), ("status", "")])
def test_a_bug_is_one_line_and_names_an_option_only_where_there_is_one(name: str, hint: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _BUG.format(name=name)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr == f"fink-dask: error: unexpected ValueError: a bug{hint}\n"


def test_a_signal_while_it_is_loaded_ends_it_without_a_trace(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("import time\nprint('loading', flush=True)\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [*PROGRAM, "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment({"PYTHONPATH": str(tmp_path)}),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "loading\n"
    process.send_signal(signal.SIGINT)
    said, complained = process.communicate(timeout=60)
    assert (process.returncode, said, complained) == (-signal.SIGINT, "", "")
