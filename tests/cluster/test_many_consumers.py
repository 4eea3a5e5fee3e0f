"""More consumers than cores are more ranges at once and the same dataset, and no more processes than cores."""

from __future__ import annotations

import json
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow.dataset as ds
import pytest

from fink_dask.cluster.local import usable_cores
from tests.alerts.made_up import AlertKind
from tests.harness.cli import PROGRAM, environment, transfer_arguments
from tests.harness.oracle import Oracle, assert_exactly_once, assert_values_equal, fill_topic

COUNT = 12_000
PARTITIONS = 12


@pytest.fixture(scope="module")
def oracle(kafka: Any, topic: str) -> Oracle:
    return fill_topic(kafka.bootstrap_servers, topic, AlertKind.ZTF_LIGHT, COUNT, partitions=PARTITIONS)


def workers_of(process: subprocess.Popen[str]) -> set[int]:
    """Find the workers of a transfer: children of the process that they are forked from, or spawned on macOS."""
    found = set()
    # What has just ended has no parent and no command line.
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess, AttributeError):
        for child in psutil.Process(process.pid).children(recursive=True):
            lines = [" ".join(relative.cmdline()) for relative in (child.parent(), child)]
            if "multiprocessing.forkserver" in lines[0] or "multiprocessing.spawn" in lines[1]:
                found.add(child.pid)
    return found


@pytest.mark.parametrize(
    "nconsumers", [pytest.param(1, marks=pytest.mark.commands), 8, pytest.param(32, marks=pytest.mark.commands)]
)
def test_any_number_of_consumers_makes_the_same_dataset_with_no_more_workers_than_cores(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path, nconsumers: int
) -> None:
    outdir = tmp_path / "out"
    arguments = transfer_arguments(kafka, topic, outdir, "-nconsumers", str(nconsumers), "--json")
    process = subprocess.Popen(
        [*PROGRAM, *arguments, "-partitionby", "time"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    most = 0
    while process.poll() is None:
        most = max(most, len(workers_of(process)))
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert 1 <= most <= min(nconsumers, usable_cores())
    summary = json.loads(out)
    assert (summary["state"], summary["alerts"], summary["quarantined"]) == ("complete", COUNT, 0)
    assert_exactly_once(outdir, oracle.values)
    table = ds.dataset(outdir, partitioning="hive").to_table()
    assert_values_equal(table, oracle, ("year", "month", "day"), every=29)
