"""The units in deploy are ones that systemd understands; nothing of them is started."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.harness.batch import COMMAND_TIMEOUT_S, PROGRAMS

UNITS = sorted((Path(__file__).parents[2] / "deploy" / "systemd").glob("*@.*"))


def verify(units: list[Path], home: Path) -> str:
    """Let systemd read units of a user's whose home has the program; returns what it has to say against them."""
    program = home / ".venv" / "bin" / "fink-dask"
    program.parent.mkdir(parents=True, exist_ok=True)
    if not program.exists():
        program.symlink_to(PROGRAMS / "fink-dask")
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", *map(str, units)],
        env=os.environ | {"HOME": str(home), "XDG_RUNTIME_DIR": str(home)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )
    return done.stdout if done.returncode == 0 else f"{done.stdout} (status {done.returncode})"


@pytest.mark.parametrize(
    ("good", "bad"), [("", ""), ("RestartSec=60", "RestartSekt=60"), ("%h/.venv/bin/fink-dask", "%h/bin/fink-dask")]
)
def test_systemd_has_nothing_to_say_against_the_units_in_deploy_and_much_against_others(
    systemd: None, tmp_path: Path, good: str, bad: str
) -> None:
    assert {unit.suffix for unit in UNITS} == {".service", ".timer"}
    copies = [tmp_path / unit.name for unit in UNITS]
    for unit, copy in zip(UNITS, copies, strict=True):
        copy.write_text(unit.read_text().replace(good, bad) if good else unit.read_text())
    assert bool(verify(copies, tmp_path)) == bool(bad)
