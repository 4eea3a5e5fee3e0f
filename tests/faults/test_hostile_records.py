"""Rows 14, 15 and 23: poison, schemas that are absent or differ, and values that would like to be somewhere else."""

from __future__ import annotations

import json
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from fink_dask.dataset.quarantine import read_quarantine
from fink_dask.ledger.ledger import Ledger
from fink_dask.verifying.files import verify_dataset
from tests.alerts.made_up import AlertKind, avro_schema, encoded_alerts
from tests.harness.cli import run_cli, transfer_arguments
from tests.harness.oracle import assert_exactly_once
from tests.harness.producer import Produced, produce, publish_schema
from tests.harness.topics import create_topic

pytestmark = pytest.mark.usefixtures("shared_dask")

LIGHT = AlertKind.ZTF_LIGHT
SCHEMA = avro_schema(LIGHT)
GOOD = list(encoded_alerts(LIGHT, 30))
#: The bytes of an array of 2^60 items, as Avro counts them.
ENDLESS = bytes([0x80] * 8 + [0x20])


def longs(*values: int) -> bytes:
    stream = BytesIO()
    for value in values:
        fastavro.schemaless_writer(stream, "long", value)
    return stream.getvalue()


POISON: dict[str, bytes | None] = {
    "empty": b"",
    "null": None,
    "truncated": GOOD[0][:-1],
    "cut in the middle": GOOD[1][: len(GOOD[1]) // 2],
    "trailing bytes": GOOD[2] + b"\0",
    "invalid UTF-8": longs(4) + b"\xff\xfe\xfd\xfc" + GOOD[3][1:],
    "a string of 2^60 bytes": ENDLESS + b"x" * 50,
    "a length below zero": longs(-5) + GOOD[4],
    "zeros": bytes(2000),
    "ones": b"\xff" * 2000,
    "another schema": b"Obj\x01" + b"x" * 400,
}


def quarantined(ledger: Ledger) -> dict[tuple[int, int], tuple[bytes | None, str]]:
    found = {}
    for marker in ledger.markers(ledger.plans()):
        for batch in [] if marker.quarantine is None else read_quarantine(ledger, marker.quarantine):
            for row in batch.to_pylist():
                found[row["kafka_partition"], row["kafka_offset"]] = (row["value"], row["reason"])
    return found


@pytest.mark.parametrize(
    "where", [*(pytest.param(place, marks=pytest.mark.faults) for place in ("first", "last", "all")), "between"]
)
def test_14_poison_anywhere_in_a_range_is_set_aside_and_its_neighbours_arrive(
    kafka: Any, topic_name: str, tmp_path: Path, where: str
) -> None:
    address, outdir = kafka.bootstrap_servers, tmp_path / "alerts"
    create_topic(address, topic_name, 1)
    publish_schema(address, topic_name, json.dumps(SCHEMA))
    poison = list(POISON.values())
    mixed = [value for pair in zip(GOOD, poison, strict=False) for value in pair]
    values = {"first": [*poison, *GOOD], "last": [*GOOD, *poison], "all": poison, "between": mixed}[where]
    sent = produce(address, topic_name, values)
    result = run_cli(*transfer_arguments(kafka, topic_name, outdir))
    assert result.returncode == 3, result.stderr
    places = {record.offset: values[record.index] for record in sent}
    found = quarantined(Ledger(outdir))
    assert_exactly_once(outdir, [(0, offset) for offset in places if (0, offset) not in found])
    assert {offset: value for (_, offset), (value, _) in found.items()} == {
        offset: value for offset, value in places.items() if value not in GOOD
    }
    assert all(reason and "\n" not in reason and len(reason) <= 200 for _, reason in found.values())
    assert verify_dataset(Ledger(outdir)).problems == ()


@pytest.mark.parametrize("name", POISON)
def test_14_each_kind_of_poison_has_a_reason_of_its_own(name: str) -> None:
    from fink_dask.avro.decoder import ColumnarDecoder
    from fink_dask.avro.reference import FastavroDecoder
    from fink_dask.avro.schema import parse_schema

    schema = parse_schema(json.dumps(SCHEMA))
    columnar = ColumnarDecoder(schema).decode([GOOD[5], POISON[name], GOOD[6]])
    plain = FastavroDecoder(schema).decode([GOOD[5], POISON[name], GOOD[6]])
    assert [(bad.index, bad.reason) for bad in columnar.bad] == [(bad.index, bad.reason) for bad in plain.bad]
    assert columnar.rows.num_rows == 2


def other_schema() -> dict[str, Any]:
    first, *rest = SCHEMA["fields"]
    return SCHEMA | {"fields": [*rest, first]}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        pytest.param(None, "absent", id="absent"),
        pytest.param([json.dumps(SCHEMA), json.dumps(other_schema())], "differ", id="two"),
        *(
            pytest.param(keys, words, id=name, marks=pytest.mark.faults)
            for name, keys, words in [
                ("empty", [], "empty"),
                ("no JSON", ["not a schema"], "JSON"),
                ("no record", ['{"type": "array", "items": "int"}'], "array"),
                ("brackets", ["[" * 3000], "nested"),
                ("cut off", ['{"type":"record","name":"r","fields":[{"name":"a","type":' * 200], "JSON"),
            ]
        ),
    ],
)
def test_15_a_schema_topic_that_is_none_is_a_refusal_that_says_what_to_do(
    kafka: Any, topic_name: str, tmp_path: Path, keys: list[str] | None, words: str
) -> None:
    address = kafka.bootstrap_servers
    create_topic(address, topic_name, 1)
    produce(address, topic_name, GOOD)
    if keys is not None:
        create_topic(address, f"{topic_name}_schema", 1)
        for key in keys:
            produce(address, f"{topic_name}_schema", [b"0"], keys=[key.encode()])
    result = run_cli(*transfer_arguments(kafka, topic_name, tmp_path / "alerts"))
    assert (result.returncode, len(result.stderr.strip().splitlines())) == (1, 1), result.stderr
    assert words in result.stderr
    assert not (tmp_path / "alerts").exists()
    # The user's own file settles it.
    (tmp_path / "own.avsc").write_text(json.dumps(SCHEMA))
    own = ("--schema", str(tmp_path / "own.avsc"))
    assert run_cli(*transfer_arguments(kafka, topic_name, tmp_path / "alerts", *own)).returncode == 0


def test_15_a_schema_that_changes_in_mid_topic_makes_no_wrong_value(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    address, outdir = kafka.bootstrap_servers, tmp_path / "alerts"
    create_topic(address, topic_name, 2)
    values, keys = [*GOOD], [json.dumps(SCHEMA).encode()] * len(GOOD)
    name, stream = SCHEMA["fields"][0]["name"], BytesIO()
    other = {"type": "record", "name": "r", "fields": [{"name": name, "type": "boolean"}]}
    fastavro.schemaless_writer(stream, other, {name: True})
    values += [stream.getvalue()] * 10
    keys += [json.dumps(other).encode()] * 10
    sent = produce(address, topic_name, values, keys=keys)
    result = run_cli(*transfer_arguments(kafka, topic_name, outdir))
    assert result.returncode == 3, result.stderr
    assert_exactly_once(outdir, [(r.partition, r.offset) for r in sent if r.index < len(GOOD)])
    (reason,) = {reason for _, reason in quarantined(Ledger(outdir)).values()}
    assert re.search(rf"\b{name}\b.*boolean.*float", reason)


HOSTILE_KEYS = [
    "../../../escaped",
    "/etc/passwd",
    "a/b",
    "=",
    "year=2026",
    ".",
    "..",
    "",
    " ",
    "%2e%2e%2f",
    "a\0b",
    "x" * 10_000,
    "ж" * 200,
    "\u202e\u0000\n\r\x1b[31m",
    "__HIVE_DEFAULT_PARTITION__",
    "CON",
    "*?[a]",
]
KEYED = {
    "type": "record",
    "name": "keyed",
    "fields": [{"name": "who", "type": "string"}, {"name": "number", "type": "long"}],
}


def test_23_values_that_would_leave_the_dataset_stay_inside_and_come_back_as_they_were(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    address, outdir = kafka.bootstrap_servers, tmp_path / "deep" / "alerts"
    outdir.parent.mkdir()
    create_topic(address, topic_name, 2)
    publish_schema(address, topic_name, json.dumps(KEYED))
    schema = fastavro.parse_schema(KEYED)
    values = []
    for number, who in enumerate(HOSTILE_KEYS):
        stream = BytesIO()
        fastavro.schemaless_writer(stream, schema, {"who": who, "number": number})
        values.append(stream.getvalue())
    sent: list[Produced] = produce(address, topic_name, values)
    result = run_cli(*transfer_arguments(kafka, topic_name, outdir, "-partitionby", "who"))
    assert result.returncode == 3, result.stderr  # the longest ones are no directory
    assert {path.name for path in tmp_path.iterdir()} == {"deep"}
    assert {path.name for path in outdir.parent.iterdir()} == {"alerts", "alerts.fink"}
    assert all(len(path.name.encode()) <= 255 for path in outdir.rglob("*"))
    assert all(path.parent.parent == outdir for path in outdir.rglob("*.parquet"))
    partitioning = ds.partitioning(pa.schema([("who", pa.string())]), flavor="hive")
    rows = ds.dataset(outdir, partitioning=partitioning).to_table(columns=["number", "who"]).to_pylist()
    set_aside = {value for value, _ in quarantined(Ledger(outdir)).values()}
    assert len(rows) + len(set_aside) == len(sent)
    assert len(set_aside) == 4  # two that are too long, and two that readers take for null
    for row in rows:
        assert row["who"] == HOSTILE_KEYS[row["number"]]
    assert verify_dataset(Ledger(outdir)).problems == ()
