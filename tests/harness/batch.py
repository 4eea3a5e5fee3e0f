"""What the batch systems of the tests have in common: they are installed from Debian's packages, and are daemons."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from fink_dask.ledger.ledger import Ledger
from tests.harness.cli import PROGRAM
from tests.harness.kafka_install import HarnessError, apt_install, is_debian_root
from tests.harness.oracle import wait_for

#: Longer than any of their commands takes; they wait for a daemon that is gone.
COMMAND_TIMEOUT_S = 60
#: Where `fink-dask` is.
PROGRAMS = Path(sys.executable).parent


def ensure_packages(name: str, programs: Mapping[str, str]) -> None:
    """Install what is missing.

    Raises HarnessError if something is missing that can't be installed.
    """
    path = f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin{os.pathsep}/sbin"
    os.environ["PATH"] = path  # daemons are in directories that not every user's path has
    missing = sorted({package for program, package in programs.items() if not shutil.which(program)})
    if os.geteuid() != 0:
        raise HarnessError(f"the tests on a real {name} start its daemons, which only root may: run them as root")
    if not missing:
        return
    if not is_debian_root():
        raise HarnessError(f"the tests on a real {name} need {' and '.join(missing)} of Debian")
    apt_install(missing)


def run(command: Sequence[str], environment: Mapping[str, str], *, check: bool = True) -> str:
    """Run a command of a batch system; returns its output.

    Raises HarnessError if it fails or takes too long.
    """
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise HarnessError(f"{command[0]} took more than {COMMAND_TIMEOUT_S} s") from error
    if check and done.returncode != 0:
        raise HarnessError(f"{' '.join(command)} ended with {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def start_cli(arguments: Sequence[str], settings: Mapping[str, str]) -> subprocess.Popen[str]:
    """Start ``fink-dask`` in a process of its own, whose environment leads it to a batch system."""
    command = [*PROGRAM, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=settings)


class Started:
    """``fink-dask`` in a process as `start_cli` starts it; a context manager, which ends it."""

    def __init__(self, arguments: Sequence[str], settings: Mapping[str, str]) -> None:
        self.process = start_cli(arguments, settings)

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Return when something is so, or it has ended."""
        wait_for(lambda: self.process.poll() is not None or condition(), what)

    def finish(self, status: int = 0, timeout_s: float = 300) -> tuple[str, str]:
        """Wait for its end, which is to be with this status; returns its output and its errors."""
        out, err = self.process.communicate(timeout=timeout_s)
        assert self.process.returncode == status, err
        assert "Traceback" not in err
        return out, err


def committed(outdir: Path) -> int:
    """Count the ranges that are committed."""
    return len(list(Ledger(outdir).markers_path.glob("*")))


class Daemons:
    """Processes of this one's that run until they are stopped."""

    def __init__(self) -> None:
        self._running: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}

    def start(self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        """Start one, in a session of its own; its output goes to a file."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._running[name] = process, log

    def check(self) -> None:
        """Raise a HarnessError if one of them has ended."""
        for name, (process, log) in self._running.items():
            if process.poll() is not None:
                lines = log.read_text(errors="replace").splitlines()[-3:]
                raise HarnessError(f"{name} ended with {process.returncode}: {' / '.join(lines)[:600]}")

    def wait_until(self, condition: Callable[[], bool], what: str, timeout_s: float) -> None:
        """Wait as long as all of them run.

        Raises HarnessError if one of them ends, or that takes too long.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                raise HarnessError(f"waited {timeout_s} s for {what}")
            time.sleep(0.1)

    def is_running(self, name: str) -> bool:
        """Whether it was started, and has not ended."""
        return name in self._running and self._running[name][0].poll() is None

    def pid_of(self, name: str) -> int:
        """Process id of one; its session has that number too."""
        return self._running[name][0].pid

    def kill(self, name: str) -> None:
        """End one without a warning."""
        process, _ = self._running.pop(name)
        process.kill()
        process.wait()

    def stop(self) -> None:
        """End all, the last one first."""
        for process, _ in reversed(self._running.values()):
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            if process.poll() is None:
                process.kill()
                process.wait()
        self._running.clear()
