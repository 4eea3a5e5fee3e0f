"""Spark on the cores of this machine, with its own connectors for Kafka and Avro."""

from __future__ import annotations

import json

from benchmarks.contestants.job import Job
from benchmarks.environments import ROOT, python_of
from benchmarks.measure import Command
from tests.alerts.made_up import avro_schema

DRIVER_MEMORY = "10g"
JOB = ROOT / "benchmarks" / "jobs" / "spark_job.py"


def command(job: Job) -> Command:
    """Write the schema beside the dataset, and return the command."""
    schema = job.folder / "schema.json"
    schema.write_text(json.dumps(avro_schema(job.topic.kind)))
    jars = ",".join(str(jar) for jar in job.environments.spark_jars)
    arguments = [job.bootstrap, job.topic.name, job.topic.survey, str(schema), str(job.outdir)]
    run = (python_of(job.environments.spark), "-I", str(JOB), *arguments, str(job.consumers), DRIVER_MEMORY, jars)
    return Command(run, job.environment({"SPARK_LOCAL_DIRS": str(job.folder / "spark")}), job.folder)
