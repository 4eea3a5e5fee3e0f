"""``python -m benchmarks.keys [NIGHTS ...]``: what partition keys cost a range, from batches to staged files."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np

from benchmarks.noise import make_pool
from fink_dask.avro.evolution import Versions
from fink_dask.avro.schema import parse_schema
from fink_dask.batches import RawBatch
from fink_dask.dataset.formats import Origin
from fink_dask.dataset.partitioning import resolve_partitioning
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.records import Identity
from fink_dask.ledger.remainder import whole_range
from fink_dask.ranges.decode import RangeDecoder
from fink_dask.ranges.staged import StagedRange
from fink_dask.settings import MIN_BATCH_BYTES
from tests.alerts.made_up import AlertKind, avro_schema
from tests.harness.ledgers import begin_attempt


def batches(kind: AlertKind, alerts: int, nights: int) -> Iterator[RawBatch]:
    """Make alerts of so many nights in turn, in batches as the reader makes them."""
    pool, rng = make_pool(kind, alerts, nights), np.random.Generator(np.random.SFC64([nights]))
    stops = np.concatenate([[0], pool.ends])
    many = max(1, int(np.searchsorted(stops, MIN_BATCH_BYTES)))
    for first in range(0, alerts, len(pool)):
        data = np.frombuffer(pool.vary(np.arange(first, first + len(pool)), rng), np.uint8)
        count = min(len(pool), alerts - first)
        for begin in range(0, count, many):
            starts = stops[begin : min(begin + many, count) + 1]
            offsets = np.arange(first + begin, first + begin + len(starts) - 1)
            part = data[starts[0] : starts[-1]]
            yield RawBatch(offsets, np.full(len(offsets), -1), part, starts - starts[0], None, [None] * len(offsets))


def measure(kind: AlertKind, alerts: int, nights: int) -> tuple[float, int, int]:
    """Return the processor seconds of a range, and the number and bytes of its files."""
    schema, survey = parse_schema(json.dumps(avro_schema(kind))), kind.value.partition("-")[0]
    identity = Identity("topic", "id", ("time",), survey, schema.fingerprint, "file")
    decoder = RangeDecoder(Versions((schema,)), identity, resolve_partitioning(("time",), survey, schema.arrow), 0)
    whole, seconds = OffsetRange(0, 0, alerts), 0.0
    with tempfile.TemporaryDirectory(prefix="fink-dask-keys-") as folder:
        attempt = begin_attempt(Path(folder) / "alerts", Origin("topic", "id", whole, "0123abcd"))
        with StagedRange(attempt, identity, decoder, whole_range(whole)) as staged:
            for batch in batches(kind, alerts, nights):
                began = time.process_time()
                staged.add(batch)
                seconds += time.process_time() - began
            began = time.process_time()
            staged.complete()
            files, _ = staged.stage()
            seconds += time.process_time() - began
        return seconds, len(files), sum(file.size for file in files)


@click.command()
@click.argument("nights", nargs=-1, type=int)
@click.option("--kind", type=click.Choice([str(kind) for kind in AlertKind]), default=str(AlertKind.ZTF_LIGHT))
@click.option("--alerts", default=200_000, show_default=True)
@click.option("--runs", default=3, show_default=True, help="How often each is measured, by turns.")
def main(nights: tuple[int, ...], kind: str, alerts: int, runs: int) -> None:
    """Print a table of Markdown."""
    nights = nights or (1, 3, 200)
    measure(AlertKind(kind), min(alerts, 1000), 3)  # what is compiled once is not measured
    found = [[measure(AlertKind(kind), alerts, each) for each in nights] for _ in range(runs)]
    click.echo("| nights | processor seconds | files | MB |\n| --- | --- | --- | --- |")
    for number, each in enumerate(nights):
        (_, files, size), seconds = found[0][number], [run[number][0] for run in found]
        click.echo(f"| {each:,} | {statistics.median(seconds):.2f} | {files:,} | {size / 1e6:.0f} |")


if __name__ == "__main__":
    main()
