"""A measurement counts what a program has started, and leaves nothing of it behind."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from benchmarks import measure as measuring
from benchmarks.measure import Command, Measured, Stall, measure

#: Holds memory, says so, and ends when it has been seen.
HOLD = """import pathlib, time
held = bytearray(b'x' * 150_000_000)
pathlib.Path('held').touch()
while not pathlib.Path('seen').exists():
    time.sleep(0.01)
"""
BURN = "import time\nwhile time.process_time() < 1.0: pass"


def run(code: str, tmp_path: Path, limit_s: float = 60, stall: Stall | None = None) -> Measured:
    command = Command((sys.executable, "-c", code), os.environ, tmp_path)
    return measure(command, tmp_path / "log", limit_s, stall)


def test_memory_of_a_child_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_PROGRESS_INTERVAL_S", 0.0)
    looks = 0

    def look() -> int:
        # Each look at how it gets on is followed by one at its memory.
        nonlocal looks
        looks += (tmp_path / "held").exists()
        if looks > 1:
            (tmp_path / "seen").touch()
        return looks

    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLD!r}])"
    measured = run(code, tmp_path, stall=Stall(look, 60))
    assert measured.status == 0
    assert measured.peak_bytes > 150_000_000


@pytest.mark.parametrize("waited", [True, False], ids=["waited for", "left behind"])
def test_processor_time_of_a_child_is_counted(waited: bool, tmp_path: Path) -> None:
    start = f"import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', {BURN!r}])"
    measured = run(f"{start}\nif {waited}: child.wait()\nchild.returncode = 0", tmp_path)
    assert measured.cpu_s >= 1.0


def test_a_run_over_its_limit_is_killed_with_its_children(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    child = f"import os, pathlib, time; pathlib.Path({str(note)!r}).write_text(str(os.getpid())); time.sleep(600)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], start_new_session=True)"
    measured = run(code, tmp_path, limit_s=3)
    assert measured.ended == "limit"
    assert note.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def test_a_failure_keeps_its_status(tmp_path: Path) -> None:
    measured = run("import sys; sys.exit('out of luck')", tmp_path)
    assert measured.status == 1
    assert (tmp_path / "log").read_text() == "out of luck\n"


def test_a_frozen_run_is_ended_before_its_limit(tmp_path: Path) -> None:
    command = Command((sys.executable, "-c", "import time; time.sleep(600)"), os.environ, tmp_path)
    assert measure(command, tmp_path / "log", 120, Stall(lambda: "the same", 1.0)).ended == "frozen"
