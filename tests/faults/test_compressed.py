"""Row 31: topics that are compressed, and batches that are two hundred times as large when they are opened."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import pyarrow.dataset as ds
import pytest

from tests.alerts.made_up import AlertKind
from tests.harness.cli import PROGRAM, environment, run_cli, transfer_arguments
from tests.harness.oracle import assert_exactly_once, assert_values_equal, fill_topic
from tests.harness.producer import produce, publish_schema
from tests.harness.topics import create_topic
from tests.harness.weigh import run_and_weigh

pytestmark = pytest.mark.links
LIMIT = 1_000_000_000
#: Of an alert with so many equal bytes, and of so many alerts in a batch.
EQUAL_BYTES, IN_A_BATCH = 100_000, 600
PARTITIONS = 4
COUNT = 3 * PARTITIONS * IN_A_BATCH
SCHEMA = {
    "type": "record",
    "name": "alert",
    "fields": [{"name": "number", "type": "long"}, {"name": "cutout", "type": "bytes"}],
}
PARSED = fastavro.parse_schema(SCHEMA)


@pytest.mark.parametrize("codec", [pytest.param("zstd", marks=pytest.mark.sample), "gzip", "snappy", "lz4"])
def test_31_alerts_of_a_compressed_topic_arrive_as_they_were(
    kafka: Any, topic_name: str, tmp_path: Path, codec: str
) -> None:
    options = {"compression.type": codec}
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 2000, partitions=3, options=options)
    result = run_cli(*transfer_arguments(kafka, topic_name, tmp_path / "alerts"))
    assert result.returncode == 0, result.stderr
    assert_exactly_once(tmp_path / "alerts", oracle.values)
    assert_values_equal(ds.dataset(tmp_path / "alerts").to_table(), oracle, every=50)


@pytest.mark.parametrize("codec", ["gzip", "lz4", "zstd"])
def test_31_batches_that_expand_two_hundred_times_stay_below_the_memory_that_was_given(
    kafka: Any, topic_name: str, tmp_path: Path, codec: str
) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, PARTITIONS)
    publish_schema(kafka.bootstrap_servers, topic_name, json.dumps(SCHEMA))
    options = {
        "compression.type": codec,
        "linger.ms": 30_000,
        "batch.size": 2**30,
        "batch.num.messages": IN_A_BATCH,
        "queue.buffering.max.kbytes": 2**20,
        "message.max.bytes": 10**9,
    }
    sent = produce(kafka.bootstrap_servers, topic_name, map(encoded, range(COUNT)), options=options)
    arguments = transfer_arguments(
        kafka, topic_name, tmp_path / "alerts", "-nconsumers", "4", "--memory-limit", str(LIMIT)
    )
    weighed = run_and_weigh([*PROGRAM, *arguments], environment())
    assert weighed.status == 0, weighed.err
    assert weighed.most_bytes < LIMIT
    assert_exactly_once(tmp_path / "alerts", [(record.partition, record.offset) for record in sent])
    numbers = []
    for batch in ds.dataset(tmp_path / "alerts").to_batches(columns=["number", "cutout"], batch_size=500):
        for row in batch.to_pylist():
            assert row["cutout"] == cutout(row["number"])
            numbers.append(row["number"])
    assert sorted(numbers) == [*range(COUNT)]


def cutout(number: int) -> bytes:
    return bytes([number % 251]) * EQUAL_BYTES


def encoded(number: int) -> bytes:
    stream = BytesIO()
    fastavro.schemaless_writer(stream, PARSED, {"number": number, "cutout": cutout(number)})
    return stream.getvalue()
