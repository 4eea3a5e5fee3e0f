"""Run ``fink-dask`` as a user does: in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PROGRAM = [sys.executable, "-m", "fink_dask"]
#: With this in its environment and ``-batchsize 1``, a transfer decodes one alert at a time and lasts some seconds.
SLOWLY = {"PYTHONPATH": str(Path(__file__).parent / "slow")}


def run_cli(
    *arguments: str, timeout_s: float = 180, cwd: Path | None = None, env: dict[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; a terminal's width is set so that help is the same everywhere."""
    return subprocess.run(
        [*PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        cwd=cwd,
        env=environment(env),
        input=stdin,
        check=False,
    )


def environment(more: dict[str, str] | None = None) -> dict[str, str]:
    """Take this process's environment less what would set options, so that a user's own settings change no test."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FINK_DASK_")}
    return {**kept, "COLUMNS": "100", **(more or {})}


def transfer_arguments(kafka: Any, topic: str, outdir: Path, *more: str) -> list[str]:
    """Spell a transfer with Fink's own options; the dashboard is kept off the port that a user's may have."""
    return [
        "transfer",
        "-topic",
        topic,
        "-outdir",
        str(outdir),
        "--bootstrap-servers",
        kafka.bootstrap_servers,
        "--dashboard-address",
        "127.0.0.1:0",
        *more,
    ]
