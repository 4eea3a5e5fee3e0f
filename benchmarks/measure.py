"""Run a command to its end and tell what it took: time, processor time and memory of the whole process tree."""

from __future__ import annotations

import os
import resource
import select
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.processes import children_by_parent, descendants, kill_all, resident_bytes, subreaper

#: Reading the memory of many processes takes time itself; it may take this share of one core.
_SAMPLING_SHARE = 0.05
_SHORTEST_INTERVAL_S = 0.2
#: How long a server process may outlive the command that started it.
_LINGER_S = 10.0
_PROGRESS_INTERVAL_S = 2.0

Ending = Literal["itself", "limit", "frozen"]


@dataclass(frozen=True)
class Command:
    """A command to be measured."""

    arguments: tuple[str, ...]
    #: All of its environment.
    environment: Mapping[str, str]
    folder: Path


@dataclass(frozen=True)
class Stall:
    """How to tell that a command is frozen."""

    #: Returns something that changes as long as the command gets on.
    progress: Callable[[], object]
    #: The command is frozen when it has not changed for so many seconds.
    after_s: float


@dataclass(frozen=True)
class Measured:
    """What a command took."""

    #: When it began, in seconds of the Unix epoch.
    started: float
    #: From its start to its exit.
    seconds: float
    #: Processor time of the command and everything that it has started, user and system.
    cpu_s: float
    #: The most that the process tree held, as the sum of proportional set sizes, among the samples.
    peak_bytes: int
    #: How many samples of the memory there were.
    samples: int
    #: Its exit status; negative for a signal.
    status: int
    #: ``itself``, or why it was killed: ``limit`` or ``frozen``.
    ended: Ending


def measure(command: Command, log: Path, limit_s: float, stall: Stall | None = None) -> Measured:
    """Run a command; whatever it leaves behind is ended too, and so is all of it on Ctrl+C.

    `command`: what to run. It gets no input.
    `log`: where its output and its errors go.
    `stall`: how to tell that it is frozen; it is then killed as well.
    """
    with subreaper(), log.open("wb") as output:
        before = set(_children())
        started, began = time.time(), time.monotonic()
        # A session of its own: Ctrl+C is for this process, which then ends the command.
        process = subprocess.Popen(
            command.arguments,
            env=dict(command.environment),
            cwd=command.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            peak, samples, ended = _watch(process.pid, before, began + limit_s, stall)
            seconds = time.monotonic() - began
            if ended != "itself":
                kill_all([process.pid, *_orphans(before)])
            cpu_s, status = _reap(process, before)
        except BaseException:
            kill_all([process.pid, *_orphans(before)])
            _reap(process, before)
            raise
    return Measured(started, seconds, cpu_s, peak, samples, status, ended)


def _watch(root: int, before: set[int], deadline: float, stall: Stall | None) -> tuple[int, int, Ending]:
    """Sample the memory until a process ends; tell the peak, how many samples, and why it ended."""
    peak = samples = 0
    progress, since = None, time.monotonic()
    next_look = since
    wait_s = 0.02
    handle = os.pidfd_open(root)
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        while not poll.poll(1000 * max(0.0, min(wait_s, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                return peak, samples, "limit"
            if stall is not None and time.monotonic() >= next_look:
                if (now := stall.progress()) != progress:
                    progress, since = now, time.monotonic()
                elif time.monotonic() - since > stall.after_s:
                    return peak, samples, "frozen"
                next_look = time.monotonic() + _PROGRESS_INTERVAL_S
            began = time.perf_counter()
            peak = max(peak, resident_bytes(descendants([root, *_orphans(before, root)])))
            samples += 1
            wait_s = max(_SHORTEST_INTERVAL_S, (time.perf_counter() - began) / _SAMPLING_SHARE)
    finally:
        os.close(handle)
    return peak, samples, "itself"


def _reap(process: subprocess.Popen[bytes], before: set[int]) -> tuple[float, int]:
    """Wait for a process that has ended and for its orphans; return the processor time of all, and its status."""
    _, wait_status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(wait_status)
    cpu_s = _cpu(used)
    deadline = time.monotonic() + _LINGER_S
    while orphans := _orphans(before):
        if time.monotonic() > deadline:
            kill_all(orphans)
        for pid in orphans:
            with suppress(ChildProcessError):
                ended, _, used = os.wait4(pid, os.WNOHANG)
                cpu_s += _cpu(used) if ended else 0.0
        time.sleep(0.02)
    return cpu_s, process.returncode


def _cpu(used: resource.struct_rusage) -> float:
    """Return the processor time of a process and of all the children that it has waited for."""
    return used.ru_utime + used.ru_stime


def _children() -> Sequence[int]:
    return children_by_parent().get(os.getpid(), [])


def _orphans(before: set[int], root: int = 0) -> list[int]:
    """List what this process has inherited: its children less the root and those that it had before."""
    return [pid for pid in _children() if pid not in before and pid != root]
