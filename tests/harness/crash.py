"""Run a function in a process of its own, and kill that process at an exact point."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing import forkserver
from typing import Any

import psutil
import pytest

#: What a commit or a move is made of. A kill between two of these leaves what a kill after the first one leaves.
OPERATIONS = ("fsync", "link", "mkdir", "rename", "rmdir", "symlink", "unlink", "utime")

#: For tests that kill after one operation after the other: each of them is long, and some of them are a sample.
SOME_OR_EACH = pytest.mark.parametrize(
    "every", [11, pytest.param(1, marks=pytest.mark.kills)], ids=["some operations", "each operation"]
)

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.harness.loaded"])


def start(function: Callable[..., object], *arguments: Any) -> Any:
    """Start a process that calls an importable function; it costs a few milliseconds."""
    process = _CONTEXT.Process(target=_without_waiting, args=(function, *arguments))
    process.start()
    return process


def run(function: Callable[..., object], *arguments: Any) -> int:
    """Call a function in another process and return how that ended, ``-SIGKILL`` if it was killed."""
    process = start(function, *arguments)
    try:
        process.join()
    finally:
        process.kill()  # where the test's time is up
    return int(process.exitcode)


def used_s() -> float:
    """Return the processor time of what was forked here: whoever forks it is no child that anybody waits for."""
    pid = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    return sum(psutil.Process(pid).cpu_times()[:4]) if pid is not None else 0.0


def run_until(count: int, function: Callable[..., object], *arguments: Any) -> bool:
    """Call a function in another process and kill that after `count` operations; False if there were fewer."""
    code = run(_counted, count, function, *arguments)
    assert code in {0, -signal.SIGKILL}, f"{function.__name__} failed before it was killed"
    return code != 0


def kill_self() -> None:
    """End this process at once, with nothing cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


def pipe() -> Any:
    """Return two ends that a process and its child can talk through."""
    return _CONTEXT.Pipe()


def barrier(parties: int) -> Any:
    """Return a barrier for that many processes."""
    return _CONTEXT.Barrier(parties)


def _without_waiting(function: Callable[..., object], *arguments: Any) -> None:
    os.fsync = lambda fd: None  # a kill spares the page cache
    function(*arguments)


def _counted(count: int, function: Callable[..., object], *arguments: Any) -> None:
    seen = 0

    def counting(real: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            nonlocal seen
            try:
                return real(*args, **options)
            finally:
                seen += 1
                if seen == count:
                    kill_self()

        return counted

    for name in OPERATIONS:
        setattr(os, name, counting(getattr(os, name)))
    function(*arguments)
