"""The two figures: time against the number of consumers, and against the batch size."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.cases import BATCHSIZE, BATCHSIZES, CONSUMERS, FINK_CLIENT, FINK_DASK, Contestant
from benchmarks.environments import ROOT, python_of
from benchmarks.errors import BenchmarkError
from benchmarks.results import Results
from benchmarks.targets import label

CONSUMERS_FIGURE = "benchmarks-consumers.svg"
BATCHES_FIGURE = "benchmarks-batchsize.svg"
JOB = ROOT / "benchmarks" / "jobs" / "draw_job.py"


def points(results: Results, topic: str, contestant: Contestant, axis: str) -> list[dict[str, Any]]:
    """List the points of a curve.

    `axis`: ``consumers`` or ``batchsize``, the other of which is what it usually is.
    Returns: ``x``, ``seconds``, and ``ended``: ``in time``, ``limit``, ``frozen``, or what else went wrong.
    """
    found = []
    for x in CONSUMERS if axis == "consumers" else BATCHSIZES:
        consumers, batchsize = (x, BATCHSIZE) if axis == "consumers" else (None, x)
        runs = results.of(topic, contestant, consumers, batchsize)
        if not runs:
            continue
        seconds = results.seconds(topic, contestant, consumers, batchsize)
        ended = "in time" if seconds is not None else "wrong" if runs[-1].ended == "in time" else runs[-1].ended
        found.append({"x": x, "seconds": seconds or runs[-1].seconds, "ended": ended})
    return found


def figures(results: Results) -> list[dict[str, Any]]:
    """Describe both figures, for the script that draws them.

    Returns: file name, axis and curves of each.
    """
    curves = [("light_l", FINK_DASK, ""), ("subset", FINK_CLIENT, "subset, ")]
    axes = [
        (CONSUMERS_FIGURE, "consumers", f"number of consumers, batches of {BATCHSIZE:,}"),
        (BATCHES_FIGURE, "batchsize", f"batch size, {results.run['cores']} consumers"),
    ]
    return [
        {
            "file": file,
            "axis": words,
            "cores": results.run["cores"] if axis == "consumers" else None,
            "curves": [
                {"name": f"{who} ({note}{label(results, topic)} alerts)", "points": points(results, topic, who, axis)}
                for topic, who, note in curves
            ],
        }
        for file, axis, words in axes
    ]


def draw(results: Results, environment: Path, out: Path) -> None:
    """Draw both figures as SVG.

    Raises BenchmarkError: the drawing failed.
    """
    done = subprocess.run(
        [python_of(environment), "-I", str(JOB), str(out)],
        input=json.dumps(figures(results)),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode != 0:
        raise BenchmarkError(f"drawing failed: {(done.stderr.splitlines() or ['it said nothing'])[-1]}")
