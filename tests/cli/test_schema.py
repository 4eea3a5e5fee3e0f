"""The fields of a topic are shown as its writer has put them, and nothing in them reaches the terminal raw."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from fink_dask.avro.fields import count_fields, fields_of
from fink_dask.avro.schema import parse_schema
from tests.alerts.made_up import AlertKind, avro_schema
from tests.harness.cli import remarks, run_cli, transfer_arguments
from tests.harness.oracle import fill_topic
from tests.harness.producer import produce, publish_schema
from tests.harness.topics import create_topic

HOSTILE = "\x1b]0;mine\x07[red]\n" + "x" * 10_000
EVERY_KIND = {
    "type": "record",
    "name": "Alert",
    "fields": [
        {"name": "id", "type": "long", "doc": "the first\n of all"},
        {"name": "mag", "type": ["null", "float"], "doc": HOSTILE},
        {"name": "kind", "type": {"type": "enum", "name": "K", "symbols": ["A", "B"]}},
        {"name": "seen", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "hash", "type": {"type": "fixed", "name": "H", "size": 16}},
        {"name": "cost", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {
            "name": "earlier",
            "type": [
                {
                    "type": "array",
                    "items": {
                        "type": "record",
                        "name": "Point",
                        "fields": [{"name": "x", "type": "double", "doc": "in degrees"}],
                    },
                },
                "null",
            ],
        },
        {"name": "latest", "type": "Point"},
        {"name": "either", "type": ["int", "Point", "null"]},
        {"name": "named", "type": {"type": "map", "values": {"type": "array", "items": "string"}}},
        {"name": "empty", "type": "null", "doc": 7},
    ],
}


def show(kafka: Any, topic: str, *arguments: str, **options: Any) -> str:
    result = run_cli("schema", topic, "--bootstrap-servers", kafka.bootstrap_servers, *arguments, **options)
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def alerts(kafka: Any, topic: str) -> str:
    fill_topic(kafka.bootstrap_servers, topic, AlertKind.ZTF_FULL, 5, partitions=2)
    return topic


def test_a_tree_has_every_field_with_its_type(kafka: Any, alerts: str) -> None:
    shown = show(kafka, alerts)
    schema = parse_schema(json.dumps(avro_schema(AlertKind.ZTF_FULL)))
    assert shown.startswith(f"{alerts}: ")
    assert "schema topic" in shown
    assert f"{count_fields(fields_of(schema)):,} fields" in shown
    assert "── candid  long?" in shown
    assert "── jd  double" in shown
    for field in schema.parsed.names:
        assert f"── {field}  " in shown


def test_the_avro_schema_is_the_one_in_kafka(kafka: Any, alerts: str) -> None:
    assert json.loads(show(kafka, alerts, "--format", "avro")) == avro_schema(AlertKind.ZTF_FULL)


def test_the_arrow_schema_is_that_of_the_files(kafka: Any, alerts: str, tmp_path: Path) -> None:
    ended = run_cli(*transfer_arguments(kafka, alerts, tmp_path / "out"))
    assert ended.returncode == 0, ended.stderr
    (file, *_) = (tmp_path / "out").rglob("*.parquet")
    written = pq.read_schema(file)
    expected = [f"{column.name}: {column.type}{'' if column.nullable else ' not null'}" for column in written]
    # Parquet has names of its own for the items of lists and maps.
    read = [re.sub(r" \('\w+'\)", "", column.replace("<element: ", "<item: ")) for column in expected]
    assert show(kafka, alerts, "--format", "arrow").splitlines() == read


def test_each_kind_of_type_is_said_in_words_and_references_keep_what_was_said_of_them() -> None:
    fields = {field.name: field for field in fields_of(parse_schema(json.dumps(EVERY_KIND)))}
    # The words are all that there is of a type on the page; they are pinned here alone.
    assert {name: field.type for name, field in fields.items()} == {
        "id": "long",
        "mag": "float",
        "kind": "enum (A, B)",
        "seen": "long (timestamp-micros)",
        "hash": "fixed of 16 bytes",
        "cost": "bytes (decimal of 9 digits, 2 after the point)",
        "earlier": "list of record",
        "latest": "record",
        "either": "union of 2 types",
        "named": "map of list of string",
        "empty": "null",
    }
    assert [name for name, field in fields.items() if field.nullable] == ["mag", "earlier", "either", "empty"]
    assert [field.doc for field in fields["earlier"].fields] == ["in degrees"]
    assert fields["latest"].fields == fields["earlier"].fields
    assert [field.name for field in fields["either"].fields] == ["member0", "member1"]
    assert fields["either"].fields[1].fields == fields["latest"].fields
    assert fields["empty"].doc == ""


@pytest.mark.parametrize("form", ["tree", "avro", "arrow", "json"])
def test_nothing_that_a_writer_says_reaches_the_terminal_raw(kafka: Any, topic_name: str, form: str) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, 1)
    publish_schema(kafka.bootstrap_servers, topic_name, json.dumps(EVERY_KIND))
    shown = show(kafka, topic_name, "--format", form)
    assert all(line.isprintable() for line in shown.splitlines())
    if form == "tree":
        assert "mag  float?  \N{REPLACEMENT CHARACTER}]0;mine" in shown
        assert "[red]" in shown, "taken for a colour"
        assert "id  long  the first of all" in shown
        assert max(map(len, shown.splitlines())) < 700
    if form == "json":
        (found,) = json.loads(shown)["schemas"]
        assert [field["name"] for field in found["fields"]] == [field["name"] for field in EVERY_KIND["fields"]]
        assert found["fields"][1]["doc"] == HOSTILE


def test_all_schemas_in_the_keys_of_records_are_shown_with_their_number(kafka: Any, topic_name: str) -> None:
    versions = [
        {"type": "record", "name": "A", "fields": [{"name": "id", "type": "long"}, *more]}
        for more in ([], [{"name": "mag", "type": "float"}], [{"name": "mag", "type": "string"}])
    ]
    create_topic(kafka.bootstrap_servers, topic_name, 1)
    keys = [json.dumps(version).encode() for version in versions]
    produce(kafka.bootstrap_servers, topic_name, [b"x"] * 3, keys=keys)
    shown = show(kafka, topic_name)
    for number in (1, 2, 3):
        assert f"schema {number} of 3" in shown
    assert "one dataset" in shown
    found = json.loads(show(kafka, topic_name, "--format", "json"))
    assert found["source"] == "record key"
    assert [each["misfit"] is None for each in found["schemas"]] == [True, True, False]
    documents = json.JSONDecoder().raw_decode(show(kafka, topic_name, "--format", "avro"))
    assert documents[0] == versions[0]
    assert show(kafka, topic_name, "--format", "arrow").splitlines()[:2] == ["id: int64 not null", "mag: float"]


@pytest.mark.parametrize(("topic", "code"), [("ftransfer_ztf_nothing", 1), ("a b", 2)])
def test_a_topic_that_is_none_is_one_line(kafka: Any, topic: str, code: int) -> None:
    result = run_cli("schema", topic, "--bootstrap-servers", kafka.bootstrap_servers)
    assert result.returncode == code
    assert len(remarks(result.stderr)) == 1
    assert result.stdout == ""


def test_a_hostile_schema_is_refused_in_one_line(kafka: Any, topic_name: str) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, 1)
    publish_schema(kafka.bootstrap_servers, topic_name, "[" * 5000)
    result = run_cli("schema", topic_name, "--bootstrap-servers", kafka.bootstrap_servers)
    assert result.returncode == 1
    assert "schema" in result.stderr
    assert len(remarks(result.stderr)) == 1
