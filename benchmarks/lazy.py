"""Count the alerts of each class: straight from Kafka by `read_topic`, and by a transfer whose files are then read."""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from benchmarks.environments import ROOT
from benchmarks.fill import fill_topic
from benchmarks.measure import Command, measure
from tests.alerts.made_up import AlertKind
from tests.harness.cli import environment
from tests.harness.kafka import KafkaBroker

_TOPIC = "ftransfer_ztf_2026-02-24_1"
_JOB = ROOT / "benchmarks" / "jobs" / "classes_job.py"
_LIMIT_S = 900.0


@click.command()
@click.option("--alerts", default=1_000_000, show_default=True, help="Light ZTF alerts.")
@click.option("--runs", default=3, show_default=True, help="How often each way is measured, by turns.")
@click.option("--workers", default=2, show_default=True, help="Processes, of one thread each.")
def main(alerts: int, runs: int, workers: int) -> None:
    """Fill a topic, count by turns in both ways, and print a line of JSON for each run and the ratio of the medians."""
    with tempfile.TemporaryDirectory(prefix="fink-dask-lazy-") as folder:
        broker = KafkaBroker(Path(folder) / "kafka", {})
        try:
            broker.start()
            fill_topic(broker.bootstrap_servers, _TOPIC, AlertKind.ZTF_LIGHT, alerts, 0)
            found: dict[str, list[dict[str, Any]]] = {"stored": [], "lazy": []}
            _run("lazy", broker, Path(folder), workers)  # what is compiled once is not measured
            for _ in range(runs):
                for how, each in found.items():
                    each.append(_run(how, broker, Path(folder), workers))
                    shown = {name: value for name, value in each[-1].items() if name != "counts"}
                    click.echo(json.dumps({"way": how, **shown}))
        finally:
            broker.discard()
    counts = [run["counts"] for each in found.values() for run in each]
    if any(other != counts[0] for other in counts) or sum(counts[0].values()) > alerts:
        sys.exit(f"the ways have counted differently: {counts}")
    stored, lazy = (statistics.median(run["seconds"] for run in each) for each in found.values())
    click.echo(json.dumps({"lazy of stored": round(lazy / stored, 3), "classes": len(counts[0])}))


def _run(how: str, broker: KafkaBroker, folder: Path, workers: int) -> dict[str, Any]:
    log, outdir = folder / "log", folder / "turn" / "alerts"
    outdir.parent.mkdir()
    arguments = (sys.executable, str(_JOB), how, broker.bootstrap_servers, _TOPIC, str(outdir), str(workers))
    measured = measure(Command(arguments, environment(), ROOT), log, _LIMIT_S)
    if measured.status:
        sys.exit(f"{how}: {log.read_text()}")
    answer: dict[str, Any] = json.loads(log.read_text().splitlines()[-1])
    shutil.rmtree(outdir.parent)
    return answer | {"cpu_s": round(measured.cpu_s, 1)}


if __name__ == "__main__":
    main()
