"""Whoever stops reading what a command says changes nothing of what it does, nor of its status."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.alerts.made_up import AlertKind
from tests.harness.cli import PROGRAM, environment, transfer_arguments
from tests.harness.oracle import assert_exactly_once, fill_topic


def broken_pipe() -> int:
    """Return the end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def closed_terminal() -> int:
    """Return a terminal whose window is gone."""
    ours, theirs = pty.openpty()
    os.close(ours)
    return theirs


def full_disk() -> int:
    """Return a file on a disk that takes no more."""
    return os.open("/dev/full", os.O_WRONLY)


def run(*typed: str, out: int = subprocess.PIPE, err: int = subprocess.PIPE) -> tuple[int, str, str]:
    """Run a command in a process of its own, which ignores SIGHUP as behind `nohup`; return its status and words."""
    done = subprocess.run(
        [*PROGRAM, *typed],
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        env=environment(),
        check=False,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    for stream in {out, err} - {subprocess.PIPE}:
        os.close(stream)
    return done.returncode, done.stdout or "", done.stderr or ""


#: Help, and what a script or a person is told of what succeeds and of what does not.
TYPED = (("--help",), ("completion", "bash"), ("status", "nowhere", "--json"), ("topics", "--no-such-option"))


@pytest.mark.parametrize("typed", TYPED, ids=" ".join)
def test_what_nobody_reads_costs_no_status_and_leaves_no_trace(typed: tuple[str, ...]) -> None:
    code, out, err = run(*typed)
    assert "Traceback" not in err
    for gone in (broken_pipe, closed_terminal):
        assert run(*typed, out=gone()) == (code, "", err)
        assert run(*typed, err=gone()) == (code, out, "")
    assert run(*typed, err=full_disk()) == (code, out, "")


@pytest.mark.parametrize("gone", [broken_pipe, closed_terminal])
def test_a_transfer_that_nobody_watches_any_more_is_completed(
    kafka: Any, topic_name: str, tmp_path: Path, gone: Callable[[], int]
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 200)
    both = gone()
    assert run(*transfer_arguments(kafka, topic_name, tmp_path / "alerts"), out=both, err=both)[0] == 0
    assert_exactly_once(tmp_path / "alerts", oracle.values)
    code, out, _ = run("verify", str(tmp_path / "alerts"), "--json", err=gone())
    assert (code, json.loads(out)["state"]) == (0, "complete")


def test_a_transfer_whose_log_is_on_a_disk_that_is_full_is_completed(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 200)
    code, out, _ = run(*transfer_arguments(kafka, topic_name, tmp_path / "alerts"), err=full_disk())
    assert (code, "complete" in out) == (0, True)
    assert_exactly_once(tmp_path / "alerts", oracle.values)


def test_an_output_that_is_full_is_a_failure_of_the_output_and_not_of_the_dataset() -> None:
    code, _, err = run("--version", out=full_disk())
    assert (code, err.count("\n"), "standard output" in err) == (1, 1, True)
    code, _, err = run("status", "nowhere", "--json", out=full_disk())
    assert (code, err.count("\n"), "nowhere" in err) == (1, 1, True)
