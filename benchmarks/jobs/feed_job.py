"""Publish full LSST packets, as fast as wanted, and never further ahead than is bearable; note which is where."""

from __future__ import annotations

import re
import time
from pathlib import Path

import click
import numpy as np
from confluent_kafka import KafkaError, Message, Producer

from benchmarks.fill import PARTITIONS, producer_config
from benchmarks.noise import Pool, alert_ids, make_pool
from tests.alerts.made_up import AlertKind

#: Marker of a range that is not a later revision of it.
_MARKER = re.compile(r"[0-9]+-([0-9]+)-([0-9]+)\.json")
_PAUSE_S = 0.05
#: More than there are of any kind.
_POOL = 4096
_FLUSH_S = 300.0


def night_pool() -> Pool:
    """Make the alerts that are varied: those of one night."""
    return make_pool(AlertKind.LSST_FULL, _POOL, nights=1)


def committed_offsets(markers: Path) -> int:
    """Add up the ranges that are committed, by the names of their markers."""
    try:
        found = filter(None, map(_MARKER.fullmatch, (path.name for path in markers.iterdir())))
        return sum(int(match[2]) - int(match[1]) for match in found)
    except FileNotFoundError:
        return 0


@click.command()
@click.argument("bootstrap")
@click.argument("topic")
@click.argument("alerts", type=int)
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("markers", type=click.Path(path_type=Path))
@click.option("--rate", type=float, required=True, help="Bytes a second; 0 for as many as can be.")
@click.option("--ahead", type=int, required=True, help="The most bytes that were published and are not committed.")
def main(bootstrap: str, topic: str, alerts: int, folder: Path, markers: Path, rate: float, ahead: int) -> None:
    """Publish ALERTS to TOPIC, or fewer if a file `stop` comes to FOLDER, which gets what was published where.

    MARKERS are those of whoever follows the topic.
    """
    failures: list[str] = []

    def note(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(error.str())

    producer = Producer(producer_config(bootstrap) | {"on_delivery": note, "queue.buffering.max.kbytes": 64 * 1024})
    pool = night_pool()
    rng = np.random.Generator(np.random.SFC64(alerts))
    starts, ends = [0, *pool.ends[:-1].tolist()], pool.ends.tolist()
    mean_bytes = ends[-1] / len(pool)
    chosen = rng.integers(0, PARTITIONS, alerts).astype(np.int8)
    began, waited = time.monotonic(), 0.0
    published = 0
    for first in range(0, alerts, len(pool)):
        if (folder / "stop").exists():
            break
        count = min(len(pool), alerts - first)
        varied = pool.vary(np.arange(first, first + len(pool)), rng)
        while rate and first * mean_bytes > rate * (time.monotonic() - began):
            producer.poll(_PAUSE_S)
        full = time.monotonic()
        while (first + count - committed_offsets(markers)) * mean_bytes > ahead and not (folder / "stop").exists():
            producer.poll(_PAUSE_S)
        waited += time.monotonic() - full
        for index in range(count):
            value = varied[starts[index] : ends[index]]
            while True:
                try:
                    producer.produce(topic, value, partition=int(chosen[first + index]))
                    break
                except BufferError:
                    producer.poll(_PAUSE_S)
        producer.poll(0)
        published = first + count
        _note(folder / "published", f"{published} {round(published * mean_bytes)} {round(1000 * waited)}")
    left = producer.flush(_FLUSH_S)
    if left or failures:
        raise SystemExit(f"{left} alerts were not acknowledged: {failures[:1]}")
    # One producer that repeats nothing: a partition has its alerts in the order in which they were handed over.
    ids, chosen = alert_ids("lsst", np.arange(published)), chosen[:published]
    np.savez(folder / "expected", **{str(number): ids[chosen == number] for number in range(PARTITIONS)})


def _note(path: Path, text: str) -> None:
    aside = path.with_suffix(".part")
    aside.write_text(text)
    aside.replace(path)


if __name__ == "__main__":
    main()
