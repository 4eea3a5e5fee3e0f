"""``python -m benchmarks.fetch``: processor time of the fetch alone, as messages and from librdkafka's queue.

A Kafka of its own is filled with light alerts, in one partition, which is read both ways by turns.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import click

from fink_dask.kafka import reader
from fink_dask.kafka.connection import open_connection
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.kafka.reader import RangeReader
from fink_dask.settings import BATCH_BYTES, BATCHSIZE, MIN_BATCH_BYTES, KafkaSettings
from tests.alerts.made_up import AlertKind, encoded_alerts
from tests.harness.kafka import KafkaBroker
from tests.harness.producer import produce
from tests.harness.topics import create_topic

_TOPIC, _FETCH_BYTES = "light", 2**21
_REPEATS = 5


def measure(settings: KafkaSettings, count: int, size_bytes: int) -> float:
    """Return the microseconds of the processor that a record takes.

    `size_bytes`: what the reader is told of how much there is, which decides the way.
    """
    with open_connection(settings, fetch_bytes=_FETCH_BYTES) as connection:
        connection.learn(_TOPIC)
        ranges = RangeReader(connection, _TOPIC, OffsetRange(0, 0, count), lambda: False, size_bytes=size_bytes)
        began = time.process_time()
        records = sum(map(len, ranges.batches(BATCHSIZE, BATCH_BYTES, MIN_BATCH_BYTES)))
        took = time.process_time() - began
    if records != count:
        raise ValueError(f"{records:,} of {count:,} records came")
    return took / count * 1e6


@click.command()
@click.option("--alerts", "count", default=200_000, show_default=True, help="How many there are to read.")
def main(count: int) -> None:
    """Print a line for each way: medians of five."""
    ways = {"as messages": 0, "from the queue": reader.QUEUE_BYTES}
    taken: dict[str, list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder, KafkaBroker(Path(folder)) as broker:
        create_topic(broker.bootstrap_servers, _TOPIC, partitions=1)
        alerts = list(encoded_alerts(AlertKind.ZTF_LIGHT, 1000))
        for start in range(0, count, len(alerts)):
            produce(broker.bootstrap_servers, _TOPIC, alerts[: count - start])
        settings = KafkaSettings(broker.bootstrap_servers)
        for repeat in range(_REPEATS + 1):
            for way, size_bytes in ways.items():
                took = measure(settings, count, size_bytes)
                if repeat:  # the first one compiles the loop, or loads it
                    taken[way].append(took)
    for way, each in taken.items():
        click.echo(f"{way}: {statistics.median(each):.2f} µs an alert ({min(each):.2f} to {max(each):.2f})")


if __name__ == "__main__":
    main()
