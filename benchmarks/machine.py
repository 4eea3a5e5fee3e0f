"""The machine and the versions, in words that tell a reader what to expect and name no host."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

import confluent_kafka

from benchmarks.contestants.before import BEFORE_COMMIT
from benchmarks.environments import FINK_CLIENT, FLINK, FLINK_KAFKA, KAFKARROW, ROOT, SPARK, Environments, installed
from tests.harness.kafka_install import KAFKA_VERSION, find_java


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def describe_machine() -> dict[str, str]:
    """Describe processor, memory and operating system.

    Returns: words by name.
    """
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": model[1] if model else platform.machine(),
        "cores": str(usable_cores()),
        "memory": f"{memory / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
    }


def describe_versions(environments: Environments) -> dict[str, str]:
    """List the versions of everything that takes part.

    Returns: versions by name.
    """
    java = find_java()
    said = subprocess.run([java or "java", "-version"], capture_output=True, text=True, check=False).stderr
    mine = ", ".join(f"{name} {metadata.version(name)}" for name in ("dask", "pyarrow", "numba", "confluent-kafka"))
    theirs = installed(environments.fink_client, ["fastavro", "pyarrow", "confluent-kafka", "astropy"])
    return {
        "fink-dask": f"{metadata.version('fink-dask')}, commit {commit()}, with {mine}",
        "fink-client": f"{FINK_CLIENT}, with " + ", ".join(f"{name} {version}" for name, version in theirs.items()),
        "Spark": f"{SPARK}, with its connectors for Kafka and Avro {SPARK}",
        "Flink": f"{FLINK}, with its connector for Kafka {FLINK_KAFKA}, and for Avro and Parquet {FLINK}",
        "before": f"commit {BEFORE_COMMIT}, with the same libraries",
        "kafkarrow": KAFKARROW,
        "Kafka": KAFKA_VERSION,
        "librdkafka": confluent_kafka.libversion()[0],
        "Java": said.splitlines()[1].strip() if said.count("\n") > 1 else said.strip(),
        "Python": platform.python_version(),
    }


def commit() -> str:
    """Name the commit of the checkout, and whether the package differs from it."""
    git = ["git", "-C", str(ROOT)]
    named = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run(
        [*git, "status", "--porcelain", "--", "fink_dask"], capture_output=True, text=True, check=False
    )
    return (named.stdout.strip() or "unknown") + (" with changes" if changed.stdout.strip() else "")
