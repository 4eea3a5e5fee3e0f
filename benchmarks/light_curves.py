"""``python -m benchmarks.light_curves DATASET``: how long one light curve takes, of a season of many alerts."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import pyarrow.compute as pc

import fink_dask
from fink_dask.dataset.surveys import expression, find_fields
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.outdir import find_ledger

#: Runs of each, of which the median is told.
_RUNS = 5


def make_season(dataset: Path, outdir: Path, topics: int) -> None:
    """Make a season of copies of a dataset: every file that has an object is there so many times.

    `outdir`: the season, which is not there yet.
    """
    ledger = find_ledger(dataset.resolve())
    for number in range(topics):
        copy = Ledger(outdir / f"{ledger.outdir.name}_{number:03d}", is_of_season=True)
        for source, target in ((ledger.outdir, copy.outdir), (ledger.path, copy.path)):
            shutil.copytree(source, target)


def seconds(do: Callable[[], object]) -> float:
    """Return the median of some runs, the first one not counted."""
    do()
    found = []
    for _ in range(_RUNS):
        began = time.perf_counter()
        do()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


@click.command()
@click.argument("dataset", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--topics", default=40, show_default=True, help="Copies of the dataset, as the topics of a season.")
def main(dataset: Path, topics: int) -> None:
    """Measure fink_dask.light_curve and the command, for the object of DATASET with the most alerts."""
    opened = fink_dask.open_dataset(dataset)
    names = opened.to_table(columns={"object": expression(find_fields(opened.schema).paths["object"])})["object"]
    counts = pc.value_counts(names.filter(pc.not_equal(names.cast("string"), "0"))).to_pylist()
    name = str(max(counts, key=lambda each: each["counts"])["values"])
    with tempfile.TemporaryDirectory(dir=dataset.resolve().parent) as directory:
        outdir = Path(directory) / "season"
        make_season(dataset, outdir, topics)
        program = str(Path(sys.executable).with_name("fink-dask"))
        command = [program, "lightcurve", str(outdir), name]
        alerts = fink_dask.open_dataset(outdir).count_rows()
        click.echo(f"{alerts:,} alerts in {topics} topics; {name}")
        click.echo(f"  fink_dask.light_curve  {seconds(lambda: fink_dask.light_curve(outdir, name)):6.2f} s")
        run = seconds(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
        click.echo(f"  fink-dask lightcurve   {run:6.2f} s")


if __name__ == "__main__":
    main()
