"""A transfer that runs in a process group of its own, long enough for something to happen to it."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from fink_dask.ledger.ledger import Ledger
from tests.harness.cli import PROGRAM, SLOWLY, environment, run_cli, transfer_arguments
from tests.harness.oracle import Oracle, assert_exactly_once, wait_for


class Running:
    """Start a transfer as a shell does, in a process group of its own.

    Parameters
    ----------
    kafka
        Where it reads.
    topic : str
        The topic.
    outdir : Path
        Where it writes.
    *more : str
        Further options.
    slowly : bool, optional
        Decode one alert at a time, to last some seconds; not needed where the line is slow.
    """

    def __init__(self, kafka: Any, topic: str, outdir: Path, *more: str, slowly: bool = True) -> None:
        self.outdir = outdir
        self.ledger = Ledger(outdir)
        one_by_one = ("-batchsize", "1") if slowly else ()
        arguments = transfer_arguments(kafka, topic, outdir, "-partitionby", "time", *one_by_one, *more)
        self.process = subprocess.Popen(
            [*PROGRAM, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(SLOWLY if slowly else None),
            start_new_session=True,
        )

    @property
    def is_over(self) -> bool:
        """Whether it has ended by itself."""
        return self.process.poll() is not None

    def family(self) -> list[psutil.Process]:
        """List all its processes."""
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def workers(self) -> list[psutil.Process]:
        """List the Dask workers: what the process that has everything loaded has forked."""
        found: list[psutil.Process] = []
        with suppress(psutil.Error):
            for server in psutil.Process(self.process.pid).children():
                if "forkserver" in " ".join(server.cmdline()):
                    found += server.children()
        return found

    def wait_until_it_reads(self) -> None:
        """Return when a range is on its way, or everything is over."""
        wait_for(lambda: self.is_over or (self.ledger.exists() and bool(self.ledger.staged())), 60, "the first range")

    def wait_until_committed(self, ranges: int) -> None:
        """Return when so many ranges are committed, or everything is over."""
        path = self.ledger.markers_path
        wait_for(lambda: self.is_over or (path.is_dir() and len(list(path.iterdir())) >= ranges), 120, "some ranges")

    def signal(self, number: int) -> None:
        """Send a signal to the whole group."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """End the whole group at once, and return when nothing of it is left."""
        everyone = self.family() if not self.is_over else []
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()
        psutil.wait_procs(everyone, timeout=30)

    def finish(self, timeout_s: float = 180) -> tuple[int, str]:
        """Wait for its end; returns the exit status and what it said on stderr."""
        _, err = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, err


def finish(kafka: Any, topic: str, outdir: Path, oracle: Oracle) -> None:
    """Run once more, and hold the dataset against what was published."""
    result = run_cli(*transfer_arguments(kafka, topic, outdir, "-partitionby", "time"))
    assert result.returncode == 0, result.stderr
    assert_exactly_once(outdir, oracle.values)
    verified = run_cli("verify", str(outdir))
    assert verified.returncode == 0, verified.stdout
    assert not Ledger(outdir).staged()
