"""How much memory a command and all that it starts hold at the most."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Weighed:
    """A command that has ended."""

    status: int
    #: What it said on stderr.
    err: str
    #: The most that it and its descendants held.
    most_bytes: int


def run_and_weigh(command: Sequence[str], environment: Mapping[str, str]) -> Weighed:
    """Run a command to its end, and look ten times a second at its memory."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(environment)
    )
    most = 0
    while process.poll() is None:
        with suppress(psutil.Error):
            parent = psutil.Process(process.pid)
            # Shared pages are counted once: workers are forked.
            everyone = [parent, *parent.children(recursive=True)]
            most = max(most, sum(each.memory_full_info().pss for each in everyone))
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
    _, err = process.communicate()
    return Weighed(process.returncode, err, most)
