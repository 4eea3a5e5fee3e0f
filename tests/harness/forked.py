"""The test processes of a run, forked from one that has loaded the tests: each would load them all again for itself.

pytest-xdist starts each with the command `python -u -c LINE`. For `python` it is given this program, which hands the
line and its own files to the process that forks, and waits for the end of what was forked.
"""

from __future__ import annotations

import atexit
import gc
import os
import select
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

_MODULE = "tests.harness.forked"
_PATIENCE_S = 10
_WHERE = "FINK_DASK_TEST_DIRECTORY"


class Nursery:
    """The process that test processes are forked from; it ends with the run, however that ends."""

    def __init__(self, config: pytest.Config) -> None:
        address = f"fink-dask-tests-{os.getpid()}"
        self.python = f"{sys.executable} -I -S {__file__} {address}"
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(f"\0{address}")
            door.listen()
            self._process = subprocess.Popen(
                [sys.executable, "-m", _MODULE, str(door.fileno()), *map(str, config.invocation_params.args)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=[door.fileno()],
                cwd=Path(__file__).parents[2],
                env={**os.environ, _WHERE: str(config.invocation_params.dir)},
            )

    def end(self) -> None:
        """End it."""
        self._process.communicate()


def pytest_xdist_setupnodes(config: pytest.Config, specs: list[Any]) -> None:
    """Have the processes of a run forked."""
    if sys.platform != "linux" or len(specs) == 1:
        return
    nursery = Nursery(config)
    config.add_cleanup(nursery.end)
    for spec in specs:
        spec.python = nursery.python


class Modules:
    """Have pytest load the modules of tests only: it would escape the names of tests once more in each process."""

    def pytest_pycollect_makeitem(self) -> list[Any]:
        """Say that what a module has is no test."""
        return []


def serve(door: socket.socket) -> None:
    """Fork a process for each that calls, and return in it; whoever forks returns never."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    forked: set[int] = set()
    while True:
        ready, _, _ = select.select([door, sys.stdin], [], [])
        if sys.stdin in ready:  # the run has ended
            _see_the_end_of(forked)
            os._exit(0)
        caller, _ = door.accept()
        # Newer Pythons warn of the threads of Arrow's and polars' allocators, which are made anew after a fork.
        with caller, warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            _, files, _, _ = socket.recv_fds(caller, 1, 3)
            forked.add(pid := os.fork())
            if pid == 0:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                door.close()
                for number, descriptor in enumerate(files):
                    os.dup2(descriptor, number)
                    os.close(descriptor)
                caller.detach()  # it is closed when this process ends, and says so to the caller
                return
        for descriptor in files:
            os.close(descriptor)


def _see_the_end_of(pids: set[int]) -> None:
    """Wait for processes, or nobody would count the time that they took; kill who takes longer than xdist waits."""
    deadline = time.monotonic() + _PATIENCE_S
    while pids:
        if time.monotonic() > deadline:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
        pids.discard(os.waitpid(-1, os.WNOHANG)[0])
        time.sleep(0.02)


def call(address: str) -> None:
    """Ask for a process with the files of this one, and wait for its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as door:
        door.connect(f"\0{address}")
        socket.send_fds(door, [b"x"], [0, 1, 2])
        for descriptor in (0, 1):
            os.close(descriptor)
        door.recv(1)


def _become_a_test_process(environment: Mapping[str, str]) -> None:
    """Be what `python -u -c` would be."""
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["-c"]
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    main = sys.modules["__main__"]
    main.__spec__ = None
    del main.__file__


if __name__ == "__main__":
    if not sys.argv[1].isdecimal():
        call(sys.argv[1])
    else:
        import pytest

        os.chdir(os.environ.pop(_WHERE))
        environment = dict(os.environ)
        pytest.main([*sys.argv[2:], "--collect-only", "--numprocesses", "0"], plugins=[Modules()])
        gc.freeze()
        serve(socket.socket(fileno=int(sys.argv[1])))
        _become_a_test_process(environment)
        exec(eval(sys.stdin.readline()))
        # What was loaded before the fork is not taken down: some libraries would say, after pytest's summary, that they
        # have leaked.
        atexit._run_exitfuncs()
        os._exit(0)
