"""``python -m benchmarks.catalog``: a HATS catalog that grows and is killed each night, beside one made at once."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
from numpy.random import Generator, default_rng

from benchmarks.environments import CACHE
from benchmarks.errors import BenchmarkError
from tests.alerts.made_up import AlertKind, avro_schema, made_up_alerts
from tests.harness.catalogs import same_rows
from tests.harness.cli import PROGRAM, environment
from tests.harness.nights import add_night, arrow_schema

#: Alerts of an object, on average, after all nights.
_ALERTS_OF_AN_OBJECT = 4
_FIRST_CANDID = 3_341_000_000_000_000_001


def make_night(number: int, alerts: int, objects: int, width_deg: float, noise: Generator) -> pa.Table:
    """Make the light ZTF alerts of a night, each of an object in a part of the sky; the next night sees the next part.

    `alerts, objects`: how many it has, and how many objects there are on the whole sky.
    `width_deg`: the right ascensions that a night sees.
    """
    schema = avro_schema(AlertKind.ZTF_LIGHT)
    model = pa.Table.from_pylist(list(made_up_alerts(AlertKind.ZTF_LIGHT, 512)), arrow_schema(schema))
    table = model.take(pa.array(noise.integers(0, model.num_rows, alerts)))
    sky = default_rng(1)
    ra, dec = sky.uniform(0, 360, objects), np.degrees(np.arcsin(sky.uniform(-0.5, 1, objects)))
    seen = np.flatnonzero((ra - number * width_deg) % 360 < width_deg)
    which = noise.choice(seen, alerts)
    new = {
        "objectId": pa.array([f"ZTF26{each:07d}" for each in which.tolist()]),
        "candid": pa.array(_FIRST_CANDID + 2 * (number * alerts + np.arange(alerts))),
        "jd": pa.array(2461000.7 + number + noise.uniform(0, 0.3, alerts)),
        "ra": pa.array(ra[which] + noise.normal(0, 3e-5, alerts)),
        "dec": pa.array(dec[which] + noise.normal(0, 3e-5, alerts)),
    }
    for name, values in new.items():
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), values.cast(table.schema.field(at).type))
    return table


def export(outdir: Path, catalog: Path) -> tuple[float, float]:
    """Run ``fink-dask export-hats`` to its end; returns its seconds, and those of processors."""
    began, before = time.monotonic(), _processor_s()
    done = subprocess.run(
        [*PROGRAM, "export-hats", str(outdir), str(catalog), "--json"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchmarkError(done.stderr)
    return time.monotonic() - began, _processor_s() - before


def _processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def kill_within(outdir: Path, catalog: Path, seconds: float) -> bool:
    """Run it, and kill it after so many seconds; False if it had ended."""
    process = subprocess.Popen(
        [*PROGRAM, "export-hats", str(outdir), str(catalog)],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


@click.command()
@click.option("--alerts", default=1_000_000, show_default=True, help="Alerts of all nights.")
@click.option("--nights", default=10, show_default=True, help="How many nights there are.")
@click.option("--width", default=120.0, show_default=True, help="Degrees of right ascension that a night sees.")
@click.option("--every", default=1, show_default=True, help="How many nights are added at once.")
def main(alerts: int, nights: int, width: float, every: int) -> None:
    """Grow a catalog, kill each growth once, compare with one made at once, and print a table of Markdown."""
    root = CACHE / "catalog"
    shutil.rmtree(root, ignore_errors=True)
    season, grown, once = root / "season", root / "grown", root / "once"
    season.mkdir(parents=True)
    noise = default_rng(2)
    objects = alerts // _ALERTS_OF_AN_OBJECT
    click.echo("| night | alerts in the catalog | s | processor s | killed after, s |\n| --- | --- | --- | --- | --- |")
    last = 3.0
    try:
        for night in range(nights):
            outdir = season / f"ftransfer_ztf_2026-02-{night + 1:02d}_{night}"
            add_night(
                outdir, avro_schema(AlertKind.ZTF_LIGHT), make_night(night, alerts // nights, objects, width, noise)
            )
            if (night + 1) % every and night + 1 < nights:
                continue
            after = noise.uniform(0.3, 0.9) * last
            was_killed = kill_within(season, grown, after)
            last, used = export(season, grown)
            when = f"{after:.1f}" if was_killed else "not: it had ended"
            click.echo(f"| {night + 1} | {(night + 1) * (alerts // nights):,} | {last:.1f} | {used:.1f} | {when} |")
        last, used = export(season, once)
    except BenchmarkError as error:
        sys.exit(f"benchmarks: error: {error}")
    click.echo(f"| all at once | {alerts:,} | {last:.1f} | {used:.1f} | |")
    if not same_rows(grown, once):
        sys.exit(f"benchmarks: error: {grown} and {once} differ")
    click.echo("\nBoth catalogs are the same, file by file.")
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
