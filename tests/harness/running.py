"""A transfer that runs in a process group of its own, long enough for something to happen to it."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, ClassVar

import psutil

from fink_dask.ledger.ledger import Ledger
from tests.harness.cli import FEW_AT_ONCE, PROGRAM, environment, run_cli, transfer_arguments, unhurried
from tests.harness.oracle import Oracle, assert_exactly_once, wait_for
from tests.harness.topics import PATIENCE_S


class Running:
    """Start a transfer as a shell does, in a process group of its own.

    `slowly`: wait after every few alerts, to last some seconds, until `hurry`; not needed where the line is slow.
    """

    #: What was started and may still run: a test that fails ends nothing itself.
    started: ClassVar[list[Running]] = []

    def __init__(self, kafka: Any, topic: str, outdir: Path, *more: str, slowly: bool = True) -> None:
        self.outdir = outdir
        self.ledger = Ledger(outdir)
        few_at_once = FEW_AT_ONCE if slowly else ()
        arguments = transfer_arguments(kafka, topic, outdir, "-partitionby", "time", *few_at_once, *more)
        # Files and not pipes: they can be read while it runs, and are never full.
        self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 (they live as long)
        self._room = tempfile.TemporaryDirectory(prefix="unhurried-")
        self._hurry = Path(self._room.name) / "hurry"
        self.process = subprocess.Popen(
            [*PROGRAM, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            env=environment(unhurried(self._hurry) if slowly else None),
            start_new_session=True,
            # Behind `nohup`, the tests ignore this signal, and so would what they start.
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # noqa: PLW1509 (it takes no lock)
        )
        self.started.append(self)

    @property
    def is_over(self) -> bool:
        """Whether it has ended by itself."""
        return self.process.poll() is not None

    @property
    def out(self) -> str:
        """What it has written to its standard output by now."""
        return _read(self._out)

    @property
    def err(self) -> str:
        """What it has written to its standard error by now."""
        return _read(self._err)

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

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Return when something is so; fail if it ends before: a test that meant to disturb it would test nothing."""

        def is_so() -> bool:
            # In this order: what is so at its end is so.
            is_over = self.is_over
            if condition():
                return True
            assert not is_over, f"it ended with {self.process.returncode} before {what}: {self.err}"
            return False

        wait_for(is_so, what)

    def wait_until_it_reads(self) -> None:
        """Return when a range is on its way."""
        self.wait_until(lambda: self.ledger.exists() and bool(self.ledger.staged()), "the first range")

    def wait_until_committed(self, ranges: int) -> None:
        """Return when so many ranges are committed."""
        path = self.ledger.markers_path
        self.wait_until(lambda: path.is_dir() and len(list(path.iterdir())) >= ranges, f"{ranges} ranges")

    def wait_until_said(self, words: str) -> str:
        """Return the line on its standard error that has these words, when it is there."""

        def found() -> list[str]:
            return [line for line in self.err.splitlines(keepends=True) if words in line and line.endswith("\n")]

        self.wait_until(lambda: bool(found()), repr(words))
        return found()[0]

    def hurry(self) -> None:
        """Let it go on at full speed: what was to happen to it has happened."""
        self._hurry.touch()

    def signal(self, number: int) -> None:
        """Send a signal to the whole group."""
        os.killpg(self.process.pid, number)

    def kill(self) -> bool:
        """End the whole group at once, and return when nothing of it is left; False if it had ended by itself."""
        was_alive = not self.is_over
        everyone = self.family() if was_alive else []
        with suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        self.process.wait()
        psutil.wait_procs(everyone, timeout=30)
        return was_alive and self.process.returncode == -signal.SIGKILL

    def finish(self, timeout_s: float = PATIENCE_S) -> tuple[int, str]:
        """Wait for its end; returns the exit status and what it said on stderr."""
        return self.process.wait(timeout_s), self.err


def _read(file: IO[bytes]) -> str:
    # The process writes where the file ends, and shares its position.
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode(errors="replace")


def finish(kafka: Any, topic: str, outdir: Path, oracle: Oracle) -> None:
    """Run once more, and hold the dataset against what was published."""
    result = run_cli(*transfer_arguments(kafka, topic, outdir, "-partitionby", "time"))
    assert result.returncode == 0, result.stderr
    assert_exactly_once(outdir, oracle.values)
    verified = run_cli("verify", str(outdir))
    assert verified.returncode == 0, verified.stdout
    assert not Ledger(outdir).staged()
