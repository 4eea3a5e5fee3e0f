"""Flink on the cores of this machine, in one process of Java, with its own connectors for Kafka, Avro and Parquet."""

from __future__ import annotations

from benchmarks.contestants.job import Job
from benchmarks.environments import ROOT, python_of
from benchmarks.measure import Command

#: HEAP, SORTING: of Java, and beside it what Flink sorts in.
HEAP, SORTING = "4g", "3g"
JOB = ROOT / "benchmarks" / "jobs" / "flink_job.py"


def command(job: Job) -> Command:
    """Write the schema beside the dataset, and return the command."""
    run = (python_of(job.environments.flink), "-I", str(JOB), *job.describe(), SORTING)
    # Java is started while pyflink is imported, before a job could name its jars.
    settings = {
        "JVM_ARGS": f"-Xmx{HEAP} -Djava.io.tmpdir={job.folder}",
        "HADOOP_CLASSPATH": ":".join(str(jar) for jar in job.environments.flink_jars),
        "FLINK_LOG_DIR": str(job.folder),
    }
    return Command(run, job.environment(settings), job.folder)
