"""The bare drain: librdkafka reads the topic and nothing is decoded. No program can be faster on this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.contestants.job import Job
from benchmarks.environments import ROOT
from benchmarks.fill import FilledTopic
from benchmarks.measure import Command
from benchmarks.rows import Rows

JOB = ROOT / "benchmarks" / "jobs" / "raw_drain_job.py"


def command(job: Job) -> Command:
    """Return the command.

    `job`: what to read; each consumer is a process.
    """
    run = (sys.executable, "-I", str(JOB), job.bootstrap, job.topic.name, str(job.consumers))
    return Command(run, job.environment(), job.folder)


def check(log: Path, topic: FilledTopic) -> Rows:
    """Compare what was drained with what was published."""
    found = _said(log)
    if found is None:
        return Rows(0, False, "the drain did not end")
    right = (found["records"], found["bytes"]) == (topic.alerts, topic.value_bytes)
    return Rows(int(found["records"]), right, "every record and every byte counted" if right else "records are missing")


def seconds(log: Path) -> float:
    """Return what reading took, from the first connection to the last record, of a drain that has ended."""
    found = _said(log)
    assert found is not None
    return float(found["seconds"])


def _said(log: Path) -> dict[str, float] | None:
    try:
        found: dict[str, float] = json.loads(log.read_text().splitlines()[-1])
    except (IndexError, ValueError):
        return None
    return found
