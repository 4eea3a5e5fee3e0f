"""A topic whose fields may be of several types becomes a dataset with a member for each of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from tests.avro.strategies import encode, laid_out
from tests.harness.cli import run_cli, transfer_arguments
from tests.harness.oracle import assert_exactly_once
from tests.harness.producer import produce, publish_schema
from tests.harness.topics import create_topic

pytestmark = [pytest.mark.commands, pytest.mark.usefixtures("shared_dask")]

FLAG = {
    "type": "record",
    "name": "flag",
    "fields": [{"name": "why", "type": "string"}, {"name": "level", "type": "int"}],
}
SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "alert",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "score", "type": ["double", "null", "string", FLAG]},
        {"name": "history", "type": {"type": "array", "items": ["long", "string"]}},
        {"name": "stamp", "type": ["null", "bytes", "int"]},
    ],
}
SCORES = [
    ("double", 0.5),
    None,
    ("string", "très"),
    ("flag", {"why": "", "level": 3}),
    ("flag", {"why": "x", "level": -1}),
]
ROWS = [
    {
        "id": 2**53 + number,
        "score": SCORES[number % len(SCORES)],
        "history": [("long", -number), ("string", f"{number}")][: number % 3],
        "stamp": [None, ("bytes", b"\x00\xff" * number), ("int", number)][number % 3],
    }
    for number in range(60)
]


@pytest.fixture
def sent(kafka: Any, topic_name: str) -> dict[tuple[int, int], int]:
    """Fill a topic; return which row is where."""
    create_topic(kafka.bootstrap_servers, topic_name, 2)
    publish_schema(kafka.bootstrap_servers, topic_name, json.dumps(SCHEMA))
    produced = produce(kafka.bootstrap_servers, topic_name, [encode(SCHEMA, row) for row in ROWS])
    return {(record.partition, record.offset): record.index for record in produced}


def rows_of(outdir: Path, sent: dict[tuple[int, int], int]) -> dict[int, dict[str, Any]]:
    """Read a dataset, each row under the number that it was sent with."""
    assert_exactly_once(outdir, sent)
    rows = ds.dataset(outdir, partitioning="hive").to_table().to_pylist()
    return {sent[row.pop("kafka_partition"), row.pop("kafka_offset")]: row for row in rows}


def test_each_value_of_a_union_is_in_its_member_whatever_is_asked_for(
    kafka: Any, topic_name: str, sent: dict[tuple[int, int], int], dask_scheduler: str, tmp_path: Path
) -> None:
    expected = {number: laid_out(SCHEMA, row) for number, row in enumerate(ROWS)}
    arguments = transfer_arguments(kafka, topic_name, tmp_path / "all", "--scheduler", dask_scheduler)
    everything = run_cli(*arguments)
    assert everything.returncode == 0, everything.stderr
    assert rows_of(tmp_path / "all", sent) == expected
    (path, *_) = (tmp_path / "all").rglob("*.parquet")
    assert pq.read_schema(path).field("stamp").type == pa.struct([("member0", pa.binary()), ("member1", pa.int32())])

    arguments = transfer_arguments(kafka, topic_name, tmp_path / "some", "--scheduler", dask_scheduler)
    some = run_cli(*arguments, "-partitionby", "score.member2.level", "--columns", "score.member1,id,history")
    assert some.returncode == 0, some.stderr
    found = rows_of(tmp_path / "some", sent)
    for number, row in found.items():
        score = expected[number]["score"]
        flag = score and score["member2"]
        assert row["score_member2_level"] == (flag["level"] if flag else None)
        assert row["score"] == (score and {"member1": score["member1"]})
        assert (row["id"], row["history"]) == (expected[number]["id"], expected[number]["history"])
        assert "stamp" not in row
