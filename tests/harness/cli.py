"""Run ``fink-dask`` as a user does: in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from tests.harness.zygote import Zygote

PROGRAM = [sys.executable, "-m", "fink_dask"]
#: With this in its environment and ``-batchsize 1``, a transfer decodes one alert at a time and lasts some seconds.
SLOWLY = {"PYTHONPATH": str(Path(__file__).parent / "slow")}
#: With these options and `unhurried`, it waits after every few alerts, which costs no processor.
FEW_AT_ONCE = ("-batchsize", "25")
#: How far a command is, which it says after two seconds, and every ten, where there is no terminal: a count, or what it
#: does, such as "reading alerts", and for how long where that began a while ago.
_HOW_FAR = re.compile(r"[a-z][a-zA-Z ]*: [\d.,]+ .*|[a-z]+ing\b[a-zA-Z, ]*( for \d+ (s|min)( \d+ s)?)?")


def run_cli(
    *arguments: str,
    timeout_s: float = 300,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    stdin: str = "",
    afresh: bool = False,
    impatient: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; a terminal's width is set so that help is the same everywhere.

    It is forked from a process that has loaded the program, unless its environment says how a program is loaded, or it
    is to be started afresh, as where libraries are to read their own configuration. One that is forked may be impatient
    with servers that can't be reached: it waits a second for them, and not twelve.
    """
    wanted = environment(Shared.settings | (env or {}))
    if afresh or sys.platform != "linux" or not _zygote().can_run(wanted):
        return subprocess.run(
            [*PROGRAM, *arguments],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            cwd=cwd,
            env=wanted,
            input=stdin,
            check=False,
        )
    with (
        tempfile.TemporaryFile("w+") as given,
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
    ):
        given.write(stdin)
        given.seek(0)
        files = (given, out, err)
        ended = _zygote().run(["fink-dask", *arguments], wanted, cwd or Path.cwd(), files, timeout_s, impatient)
        Used.cpu_s += ended.cpu_s
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess([*PROGRAM, *arguments], ended.code, out.read(), err.read())


def remarks(stderr: str) -> list[str]:
    """Return the lines of a command that say something else than how far it is."""
    return [line for line in stderr.splitlines() if not _HOW_FAR.fullmatch(line)]


class Shared:
    """What commands are told by their environment while the fixture `shared_dask` is asked for."""

    settings: ClassVar[dict[str, str]] = {}


class Used:
    """What the commands of this process have taken: it did not start them itself, so nobody else counts it."""

    cpu_s = 0.0


#: A zygote that a test with variables of its own starts first is for all tests after it.
_AT_START = dict(os.environ)


@cache
def _zygote() -> Zygote:
    return Zygote(_for_commands(_AT_START))


def environment(more: dict[str, str] | None = None) -> dict[str, str]:
    """Take this process's environment less what would set options, so that a user's own settings change no test."""
    return {**_for_commands(os.environ), **(more or {})}


def unhurried(hurry: Path) -> dict[str, str]:
    """Have the workers of a command wait after each batch until a file is there."""
    return SLOWLY | {"FINK_DASK_TEST_UNHURRIED": str(hurry)}


def _for_commands(variables: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in variables.items() if not name.startswith("FINK_DASK_")}
    return {**kept, "COLUMNS": "100"}


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
