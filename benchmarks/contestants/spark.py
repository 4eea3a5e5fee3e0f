"""Spark on the cores of this machine, with its own connectors for Kafka and Avro."""

from __future__ import annotations

from benchmarks.contestants.job import Job
from benchmarks.environments import ROOT, python_of
from benchmarks.measure import Command

DRIVER_MEMORY = "10g"
JOB = ROOT / "benchmarks" / "jobs" / "spark_job.py"


def command(job: Job) -> Command:
    """Write the schema beside the dataset, and return the command."""
    jars = ",".join(str(jar) for jar in job.environments.spark_jars)
    run = (python_of(job.environments.spark), "-I", str(JOB), *job.describe(), DRIVER_MEMORY, jars)
    return Command(run, job.environment({"SPARK_LOCAL_DIRS": str(job.folder / "spark")}), job.folder)
