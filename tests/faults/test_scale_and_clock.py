"""Rows 17, 18 and 20: large alerts with little memory, any number of consumers and batch size, clocks that jump."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from tests.alerts.made_up import AlertKind
from tests.harness.cli import PROGRAM, environment, run_cli, transfer_arguments
from tests.harness.oracle import Oracle, assert_exactly_once, assert_values_equal, fill_topic
from tests.harness.producer import produce, publish_schema
from tests.harness.topics import create_topic
from tests.harness.weigh import run_and_weigh

#: As large as LSST's largest: three cutouts, and a light curve.
ALERT_BYTES = 231_000
LIMIT = 1_000_000_000


def fill_with_large_alerts(kafka: Any, topic: str, count: int) -> list[tuple[int, int]]:
    schema = {
        "type": "record",
        "name": "alert",
        "fields": [
            {"name": "number", "type": "long"},
            *[{"name": f"cutout{index}", "type": "bytes"} for index in range(3)],
            {"name": "curve", "type": {"type": "array", "items": "double"}},
        ],
    }
    create_topic(kafka.bootstrap_servers, topic, 16)
    publish_schema(kafka.bootstrap_servers, topic, json.dumps(schema))
    parsed, random = fastavro.parse_schema(schema), np.random.default_rng(1)
    values = []
    for number in range(count):
        stream = BytesIO()
        cutouts = {f"cutout{index}": random.bytes((ALERT_BYTES - 9000) // 3) for index in range(3)}
        fastavro.schemaless_writer(stream, parsed, {"number": number, "curve": random.random(1100).tolist(), **cutouts})
        values.append(stream.getvalue())
    return [(record.partition, record.offset) for record in produce(kafka.bootstrap_servers, topic, values)]


@pytest.mark.parametrize("count", [500, pytest.param(4000, marks=pytest.mark.faults)])
def test_17_large_alerts_and_many_consumers_stay_below_the_memory_that_was_given(
    kafka: Any, topic_name: str, tmp_path: Path, count: int
) -> None:
    sent = fill_with_large_alerts(kafka, topic_name, count)
    options = ("-nconsumers", "16", "--memory-limit", str(LIMIT))
    arguments = transfer_arguments(kafka, topic_name, tmp_path / "alerts", *options)
    weighed = run_and_weigh([*PROGRAM, *arguments], environment())
    assert weighed.status == 0, weighed.err
    assert "died" not in weighed.err
    assert weighed.most_bytes < LIMIT
    assert_exactly_once(tmp_path / "alerts", sent)


@pytest.fixture(scope="module")
def oracle(kafka: Any, topic: str) -> Oracle:
    return fill_topic(kafka.bootstrap_servers, topic, AlertKind.ZTF_LIGHT, 3000, partitions=6)


@pytest.mark.parametrize(
    ("nconsumers", "batchsize"),
    [
        (32, 1),
        pytest.param(1, 1_000_000, marks=pytest.mark.faults),
        pytest.param(32, 1_000_000, marks=pytest.mark.faults),
        pytest.param(3, 7, marks=pytest.mark.faults),
    ],
)
def test_18_any_number_of_consumers_and_any_batch_size_make_the_same_dataset(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path, nconsumers: int, batchsize: int
) -> None:
    options = ("-partitionby", "time", "-nconsumers", str(nconsumers), "-batchsize", str(batchsize))
    result = run_cli(*transfer_arguments(kafka, topic, tmp_path / "alerts", *options))
    assert result.returncode == 0, result.stderr
    assert_exactly_once(tmp_path / "alerts", oracle.values)


def _contents(folder: Path) -> dict[str, bytes]:
    """Read files by their names, without the plan's in both: it says how large alerts seem in the time there is."""
    found = {}
    for path in folder.rglob("*.parquet"):
        plan = pq.read_metadata(path).metadata[b"fink_dask.plan"]
        found[str(path.relative_to(folder)).replace(plan.decode(), "")] = path.read_bytes().replace(plan, b"")
    return found


FAR_AWAY = [
    {"TZ": "Pacific/Kiritimati"},
    {"TZ": "America/St_Johns", "LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8"},
    {"TZ": "Asia/Kathmandu", "LC_ALL": "C", "PYTHONUTF8": "0"},
    {"PYTHONPATH": str(Path(__file__).parents[1] / "harness" / "clock")},
]


@pytest.mark.parametrize(
    "where",
    [
        pytest.param(FAR_AWAY[0], marks=pytest.mark.faults),
        FAR_AWAY[1],
        pytest.param(FAR_AWAY[2], marks=pytest.mark.faults),
        pytest.param(FAR_AWAY[3], marks=pytest.mark.faults),
    ],
    ids=["east", "turkish", "ascii", "clock jumps"],
)
def test_20_time_zone_locale_and_a_jumping_clock_make_no_difference(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path, where: dict[str, str]
) -> None:
    arguments = ("-partitionby", "time")
    assert run_cli(*transfer_arguments(kafka, topic, tmp_path / "here", *arguments)).returncode == 0
    result = run_cli(*transfer_arguments(kafka, topic, tmp_path / "there", *arguments), env=where)
    assert result.returncode == 0, result.stderr
    assert _contents(tmp_path / "here") == _contents(tmp_path / "there")
    table = ds.dataset(tmp_path / "there", partitioning="hive").to_table()
    assert_values_equal(table, oracle, ("year", "month", "day"), every=50)
    assert run_cli("verify", str(tmp_path / "there"), env=where).returncode == 0
