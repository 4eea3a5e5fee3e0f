"""Shells complete commands, options, their values and directories: in the shell itself where it is installed."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.cli import PROGRAM, environment, run_cli

SHELLS = ["bash", "zsh", "fish"]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Return a directory with some names in it, and ``fink-dask`` in its ``bin``."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "fink-dask"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m fink_dask "$@"\n')
    program.chmod(0o755)
    (tmp_path / "alerts").mkdir()
    (tmp_path / "alerts.txt").touch()
    return tmp_path


def complete(shell: str, typed: str) -> list[str]:
    """Ask as the script of a shell does; returns the values, and what kind of file is wanted."""
    words = typed.split(" ")
    env = {"_FINK_DASK_COMPLETE": f"{shell}_complete", "COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1)}
    if shell == "fish":
        env["COMP_CWORD"] = words[-1]
    answer = subprocess.run(
        PROGRAM, capture_output=True, text=True, env=environment(env), timeout=300, check=True
    ).stdout
    if shell == "zsh":  # kind, value and help in a line each
        lines = answer.splitlines()
        return [value if kind == "plain" else kind for kind, value in zip(lines[::3], lines[1::3], strict=True)]
    found = [line.partition("\t")[0].partition(",")[::2] for line in answer.splitlines() if "," in line]
    return [value if kind == "plain" else kind for kind, value in found]


@pytest.mark.parametrize("shell", SHELLS)
def test_commands_options_values_and_directories_are_completed(shell: str) -> None:
    assert complete(shell, "fink-dask tra") == ["transfer"]
    assert complete(shell, "fink-dask transfer --partition") == ["--partitionby"]
    assert complete(shell, "fink-dask transfer --outformat ") == ["parquet", "avro"]
    assert complete(shell, "fink-dask transfer --partitionby time,t") == ["time,tnsclass"]
    assert complete(shell, "fink-dask repair --cluster slu") == ["slurm"]
    assert complete(shell, "fink-dask read --with p") == ["pandas", "polars", "pyarrow"]
    assert complete(shell, "fink-dask publish --kind lsst") == ["lsst-light", "lsst-full"]
    assert complete(shell, "fink-dask transfer --outdir ") == ["dir"]
    assert complete(shell, "fink-dask verify ") == ["dir"]
    assert complete(shell, "fink-dask transfer --password-file ") == ["file"]
    assert complete(shell, "fink-dask completion ") == SHELLS


@pytest.mark.parametrize("shell", SHELLS)
def test_each_option_is_offered_once_and_by_one_dash_where_that_was_typed(shell: str) -> None:
    offered = complete(shell, "fink-dask status -")
    assert offered == ["--json", "-h", "--help"] or offered == ["--json", "--help", "-h"]
    assert complete(shell, "fink-dask status -j") == ["-json"]
    assert complete(shell, "fink-dask status --j") == ["--json"]
    offered = complete(shell, "fink-dask verify -")
    assert {"-v", "--verbose", "--sample"} <= set(offered)
    assert not {"-verbose", "-sample"} & set(offered)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_asks_in_the_way_that_is_answered(shell: str) -> None:
    printed = run_cli("completion", shell)
    assert printed.returncode == 0, printed.stderr
    by_variable = subprocess.run(
        PROGRAM,
        capture_output=True,
        text=True,
        env=environment({"_FINK_DASK_COMPLETE": f"{shell}_source"}),
        timeout=300,
        check=True,
    ).stdout
    assert printed.stdout.strip() == by_variable.strip()
    assert f"_FINK_DASK_COMPLETE={shell}_complete" in printed.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["tcsh"], "'tcsh' is not one of 'bash', 'zsh', 'fish'"), ([], "Choose from: bash, zsh, fish")],
)
def test_another_shell_is_refused_in_one_line(arguments: list[str], words: str) -> None:
    result = run_cli("completion", *arguments)
    assert result.returncode == 2
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


#: How each is started without a user's settings, and told to complete.
INTERACTIVE = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(fink-dask completion bash)"'),
    "zsh": (["zsh", "-f", "-i"], 'autoload -U compinit && compinit -u -D; eval "$(fink-dask completion zsh)"'),
    "fish": (["fish", "--no-config", "-i"], "fink-dask completion fish | source"),
}


@pytest.mark.parametrize("shell", SHELLS)
def test_tab_in_the_shell_itself_completes_a_command_and_a_directory(here: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed; .ci/run installs it")
    command, setup = INTERACTIVE[shell]
    leader, follower = os.openpty()
    path = f"{here / 'bin'}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        ["setsid", "-c", *command],  # fish wants a terminal of its own
        stdin=follower,
        stdout=follower,
        stderr=follower,
        cwd=here,
        env=environment({"PATH": path, "HOME": str(here), "TERM": "dumb"}),
    )
    os.close(follower)
    shown = ""

    def type_until(typed: str, words: str) -> None:
        """Type something, and read until some words are shown, which are not those that were typed."""
        nonlocal shown
        os.write(leader, typed.encode())
        while words not in shown:
            assert select.select([leader], [], [], 60)[0], shown
            shown += os.read(leader, 4096).decode(errors="replace")
        shown = shown.partition(words)[2]

    try:
        type_until(f'{setup}; echo DO""NE\n', "DONE")
        # What a key press has made of the line shows in what the line then does.
        type_until("fink-dask stat\t--help\n", "Usage: fink-dask status")
        type_until("fink-dask status al\t\n", str(here / "alerts.fink"))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=300)
        os.close(leader)
