"""Topics whose values have something around each record: what is in it arrives, and each command says the same."""

from __future__ import annotations

import base64
import gzip
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
import pyarrow.dataset as ds
import pytest

import fink_dask
from tests.harness.cli import run_cli, transfer_arguments
from tests.harness.producer import produce, publish_schema
from tests.harness.topics import create_topic

pytestmark = [pytest.mark.commands, pytest.mark.usefixtures("shared_dask")]

SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "alert",
    "fields": [{"name": "candid", "type": "long"}, {"name": "magpsf", "type": ["float", "null"]}],
}
ROWS = [{"candid": 2_500_000_000_000_000_000 + number, "magpsf": number / 2} for number in range(40)]


def encode(row: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, SCHEMA, row)
    return buffer.getvalue()


def container(row: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    fastavro.writer(buffer, SCHEMA, [row], codec="deflate")
    return buffer.getvalue()


FRAMINGS = {
    "confluent": lambda row: b"\0" + struct.pack(">I", 42) + encode(row),
    "single-object": lambda row: b"\xc3\x01ABCDEFGH" + encode(row),
    "container": container,
}


@pytest.mark.parametrize("name", [pytest.param("confluent", marks=pytest.mark.sample), "single-object", "container"])
def test_what_is_around_the_records_of_a_topic_is_found_out_and_taken_off(
    kafka: Any, topic_name: str, name: str, dask_scheduler: str, tmp_path: Path
) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, 2)
    if name != "container":  # which has the schema with it
        publish_schema(kafka.bootstrap_servers, topic_name, json.dumps(SCHEMA))
    produce(kafka.bootstrap_servers, topic_name, [FRAMINGS[name](row) for row in ROWS])
    servers = ("--bootstrap-servers", kafka.bootstrap_servers)
    for outformat in ("parquet", "avro"):
        outdir = tmp_path / outformat
        more = ("--outformat", outformat, "--scheduler", dask_scheduler)
        done = run_cli(*transfer_arguments(kafka, topic_name, outdir, *more))
        assert done.returncode == 0, done.stderr
        verified = run_cli("verify", str(outdir), "--against-kafka", "--sample", "40", "--json", *servers)
        assert verified.returncode == 0, verified.stderr
    rows = ds.dataset(tmp_path / "parquet").to_table(columns=["candid", "magpsf"]).to_pylist()
    assert sorted(rows, key=lambda row: row["candid"]) == ROWS
    records = [record for path in (tmp_path / "avro").rglob("*.avro") for record in fastavro.reader(path.open("rb"))]
    assert sorted(records, key=lambda row: row["candid"]) == ROWS  # type: ignore[index, call-overload]
    peeked = run_cli("peek", topic_name, "--json", "-n", "1", *servers)
    assert peeked.returncode == 0, peeked.stderr
    assert json.loads(peeked.stdout.splitlines()[0])["candid"] in {row["candid"] for row in ROWS}
    bare = run_cli("peek", topic_name, "--framing", "none", "-n", "1", *servers)
    assert bare.returncode == (1 if name == "container" else 3)  # its schema is in there as well
    frame = fink_dask.read_topic(topic_name, kafka.bootstrap_servers, framing=name, columns="candid", progress=False)
    assert sorted(frame["candid"].compute(scheduler="sync")) == [row["candid"] for row in ROWS]
    # Of another schema's number, nothing is read: each record stays as it was, with the reason.
    if name != "container":
        other = [FRAMINGS[name](row).replace(b"*", b"+", 1).replace(b"ABC", b"XYZ", 1) for row in ROWS[:3]]
        produce(kafka.bootstrap_servers, topic_name, other)
        again = run_cli(*transfer_arguments(kafka, topic_name, tmp_path / "parquet", "--scheduler", dask_scheduler))
        assert again.returncode == 3, again.stderr
        shown = run_cli("quarantine", str(tmp_path / "parquet"), "--json")
        said = json.loads(shown.stdout)
        assert (said["quarantined"], len(said["reasons"])) == (3, 1)
        numbers = {"confluent": ("42", "43"), "single-object": (b"ABCDEFGH".hex(), b"XYZDEFGH".hex())}[name]
        assert all(number in next(iter(said["reasons"])) for number in numbers)


def test_a_framing_is_named_where_there_is_no_schema(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, 1)
    produce(kafka.bootstrap_servers, topic_name, [FRAMINGS["confluent"](row) for row in ROWS])
    done = run_cli(*transfer_arguments(kafka, topic_name, tmp_path / "out"))
    assert done.returncode == 1
    assert "Confluent's framing (schema id 42)" in done.stderr
    (tmp_path / "schema.avsc").write_text(json.dumps(SCHEMA))
    kept = run_cli(
        *transfer_arguments(kafka, topic_name, tmp_path / "kept", "--framing", "none"),
        *("--schema", str(tmp_path / "schema.avsc")),
    )
    assert kept.returncode == 3
    assert "Confluent" in run_cli("quarantine", str(tmp_path / "kept")).stdout


@pytest.mark.parametrize("broken", ["several alerts", "a damaged block"])
def test_container_files_of_which_none_can_be_read_are_said_to_be_that(
    broken: str, kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    stream = io.BytesIO()
    fastavro.writer(stream, SCHEMA, ROWS[:2] if broken == "several alerts" else ROWS[:1], codec="deflate")
    value = stream.getvalue()
    if broken == "a damaged block":
        value = value[:-20] + b"\xff\xff\xff\xff" + value[-16:]
    create_topic(kafka.bootstrap_servers, topic_name, 1)
    produce(kafka.bootstrap_servers, topic_name, [value])
    result = run_cli(*transfer_arguments(kafka, topic_name, tmp_path / "out"))
    assert result.returncode == 1
    assert "container" in result.stderr.splitlines()[-1]


FOREIGN: dict[str, Callable[[bytes], bytes]] = {
    "base64": base64.b64encode,
    "gzip": gzip.compress,
    "JSON": lambda record: json.dumps({"value": record.hex()}).encode(),
}


@pytest.mark.parametrize("words", FOREIGN)
def test_what_is_not_taken_off_is_named_before_anything_is_read_and_kept_where_that_is_asked_for(
    words: str, kafka: Any, topic_name: str, dask_scheduler: str, tmp_path: Path
) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, 2)
    publish_schema(kafka.bootstrap_servers, topic_name, json.dumps(SCHEMA))
    produce(kafka.bootstrap_servers, topic_name, [FOREIGN[words](encode(row)) for row in ROWS])
    typed = transfer_arguments(kafka, topic_name, tmp_path / "out", "--scheduler", dask_scheduler)
    for command in (typed, ["peek", topic_name, "--bootstrap-servers", kafka.bootstrap_servers]):
        refused = run_cli(*command)
        assert refused.returncode == 1
        (line,) = (line for line in refused.stderr.splitlines() if "error: " in line)
        assert words in line
        assert "--framing none" in line
    assert not (tmp_path / "out.fink").exists()
    kept = run_cli(*typed, "--framing", "none")
    assert kept.returncode == 3, kept.stderr
    reasons = json.loads(run_cli("quarantine", str(tmp_path / "out"), "--json").stdout)["reasons"]
    assert reasons
    assert all(words in reason for reason in reasons)
