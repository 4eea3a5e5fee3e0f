"""What a command costs before it does anything: ``python -m benchmarks.start``.

Processor seconds and seconds, from the start of the process to its exit, of the libraries that a transfer imports, of a
transfer of 400 light alerts in ten partitions, and of what a shell or a wrong word has the program say. They run by
turns, so that another load meets all of them; the first run of each, which compiles, is not measured.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from benchmarks.fill import fill_topic
from tests.alerts.made_up import AlertKind
from tests.harness.cli import PROGRAM, environment, transfer_arguments
from tests.harness.kafka import KafkaBroker

_TOPIC = "ftransfer_ztf_2026-11-01_1"
_LIBRARIES = "import distributed, pyarrow.parquet, confluent_kafka"
_TAB = {"_FINK_DASK_COMPLETE": "bash_complete", "COMP_WORDS": "fink-dask transfer --part", "COMP_CWORD": "2"}


@click.command()
@click.option("--alerts", type=click.IntRange(1), default=400, show_default=True, help="Light alerts in the topic.")
@click.option("--runs", type=click.IntRange(1), default=10, show_default=True, help="Measurements a median.")
def main(alerts: int, runs: int) -> None:
    """Run them by turns; prints a line of JSON for each, with its processor seconds over those of the libraries."""
    with tempfile.TemporaryDirectory(prefix="fink-dask-start-") as scratch:
        folder = Path(scratch)
        broker = KafkaBroker(folder / "kafka", {})
        try:
            broker.start()
            fill_topic(broker.bootstrap_servers, _TOPIC, AlertKind.ZTF_LIGHT, alerts, 0)
            transfer = transfer_arguments(broker, _TOPIC, folder / "alerts", "-partitionby", "time")
            commands: dict[str, tuple[list[str], dict[str, str]]] = {
                "the libraries alone": ([sys.executable, "-c", _LIBRARIES], {}),
                f"transfer of {alerts} alerts": ([*PROGRAM, *transfer], {}),
                "--help": ([*PROGRAM, "--help"], {}),
                "transfer --help": ([*PROGRAM, "transfer", "--help"], {}),
                "a wrong option": ([*PROGRAM, "transfer", "--nonsense"], {}),
                "Tab in a shell": (PROGRAM, _TAB),
            }
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
            for _ in range(runs + 1):
                for name, (arguments, variables) in commands.items():
                    found[name].append(_measure(arguments, variables, folder))
        finally:
            broker.discard()
    base = statistics.median(cpu for cpu, _ in found["the libraries alone"][1:])
    for name, measured in found.items():
        cpu_s, wall_s = zip(*measured[1:], strict=True)
        median = statistics.median(cpu_s)
        spread = {"cpu_min": round(min(cpu_s), 3), "cpu_max": round(max(cpu_s), 3)}
        click.echo(
            json.dumps(
                {
                    "what": name,
                    "cpu_s": round(median, 3),
                    **spread,
                    "wall_s": round(statistics.median(wall_s), 3),
                    "times_the_libraries": round(median / base, 2),
                }
            )
        )


def _measure(arguments: list[str], variables: dict[str, str], folder: Path) -> tuple[float, float]:
    """Run a command to its end; return its processor seconds and seconds."""
    for left in ("alerts", "alerts.fink"):
        shutil.rmtree(folder / left, ignore_errors=True)
    # As an installed program: where Python may write no bytecode, it compiles all modules at each start.
    env = {name: value for name, value in environment(variables).items() if name != "PYTHONDONTWRITEBYTECODE"}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(arguments, env=env, cwd=os.sep, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    wall_s, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall_s


if __name__ == "__main__":
    main()
