"""What more workers make of a topic of one partition: ``python -m benchmarks.workers``.

Kafka, a Dask scheduler and its workers, each a process with one thread, run on this machine; the transfer is a command
of its own, from its start to its exit. Workers are there before it starts, and have decoded something before.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from benchmarks.fill import FilledTopic, fill_topic
from benchmarks.machine import usable_cores
from benchmarks.rows import check_dataset
from tests.alerts.made_up import AlertKind
from tests.harness.cli import PROGRAM, environment, transfer_arguments
from tests.harness.dask import answers
from tests.harness.kafka import KafkaBroker
from tests.harness.kafka_settings import HOST, free_ports
from tests.harness.oracle import wait_for

_REHEARSAL_ALERTS = 2000


@click.command()
@click.option(
    "--alerts", type=click.IntRange(1), default=1_000_000, show_default=True, help="Light alerts in the topic."
)
@click.option("--runs", type=click.IntRange(1), default=3, show_default=True, help="Measurements a median.")
@click.option(
    "--workers", type=click.IntRange(1), multiple=True, default=(1, 2, 4), show_default=True, help="How many."
)
def main(alerts: int, runs: int, workers: tuple[int, ...]) -> None:
    """Transfer a topic of one partition with different numbers of workers, by turns; prints a line of JSON for each."""
    with tempfile.TemporaryDirectory(prefix="fink-dask-workers-") as scratch:
        folder = Path(scratch)
        broker = KafkaBroker(folder / "kafka", {})
        try:
            broker.start()
            address, names = broker.bootstrap_servers, ("ftransfer_ztf_2026-11-01_1", "ftransfer_ztf_2026-11-01_2")
            first = fill_topic(
                address, names[0], AlertKind.ZTF_LIGHT, _REHEARSAL_ALERTS, 0, partitions=4 * max(workers)
            )
            topic = fill_topic(address, names[1], AlertKind.ZTF_LIGHT, alerts, _REHEARSAL_ALERTS, partitions=1)
            seconds: dict[int, list[float]] = {count: [] for count in workers}
            for _ in range(runs):
                for count in workers:
                    seconds[count].append(_measure(broker, count, first, topic, folder))
        finally:
            broker.discard()
    single = statistics.median(seconds[workers[0]])
    for count, each in seconds.items():
        middle = statistics.median(each)
        answer = {
            "workers": count,
            "seconds": [round(value, 1) for value in sorted(each)],
            "median": round(middle, 1),
            "times as fast": round(single / middle, 2),
            "cores": usable_cores(),
        }
        click.echo(json.dumps(answer))


def _measure(broker: KafkaBroker, count: int, first: FilledTopic, topic: FilledTopic, folder: Path) -> float:
    with _cluster(count, folder) as scheduler:
        _transfer(broker, first, scheduler, count)
        return _transfer(broker, topic, scheduler, count)


def _transfer(broker: KafkaBroker, topic: FilledTopic, scheduler: str, count: int) -> float:
    """Transfer a topic with a command, and see that everything has arrived; returns its seconds."""
    with tempfile.TemporaryDirectory(prefix="fink-dask-workers-") as scratch:
        outdir = Path(scratch) / "alerts"
        options = ("-partitionby", "time", "-nconsumers", str(count), "--scheduler", scheduler)
        arguments = transfer_arguments(broker, topic.name, outdir, *options)
        began = time.perf_counter()
        done = subprocess.run([*PROGRAM, *arguments], env=environment(), capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - began
        if done.returncode != 0:
            sys.exit(done.stderr)
        rows = check_dataset(outdir, topic)
        if not rows.right:
            sys.exit(rows.checked)
    return seconds


@contextmanager
def _cluster(count: int, folder: Path) -> Iterator[str]:
    """Run a scheduler and workers of one thread each; yields the scheduler's address."""
    (port,) = free_ports(1)
    address = f"tcp://{HOST}:{port}"
    commands: list[Sequence[str]] = [["dask_scheduler", "--host", HOST, "--port", str(port)]]
    worker = ["dask_worker", address, "--nthreads", "1", "--local-directory", str(folder / "dask")]
    commands += [worker] * count
    started = [
        subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{name}", *more, "--no-dashboard"],
            stderr=subprocess.DEVNULL,
            env=environment(),
        )
        for name, *more in commands
    ]
    try:
        wait_for(lambda: answers(address, count), "the workers")
        yield address
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(60)


if __name__ == "__main__":
    main()
