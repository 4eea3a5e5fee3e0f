"""What other programs accept is one schema for every command, and its bytes and columns are the writer's."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest

from fink_dask.avro.container import block_head, header, read_header, read_records
from fink_dask.avro.decoder import ColumnarDecoder
from fink_dask.avro.fields import fields_of
from fink_dask.avro.files import read_schema_file
from fink_dask.avro.reference import FastavroDecoder, Transcoder
from fink_dask.avro.schema import parse_schema
from fink_dask.batches import without_heads
from fink_dask.errors import SchemaError, SettingsError
from tests.avro.oracle import assert_same

Json = dict[str, Any]


def record(fields: Json, **more: Any) -> Json:
    return {
        "type": "record",
        "name": "alert",
        "fields": [{"name": name, "type": kind} for name, kind in fields.items()],
        **more,
    }


def named(name: str, **fields: Any) -> Json:
    return {**record(fields), "name": name}


def with_default(kind: Any, default: Any) -> Json:
    return {"type": "record", "name": "alert", "fields": [{"name": "a", "type": kind, "default": default}]}


ENUM = {"type": "enum", "name": "kind", "symbols": ["SN", "AGN"]}

#: What a schema says, the same in words that strict libraries take, and an alert.
LIBERTIES: list[tuple[str, object, object, Json]] = [
    (
        "Spark's names",
        record({"a": "integer", "b": ["binary", "null"]}),
        record({"a": "int", "b": ["bytes", "null"]}),
        {"a": 7, "b": b"x"},
    ),
    ("an object of such a name", record({"a": {"type": "bigint"}}), record({"a": "long"}), {"a": 7}),
    (
        "a type that is called as one of Spark's",
        record({"a": named("binary", x="int"), "b": "binary"}),
        None,
        {"a": {"x": 1}, "b": {"x": 2}},
    ),
    ("null for a float", with_default("float", None), record({"a": "float"}), {"a": 1.5}),
    ("text for a long", with_default("long", "fff"), record({"a": "long"}), {"a": 5}),
    ("true for an int", with_default("int", True), record({"a": "int"}), {"a": 5}),
    (
        "null for an array",
        with_default({"type": "array", "items": "int"}, None),
        record({"a": {"type": "array", "items": "int"}}),
        {"a": [1]},
    ),
    (
        "a text in an array of ints",
        with_default({"type": "array", "items": "int"}, ["x"]),
        record({"a": {"type": "array", "items": "int"}}),
        {"a": [1]},
    ),
    ("an unknown symbol", with_default(ENUM, "?"), record({"a": ENUM}), {"a": "AGN"}),
    ("a symbol that an enum lacks", record({"a": {**ENUM, "default": "?"}}), record({"a": ENUM}), {"a": "AGN"}),
    (
        "an incomplete record",
        with_default(named("sub", x="int"), {}),
        record({"a": named("sub", x="int")}),
        {"a": {"x": 1}},
    ),
    (
        "the same record again",
        record({"a": named("sub", x="int"), "b": {**named("sub", x="int"), "doc": "again"}}),
        record({"a": named("sub", x="int"), "b": "sub"}),
        {"a": {"x": 1}, "b": {"x": 2}},
    ),
    (
        "another record of the name",
        record({"a": named("sub", x="int"), "b": named("sub", y="string")}),
        record({"a": named("sub", x="int"), "b": named("sub_2", y="string")}),
        {"a": {"x": 1}, "b": {"y": "2"}},
    ),
    (
        "a record of the name of what it is in",
        record({"a": named("alert", x="int"), "b": named("alert", x="int")}),
        record({"a": named("alert_2", x="int"), "b": "alert_2"}),
        {"a": {"x": 1}, "b": {"x": 2}},
    ),
    ("a namespace of null", record({"a": "int"}, namespace=None), record({"a": "int"}), {"a": 1}),
    (
        "an error",
        record({"a": {**named("sub", x="int"), "type": "error"}}, type="error"),
        record({"a": named("sub", x="int")}),
        {"a": {"x": 1}},
    ),
    ("a union in an object", record({"a": {"type": ["int", "null"]}}), record({"a": ["int", "null"]}), {"a": None}),
    (
        "a name without namespace, from within one",
        record({"a": {**named("sub", x="int"), "namespace": ""}, "b": "sub"}, namespace="ztf"),
        record({"a": named("sub", x="int"), "b": "sub"}, namespace="ztf"),
        {"a": {"x": 1}, "b": {"x": 2}},
    ),
    (
        "a name of another namespace",
        record({"a": {**named("sub", x="int"), "namespace": "n"}, "b": "sub"}),
        record({"a": named("n.sub", x="int"), "b": "n.sub"}),
        {"a": {"x": 1}, "b": {"x": 2}},
    ),
    (
        "a type's name with a dash",
        record({"a": named("my-sub", x="int"), "b": "my-sub"}, name="alert-v2", namespace="a/b"),
        record({"a": named("my_sub", x="int"), "b": "my_sub"}, name="alert_v2", namespace="a_b"),
        {"a": {"x": 1}, "b": {"x": 2}},
    ),
    ("a union of null and a record", ["null", record({"a": "int"})], None, {"a": 1}),
    ("a union of a record and null", [record({"a": "int"}), "null"], None, {"a": 1}),
    ("a union of one record", [record({"a": "int"})], None, {"a": 1}),
    (
        "an order that is none, and aliases that are none",
        {
            "type": "record",
            "name": "alert",
            "fields": [{"name": "a", "type": "int", "order": "up", "aliases": ["a b"]}],
        },
        record({"a": "int"}),
        {"a": 1},
    ),
]


def encode(schema: object, rows: list[Json]) -> list[bytes]:
    parsed, values = fastavro.parse_schema(json.loads(json.dumps(schema))), []
    for row in rows:
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, parsed, row)
        values.append(buffer.getvalue())
    return values


@pytest.mark.parametrize(
    ("raw", "strict", "alert"), [each[1:] for each in LIBERTIES], ids=[each[0] for each in LIBERTIES]
)
def test_a_schema_that_others_accept_is_the_same_schema_for_every_reader(
    raw: object, strict: object, alert: Json, tmp_path: Path
) -> None:
    schema = parse_schema(json.dumps(raw))
    assert json.loads(schema.text) == raw, "the fingerprint is that of what was written"
    assert parse_schema(schema.text).fingerprint == schema.fingerprint
    if strict is not None:
        again = parse_schema(schema.strict)
        assert again.arrow == parse_schema(json.dumps(strict)).arrow == schema.arrow
        assert again.strict == schema.strict
    values = encode(raw if strict is None else strict, [alert] * 3)
    decoded = ColumnarDecoder(schema).decode(values)
    assert decoded.rows.to_pylist() == [alert] * 3
    assert_same(decoded, FastavroDecoder(schema).decode(values))
    # As an Avro file, fastavro and this package read it; and a retry with the schema resolves.
    path = tmp_path / "a.avro"
    data = b"".join(values)
    path.write_bytes(header(schema, {}, b"s" * 16) + block_head(3, len(data)) + data + b"s" * 16)
    with path.open("rb") as file:
        assert list(fastavro.reader(file)) == [alert] * 3
    assert read_header(path)[1] == 3
    assert list(read_records(path, schema)) == values
    assert Transcoder(schema, schema).transcode(values[0]) == values[0]
    assert [field.name for field in fields_of(schema)] == list(alert)
    assert read_schema_file(path).arrow == schema.arrow


def test_a_schema_without_liberties_is_left_as_it_is() -> None:
    raw = with_default([named("sub", x="int"), "null"], None)
    raw["fields"] += [
        {"name": "b", "type": "sub", "default": {"x": 1}},
        {"name": "c", "type": "double", "default": 1},
        {"name": "d", "type": {"type": "map", "values": "sub"}, "default": {"k": {"x": 1}}, "aliases": ["dd"]},
    ]
    schema = parse_schema(json.dumps(raw))
    assert schema.strict == schema.text == json.dumps(raw, separators=(",", ":"))


@pytest.mark.parametrize("name", ["mag-psf", "mag psf", "cand.jd", "magnitude_é", "Δmag", "😎", "2mass"])
def test_a_column_has_the_name_that_the_schema_gives_it(name: str) -> None:
    schema = parse_schema(json.dumps(record({"a": "int", name: "float"})))
    values = encode(record({"a": "int", "b": "float"}), [{"a": 1, "b": 0.5}])
    decoded = ColumnarDecoder(schema, ["a", name]).decode(values)
    assert decoded.rows.to_pylist() == [{"a": 1, name: 0.5}]
    assert_same(decoded, FastavroDecoder(schema, ["a", name]).decode(values))
    assert schema.odd_name


def test_a_symbol_may_be_any_text() -> None:
    symbols = ["SN candidate", "C*", "étoile", "plain"]
    schema = parse_schema(json.dumps(record({"k": {**ENUM, "symbols": symbols}, "n": ["null", "kind"]})))
    values = [bytes([2 * index, 2, 2 * index]) for index in range(4)] + [b"\x02\x00", b"\x08\x00"]
    decoded = ColumnarDecoder(schema).decode(values)
    assert decoded.rows["k"].to_pylist() == [*symbols, "C*"]
    assert decoded.rows["n"].to_pylist() == [*symbols, None]
    assert [bad.index for bad in decoded.bad] == [5]
    assert_same(decoded, FastavroDecoder(schema).decode(values))
    assert schema.odd_name == "'SN candidate'"


def test_a_record_without_fields_says_whether_it_is_there() -> None:
    nothing = {"type": "record", "name": "nothing", "fields": []}
    schema = parse_schema(json.dumps(record({"a": "int", "b": nothing, "c": ["null", "nothing"], "d": "long"})))
    values = [b"\x02\x00\x04", b"\x02\x02\x06", b"\x04\x04\x06"]
    decoded = ColumnarDecoder(schema).decode(values)
    assert decoded.rows.to_pylist() == [{"a": 1, "b": True, "c": None, "d": 2}, {"a": 1, "b": True, "c": True, "d": 3}]
    decoded.rows.validate(full=True)
    assert_same(decoded, FastavroDecoder(schema).decode(values))


@pytest.mark.parametrize(("raw", "branch"), [(["null", record({"a": "int"})], 1), ([record({"a": "int"}), "null"], 0)])
def test_where_the_top_is_a_union_what_is_null_or_of_no_branch_goes_to_the_quarantine(raw: object, branch: int) -> None:
    schema = parse_schema(json.dumps(raw))
    head = bytes([2 * branch])
    values = [head + b"\x02", bytes([2 - 2 * branch]), b"", None, head, b"\x04\x02", head + b"\x02\x02", head + b"\x04"]
    decoded = ColumnarDecoder(schema).decode(values)
    assert decoded.rows.to_pylist() == [{"a": 1}, {"a": 2}]
    assert decoded.positions.tolist() == [0, 7]
    assert [bad.index for bad in decoded.bad] == [1, 2, 3, 4, 5, 6]
    assert_same(decoded, FastavroDecoder(schema).decode(values))


def test_heads_are_cut_off_each_value_and_no_other_byte() -> None:
    data, starts = without_heads(
        np.frombuffer(b"..abc...de.", np.uint8), np.array([2, 3, 5, 8, 10]), np.array([1, 0, 2, 1])
    )
    assert (bytes(data), starts.tolist()) == (b"bc.e", [0, 0, 2, 3, 4])


def _write(folder: Path, **schemas: Json) -> None:
    for name, schema in schemas.items():
        (folder / f"{name}.avsc").write_text(json.dumps(schema), encoding="utf-8-sig")


def test_types_are_found_in_the_files_beside_a_schema(tmp_path: Path) -> None:
    whole = record(
        {"candidate": "ztf.alert.candidate", "previous": {"type": "array", "items": "ztf.alert.candidate"}},
        namespace="ztf",
    )
    candidate = {**named("candidate", jd="double", cutout=["cutout", "null"]), "namespace": "ztf.alert"}
    _write(tmp_path, alert=whole, candidate=candidate, cutout=named("ztf.alert.cutout", stamp="bytes"))
    (tmp_path / "other.avsc").write_text("no JSON")
    schema = read_schema_file(tmp_path / "alert.avsc")
    assert schema.arrow.field("candidate").type.field("cutout").type.field("stamp").name == "stamp"
    assert parse_schema(schema.text) == schema, "it needs the files no more"
    (tmp_path / "cutout.avsc").unlink()
    with pytest.raises(SchemaError, match=r"'cutout'.*\.avsc"):
        read_schema_file(tmp_path / "alert.avsc")


def test_a_mark_before_a_schema_is_no_part_of_it() -> None:
    raw = json.dumps(record({"a": "int"}))
    assert (
        parse_schema("\N{ZERO WIDTH NO-BREAK SPACE}" + raw)
        == parse_schema(raw.encode("utf-8-sig"))
        == parse_schema(raw)
    )


@pytest.mark.parametrize("cut", [4, 5, 20, 60])
def test_a_container_file_that_is_cut_off_is_refused_in_a_line(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "a.avro"
    path.write_bytes(header(parse_schema(json.dumps(record({"a": "int"}))), {}, b"s" * 16)[:cut])
    with pytest.raises(SettingsError, match="Avro file"):
        read_schema_file(path)


def test_a_default_that_asks_for_endless_comparisons_does_not_keep_the_reader() -> None:
    types: list[Any] = ["int"]
    default: Any = "no int"
    for level in range(25):
        again = [f"a{level - 1}", f"b{level - 1}"] if level else types
        types = [named(f"a{level}", x=types), named(f"b{level}", x=again)]
        default = {"x": default}
    with pytest.raises(SchemaError, match="20,000"):
        parse_schema(json.dumps(with_default(types, default)))
