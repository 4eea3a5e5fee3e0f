"""Commands in processes of their own that need not be loaded: they are forked from one that has everything loaded.

A command takes a quarter of a second to load, and most tests run one. Each test process has one such process, a zygote,
which ends with it. What a command does is the same, except for what the interpreter reads when it starts.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

#: What commands import when they are run.
PRELOAD = (
    "astropy.io.fits",
    "fastavro",
    "fink_dask.cli.main",
    "fink_dask.running.run",
    "fink_dask.verifying.files",
    "fink_dask.doctor.kafka",
    "fink_dask.verifying.repair",
    "fink_dask.show.alert",
    "fink_dask.running.scheduling",
    "fink_dask.show.peek",
    "numba",
    "pyarrow.dataset",
    "rich.console",
)
#: Variables that are read while a program is loaded: with others than the zygote's, it has to be started.
READ_AT_START = ("DASK_", "LANG", "LC_", "LD_", "MALLOC_", "NUMBA_", "OPENBLAS_", "PYTHON", "TZ")
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ended:
    """How a command ended, and the processor time that it took with its children."""

    code: int
    cpu_s: float


class Zygote:
    """The process that commands are forked from; it is started when the first one is."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._read_at_start = read_at_start(environment)
        here, there = socket.socketpair()
        with there:
            # Its end of the socket is closed when this process ends, however that happens, and then it ends as well.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.harness.zygote", str(there.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[there.fileno()],
                cwd=ROOT,
                env={**environment, "OPENBLAS_NUM_THREADS": "1"},
            )
        self._socket = here
        atexit.register(self.end)

    def can_run(self, environment: Mapping[str, str]) -> bool:
        """Say whether a command would be the same if it were loaded with this environment."""
        return self._read_at_start == read_at_start(environment)

    def run(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        cwd: Path,
        files: Sequence[IO[Any]],
        timeout_s: float,
        impatient: bool = False,
    ) -> Ended:
        """Run a command with these three files, and return when it has ended.

        Raises subprocess.TimeoutExpired: it was killed after so many seconds.
        """
        here, there = socket.socketpair()
        with here, tempfile.TemporaryFile() as asked:
            wanted = {"argv": argv, "env": dict(environment), "cwd": str(cwd), "impatient": impatient}
            asked.write(json.dumps(wanted).encode())
            asked.seek(0)
            with there:
                descriptors = [there.fileno(), asked.fileno(), *(file.fileno() for file in files)]
                socket.send_fds(self._socket, [b"x"], descriptors)
            here.settimeout(timeout_s)
            try:
                answer = here.recv(4096)
            except TimeoutError:
                raise subprocess.TimeoutExpired(list(argv), timeout_s) from None
        if not answer:
            raise RuntimeError("the process that commands are forked from has died")
        return Ended(**json.loads(answer))

    def end(self) -> None:
        """End it."""
        self._socket.close()
        self._process.wait()


def read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    """Take what is read while a program is loaded."""
    return {name: value for name, value in environment.items() if name.startswith(READ_AT_START)}


def serve(asks: socket.socket) -> None:
    """Fork a process for each command that is asked for, and return in it; the zygote itself never returns."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    alarm, bell = os.pipe()
    os.set_blocking(bell, False)
    signal.set_wakeup_fd(bell)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([asks.fileno(), alarm, *(each.fileno() for each in running.values())], [], [])
        for pid, answers in running.items():
            if answers.fileno() in ready:  # nobody listens any more
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        running = {pid: answers for pid, answers in running.items() if answers.fileno() not in ready}
        if alarm in ready:
            os.read(alarm, 4096)
            _tell_what_has_ended(running)
        if asks.fileno() in ready:
            message, descriptors, _, _ = socket.recv_fds(asks, 1, 5)
            if not message:
                for pid in running:
                    os.kill(pid, signal.SIGKILL)
                os._exit(0)  # whoever asked has ended
            answers = socket.socket(fileno=descriptors[0])
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                for each in (asks, answers, *running.values()):
                    each.close()
                for descriptor in (alarm, bell):
                    os.close(descriptor)
                _become(*descriptors[1:])
                return
            running[pid] = answers
            for descriptor in descriptors[1:]:
                os.close(descriptor)


def _tell_what_has_ended(running: dict[int, socket.socket]) -> None:
    for pid in list(running):
        ended, status, used = os.wait4(pid, os.WNOHANG)
        if ended:
            said = {"code": os.waitstatus_to_exitcode(status), "cpu_s": used.ru_utime + used.ru_stime}
            with running.pop(pid) as answers, suppress(BrokenPipeError):
                answers.sendall(json.dumps(said).encode())


def _become(asked: int, *files: int) -> None:
    """Take on the arguments, the environment, the directory and the files of a command."""
    with os.fdopen(asked, "rb") as file:
        wanted = json.load(file)
    for number, descriptor in enumerate(files):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(wanted["env"])
    os.chdir(wanted["cwd"])
    sys.argv = wanted["argv"]
    if wanted["impatient"]:
        from fink_dask.kafka import admin

        admin._UNREACHED_S = admin._UNREACHED_SECURED_S = 1.0
    # Not closed where others take their place, as Python's own are not.
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)


def _run() -> NoReturn:
    """Run a command as a process that Python forks ends: without taking apart all that was loaded."""
    from fink_dask.__main__ import main
    from fink_dask.cli import transfer

    transfer._BEGAN = time.monotonic()  # it begins now, and not when it was loaded
    code = 1
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException:
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    for module in PRELOAD:
        importlib.import_module(module)
    dict(importlib.import_module("fink_dask.cli.main").cli.commands)  # each is loaded when it is asked for
    importlib.import_module("fink_dask.avro.kernels").warm_up()
    gc.freeze()
    serve(socket.socket(fileno=int(sys.argv[1])))
    _run()
