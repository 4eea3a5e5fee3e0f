"""What planning, submitting and collecting many ranges takes: should be linear in time, and flat in memory.

``python -m benchmarks.ranges`` measures it anew, and writes the page of the other benchmarks with it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.environments import ROOT
from benchmarks.errors import BenchmarkError
from benchmarks.page import RANGES, write_page
from benchmarks.results import load

#: How many ranges, for each scale of the benchmark.
COUNTS = {"full": (10_000, 30_000, 100_000), "small": (100, 300, 1_000)}
#: What the page shows of a job's answer.
_SHOWN = (
    "ranges",
    "plan, in s",
    "submit and collect, in s",
    "processor time of a range, in ms",
    "memory before, in MB",
    "memory at its peak, in MB",
)
_LIMIT_S = 1800.0


def measure_ranges(scale: str, out: Path, say: Callable[[str], None]) -> None:
    """Measure each count in a process of its own, and keep the answers for the page.

    Raises BenchmarkError if a measurement fails.
    """
    answers = []
    for count in COUNTS[scale]:
        try:
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.jobs.ranges_job", str(count)],
                capture_output=True,
                text=True,
                timeout=_LIMIT_S,
                cwd=ROOT,
                check=True,
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise BenchmarkError(f"{count:,} ranges could not be measured: {error}") from error
        answer = json.loads(done.stdout.splitlines()[-1])
        answers.append({name: answer[name] for name in _SHOWN})
        say(f"{count:,} ranges: {answers[-1]['submit and collect, in s']} s")
    (out / RANGES).write_text(json.dumps(answers, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        measure_ranges("full", ROOT / "docs", print)
    except BenchmarkError as error:
        sys.exit(f"benchmarks: error: {error}")
    write_page(load(ROOT / "docs"), ROOT / "docs")
