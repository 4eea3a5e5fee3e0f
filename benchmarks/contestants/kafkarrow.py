"""kafkarrow, another reader that makes Arrow columns of a topic's records."""

from __future__ import annotations

from benchmarks.contestants.job import Job
from benchmarks.environments import ROOT, python_of
from benchmarks.measure import Command

JOB = ROOT / "benchmarks" / "jobs" / "kafkarrow_job.py"


def command(job: Job) -> Command:
    """Return the command; it is one process, whatever the number of consumers."""
    run = (python_of(job.environments.kafkarrow), "-I", str(JOB), job.bootstrap, job.topic.name, str(job.topic.alerts))
    return Command(run, job.environment(), job.folder)
