"""Take a part of a topic only: what some columns, or the alerts of a condition, cost beside everything."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from benchmarks.contestants.raw_drain import JOB
from benchmarks.environments import ROOT
from benchmarks.fill import fill_topic
from benchmarks.machine import usable_cores
from benchmarks.measure import Command, measure
from tests.alerts.made_up import AlertKind
from tests.harness.cli import PROGRAM, environment, transfer_arguments
from tests.harness.kafka import KafkaBroker

_TOPIC = "ftransfer_ztf_2026-02-24_1"
_COLUMNS = ("--columns", "objectId,candidate.jd,candidate.magpsf")
#: Of the alerts of the benchmark about one in a hundred.
_WHERE = ("--where", "candidate.rb > 0.99")
#: The options of each case; the bare drain has none.
CASES: dict[str, tuple[str, ...] | None] = {
    "everything": (),
    "columns": _COLUMNS,
    "where": _WHERE,
    "columns and where": (*_COLUMNS, *_WHERE),
    "raw drain": None,
}
_LIMIT_S = 900.0


@click.command()
@click.option("--alerts", default=31_000, show_default=True, help="Full ZTF packets.")
@click.option("--runs", default=3, show_default=True, help="How often each case is measured, by turns.")
def main(alerts: int, runs: int) -> None:
    """Fill a topic, measure each case by turns, and print a line of JSON for each run and each case's median."""
    with tempfile.TemporaryDirectory(prefix="fink-dask-select-") as folder:
        broker = KafkaBroker(Path(folder) / "kafka", {})
        try:
            broker.start()
            topic = fill_topic(broker.bootstrap_servers, _TOPIC, AlertKind.ZTF_FULL, alerts, 0)
            click.echo(json.dumps({"alerts": alerts, "bytes": topic.value_bytes, "cores": usable_cores()}))
            _run("everything", broker, Path(folder), alerts)  # what is compiled once, and read once, is not measured
            found: dict[str, list[dict[str, Any]]] = {name: [] for name in CASES}
            for _ in range(runs):
                for name in CASES:
                    found[name].append(_run(name, broker, Path(folder), alerts))
                    click.echo(json.dumps({"case": name, **found[name][-1]}))
        finally:
            broker.discard()
    medians = {name: statistics.median(run["seconds"] for run in each) for name, each in found.items()}
    for name, seconds in medians.items():
        share = round(seconds / medians["everything"], 3)
        click.echo(json.dumps({"median of": name, "seconds": seconds, "of everything": share}))


def _run(name: str, broker: KafkaBroker, folder: Path, alerts: int) -> dict[str, Any]:
    """Measure one case, and make sure that it has done what it should."""
    options, log, outdir = CASES[name], folder / "log", folder / "turn" / "alerts"
    outdir.parent.mkdir()
    arguments: tuple[str, ...]
    cores = str(usable_cores())
    if options is None:
        arguments = (sys.executable, "-I", str(JOB), broker.bootstrap_servers, _TOPIC, cores)
    else:
        common = ("-partitionby", "time", "-nconsumers", cores, "-batchsize", "1000", "--json", "--profile")
        arguments = (*PROGRAM, *transfer_arguments(broker, _TOPIC, outdir, *common, *options))
    os.sync()  # what the run before has left to write is not this one's
    measured = measure(Command(arguments, environment(), ROOT), log, _LIMIT_S)
    if measured.status:
        sys.exit(f"{name}: {log.read_text()}")
    answer = json.loads(log.read_text().splitlines()[-1])
    result: dict[str, Any] = {"seconds": round(measured.seconds, 2), "cpu_s": round(measured.cpu_s, 1)}
    if options is not None:
        if answer["alerts"] + answer["filtered"] != alerts:
            sys.exit(f"{name}: {answer['alerts']:,} alerts and {answer['filtered']:,} filtered of {alerts:,}")
        subprocess.run([*PROGRAM, "verify", str(outdir)], env=environment(), capture_output=True, check=True)
        stages = {stage: round(seconds, 2) for stage, seconds in answer["profile"]["stage_seconds"].items()}
        result |= {"kept": answer["alerts"], "dataset_bytes": answer["written_bytes"], "stages": stages}
    shutil.rmtree(outdir.parent)
    return result


if __name__ == "__main__":
    main()
