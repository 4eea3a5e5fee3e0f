from __future__ import annotations

import json
import pickle

import pyarrow as pa
import pytest

from fink_dask.avro.schema import (
    MAX_FIXED_BYTES,
    MAX_SCHEMA_BYTES,
    field_type,
    parse_schema,
)
from fink_dask.avro.spelling import MAX_DEPTH, MAX_FIELDS, MAX_NAME_CHARS
from fink_dask.errors import SchemaError


def record(*types: object) -> dict[str, object]:
    names = [*"abcdefgh", *(f"f{index}" for index in range(len(types)))]
    fields = [{"name": name, "type": type_} for name, type_ in zip(names, types, strict=False)]
    return {"type": "record", "name": "alert", "fields": fields}


def record_of(types: dict[str, object]) -> dict[str, object]:
    return {"type": "record", "name": "alert", "fields": [{"name": name, "type": types[name]} for name in types]}


def logical(type_: str, logical_type: str, **more: object) -> dict[str, object]:
    return {"type": type_, "logicalType": logical_type, **more}


def nested(kind: str, levels: int) -> object:
    type_: object = "int"
    for level in range(levels):
        if kind == "array":
            type_ = {"type": "array", "items": type_}
        elif kind == "map":
            type_ = {"type": "map", "values": [type_, "null"]}
        elif kind == "wrapper":
            type_ = {"type": type_}
        else:
            type_ = {"type": "record", "name": f"level{level}", "fields": [{"name": "x", "type": type_}]}
    return type_


def doubling(levels: int) -> dict[str, object]:
    """Definitions that each use the one before twice: levels of them expand to 2^levels fields."""
    types: list[object] = [{"type": "record", "name": "t0", "fields": [{"name": "x", "type": "int"}]}]
    for level in range(levels):
        fields = [{"name": name, "type": f"t{level}"} for name in ("left", "right")]
        types.append({"type": "record", "name": f"t{level + 1}", "fields": fields})
    return {"type": "record", "name": "r", "fields": [{"name": f"f{i}", "type": t} for i, t in enumerate(types)]}


FIXED = {"type": "fixed", "name": "f", "size": 3}
ENUM = {"type": "enum", "name": "e", "symbols": ["A", "B"]}
EMPTY: dict[str, object] = {"type": "record", "name": "nothing", "fields": []}
INNER = {"type": "record", "name": "inner", "fields": [{"name": "x", "type": "int"}, {"name": "y", "type": ["null"]}]}

MAPPINGS: list[tuple[object, pa.DataType, bool]] = [
    ("null", pa.null(), True),
    ({"type": "int"}, pa.int32(), False),
    ({"type": {"type": "int"}}, pa.int32(), False),
    ("boolean", pa.bool_(), False),
    ("int", pa.int32(), False),
    ("long", pa.int64(), False),
    ("float", pa.float32(), False),
    ("double", pa.float64(), False),
    ("string", pa.string(), False),
    ("bytes", pa.binary(), False),
    (FIXED, pa.binary(3), False),
    (ENUM, pa.string(), False),
    (["long"], pa.int64(), False),
    (["null"], pa.null(), True),
    (["long", "null"], pa.int64(), True),
    (["null", "long"], pa.int64(), True),
    ([{"type": "null"}, "long"], pa.int64(), True),
    ({"type": "array", "items": "long"}, pa.list_(pa.field("item", pa.int64(), nullable=False)), False),
    ({"type": "array", "items": ["null", "long"]}, pa.list_(pa.field("item", pa.int64())), False),
    ({"type": "map", "values": "int"}, pa.map_(pa.string(), pa.field("value", pa.int32(), nullable=False)), False),
    ({"type": "map", "values": ["int", "null"]}, pa.map_(pa.string(), pa.int32()), False),
    ({"type": "map", "values": "null"}, pa.map_(pa.string(), pa.null()), False),
    ([INNER, "null"], pa.struct([pa.field("x", pa.int32(), nullable=False), pa.field("y", pa.null())]), True),
    (logical("int", "date"), pa.date32(), False),
    ([logical("int", "date"), "null"], pa.date32(), True),
    (logical("int", "time-millis"), pa.time32("ms"), False),
    (logical("long", "time-micros"), pa.time64("us"), False),
    (logical("long", "timestamp-millis"), pa.timestamp("ms", tz="UTC"), False),
    (logical("long", "timestamp-micros"), pa.timestamp("us", tz="UTC"), False),
    (logical("long", "timestamp-nanos"), pa.timestamp("ns", tz="UTC"), False),
    (logical("long", "local-timestamp-millis"), pa.timestamp("ms"), False),
    (logical("long", "local-timestamp-micros"), pa.timestamp("us"), False),
    (logical("long", "local-timestamp-nanos"), pa.timestamp("ns"), False),
    (logical("string", "uuid"), pa.string(), False),
    (logical("fixed", "uuid", name="u", size=16), pa.binary(16), False),
    (logical("fixed", "duration", name="d", size=12), pa.binary(12), False),
    (logical("bytes", "decimal", precision=38, scale=4), pa.decimal128(38, 4), False),
    (logical("bytes", "decimal", precision=9), pa.decimal128(9, 0), False),
    (logical("bytes", "decimal", precision=76, scale=76), pa.decimal256(76, 76), False),
    (logical("fixed", "decimal", name="d", size=4, precision=9, scale=2), pa.decimal128(9, 2), False),
    (logical("long", "no-such-thing"), pa.int64(), False),
    (logical("string", "date"), pa.string(), False),
    (logical("int", "decimal", precision=0), pa.int32(), False),
    ({"type": "int", "logicalType": ["date"]}, pa.int32(), False),
    (EMPTY, pa.bool_(), False),
    (["null", EMPTY], pa.bool_(), True),
]


@pytest.mark.parametrize(("type_", "arrow", "nullable"), MAPPINGS, ids=lambda value: str(value)[:60])
def test_a_column_has_the_type_its_avro_field_calls_for(type_: object, arrow: pa.DataType, nullable: bool) -> None:
    schema = parse_schema(json.dumps(record(type_)))
    assert schema.arrow == pa.schema([pa.field("a", arrow, nullable=nullable)])


REFUSALS: list[tuple[str, object, str]] = [
    ("an empty message", b"", "JSON"),
    ("a message that is not UTF-8", b'{"\xff": 1}', "UTF-8.*0xff"),
    ("an integer of 5,000 digits", b"1" * 5000, "JSON.*5000"),
    ("50 MB", b"[" * 50_000_000, "50,000,000"),
    ("text that grows when it is escaped", b'"%s"' % ("é" * (MAX_SCHEMA_BYTES // 4)).encode(), "4,194,304"),
    ("JSON a million levels deep", b"[" * 1_000_000, "deeply"),
    ("a value a million levels deep beside the types", b'{"doc": ' + b"[" * 1_000_000, "deeply"),
    ("200 levels of records", record(nested("record", 200)), r"\b64\b"),
    ("200 levels of arrays", record(nested("array", 200)), r"\b64\b"),
    ("200 levels of maps", record(nested("map", 200)), r"\b64\b"),
    ("200 levels of nothing", record(nested("wrapper", 200)), r"\b64\b"),
    ("2^60 fields", doubling(60), " f13: .*20,000"),
    ("20,001 fields", record(*["int"] * 20_001), "20,000"),
    ("a JSON key twice", b'{"type": "record", "type": "int"}', "JSON.*'type'"),
    ("null", None, "nothing"),
    ("a number", 1, "number"),
    ("a top level that is no record", "int", "record.*'int'"),
    ("a top level of two records", [record("int"), {**record("int"), "name": "b"}], "record.*'union'"),
    ("a top level that is only null", ["null"], "record.*'null'"),
    ("an object without a type", {"name": "a"}, "object.*type"),
    ("a type that is a number", {"type": 1}, "number"),
    ("an unknown type", record("int32"), " a: .*'int32'"),
    ("a name that is used before it is defined", record("inner", INNER), " a: .*'inner'"),
    ("an unknown complex type", record({"type": "tuple", "name": "e"}), " a: .*'tuple'"),
    ("Spark's time, which may be many things", record("timestamp"), "timestamp-micros"),
    ("a name of two types", record(FIXED, {**FIXED, "size": 4}, "f"), " c: .*'f'.*twice"),
    ("a namespace of 3 MB", {**record("int"), "namespace": "n" * 3_000_000}, "1,024"),
    ("a type's name of 3 MB", {**record("int"), "name": "a." * 1_500_000 + "b"}, "1,024"),
    ("a recursive record", record({"type": "array", "items": "alert"}), r" a\[\]: .*'alert'.*itself"),
    ("a record that is recursive through null", record(["null", "alert"]), " a: .*'alert'.*itself"),
    ("a record without fields", {"type": "record", "name": "x", "fields": []}, "record.*columns"),
    ("a list of records without fields", record({"type": "array", "items": EMPTY}), r" a\[\]: .*bytes"),
    ("a record whose fields are an object", {"type": "record", "name": "x", "fields": {}}, "record.*list"),
    ("a field that is no object", {"type": "record", "name": "x", "fields": ["int"]}, "name.*nothing"),
    ("a field without a type", {"type": "record", "name": "x", "fields": [{"name": "k"}]}, " k: .*type"),
    ("a record without a name", {"type": "record", "fields": [{"name": "k", "type": "int"}]}, "nothing.*256"),
    ("a record whose name is a list", {"type": "record", "name": ["x"], "fields": []}, "list.*256"),
    ("a column that is also a path", record_of({"c": INNER, "c.x": "int"}), r" c\.x: .*rename"),
    ("a record with an empty part in its name", {"type": "record", "name": "a..b", "fields": []}, r"'a\.\.b'"),
    ("a namespace that is a number", {"type": "record", "name": "x", "namespace": 1, "fields": []}, "namespace"),
    ("an empty union", record([]), " a: .*union"),
    ("a union with null twice", record(["null", "int", {"type": "null"}]), "null twice"),
    ("a union in a union", record([["int"], "null"]), " a: .*directly"),
    ("a union in an object in a union", record([{"type": ["int"]}]), " a: .*directly"),
    ("an array of nulls", record({"type": "array", "items": "null"}), r" a\[\]: .*bytes"),
    ("an array without items", record({"type": "array"}), r" a\[\]: .*'items'"),
    ("a map without values", record({"type": "map"}), " a{}: .*'values'"),
    ("a fixed of size 0", record({**FIXED, "size": 0}), " a: .*fixed.*65,536"),
    ("a fixed of a negative size", record({**FIXED, "size": -1}), " a: .*fixed.*65,536"),
    ("a fixed whose size is true", record({**FIXED, "size": True}), " a: .*fixed.*65,536"),
    ("a fixed of a gigabyte", record({**FIXED, "size": 2**30}), " a: .*fixed.*65,536"),
    ("an enum without symbols", record({**ENUM, "symbols": []}), " a: .*symbols"),
    ("an enum with a symbol twice", record({**ENUM, "symbols": ["A", "A"]}), " a: .*symbol.*twice"),
    ("an enum with a symbol that is a list", record({**ENUM, "symbols": [["A"]]}), " a: .*symbol.*list"),
    ("an enum with a line break in a symbol", record({**ENUM, "symbols": ["A\nB"]}), r" a: .*symbol.*'A\\nB'"),
    ("a decimal without a precision", record(logical("bytes", "decimal")), r" a: .*precision.* 76\b"),
    ("a decimal of 77 digits", record(logical("bytes", "decimal", precision=77)), r" a: .*precision.* 76\b"),
    ("a negative scale", record(logical("bytes", "decimal", precision=4, scale=-1)), "scale.*negative"),
    ("a scale above the precision", record(logical("bytes", "decimal", precision=4, scale=5)), "scale.*greater"),
    ("a scale that is text", record(logical("bytes", "decimal", precision=4, scale="1")), "scale"),
    ("a decimal too wide", record(logical("fixed", "decimal", name="d", size=1, precision=3)), r"\b3\b.*\b1\b"),
]


@pytest.mark.parametrize(("what", "raw", "reason"), REFUSALS, ids=[what for what, _, _ in REFUSALS])
def test_a_hostile_schema_is_refused_in_one_line_that_names_the_field(what: str, raw: object, reason: str) -> None:
    raw = raw if isinstance(raw, bytes) else json.dumps(raw)
    with pytest.raises(SchemaError, match=reason) as caught:
        parse_schema(raw)
    message = str(caught.value)
    assert len(message) < 400
    assert message.isascii()
    assert message.isprintable()


@pytest.mark.parametrize(
    "name",
    ["", " ", "a ", ".", "a..b", "a/b", "a\\b", "../../x", "a=b", "a,b", "\0", "a\n", "\x1b[31m", "\ud800", "a" * 300],
)
def test_a_field_name_that_could_leave_the_dataset_is_refused(name: str) -> None:
    schema = {"type": "record", "name": "x", "fields": [{"name": name, "type": "int"}]}
    with pytest.raises(SchemaError, match="rename") as caught:
        parse_schema(json.dumps(schema))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_two_columns_of_one_name_are_refused() -> None:
    fields = [{"name": "jd", "type": "int"}, {"name": "jd", "type": "double"}]
    with pytest.raises(SchemaError, match=r" a\.jd: .*two"):
        parse_schema(json.dumps(record({"type": "record", "name": "x", "fields": fields})))


def test_names_that_differ_in_case_are_two_columns() -> None:
    fields = [{"name": "jd", "type": "int"}, {"name": "JD", "type": "double"}]
    assert parse_schema(json.dumps({"type": "record", "name": "x", "fields": fields})).arrow.names == ["jd", "JD"]


@pytest.mark.parametrize("name", ["kafka_partition", "kafka_offset"])
def test_a_field_never_takes_the_place_of_the_offset_columns(name: str) -> None:
    inner = {"type": "record", "name": "x", "fields": [{"name": name, "type": "long"}]}
    with pytest.raises(SchemaError, match=f" {name}: .*dataset"):
        parse_schema(json.dumps(inner))
    assert parse_schema(json.dumps(record(inner))).arrow.names == ["a"]


def test_the_bounds_themselves_are_still_accepted() -> None:
    parse_schema(json.dumps(record(nested("record", MAX_DEPTH - 2))))
    parse_schema(json.dumps(record(nested("map", MAX_DEPTH - 2))))
    parse_schema(json.dumps(record({**FIXED, "size": MAX_FIXED_BYTES, "name": "n" * MAX_NAME_CHARS})))
    fields = [{"name": f"f{index}", "type": ["float", "null"]} for index in range(MAX_FIELDS)]
    assert len(parse_schema(json.dumps({"type": "record", "name": "x", "fields": fields})).arrow) == MAX_FIELDS


def test_nulls_of_wide_types_can_not_ask_for_gigabytes() -> None:
    wide = {**FIXED, "size": MAX_FIXED_BYTES}
    fields = [{"name": f"f{index}", "type": ["null", "f"]} for index in range(1000)]
    raw = json.dumps({"type": "record", "name": "x", "fields": [{"name": "w", "type": wide}, *fields]})
    with pytest.raises(SchemaError, match="524,288"):
        parse_schema(raw)


@pytest.mark.parametrize(
    ("space", "reference"),
    [("topLevelRecord", "inner"), ("topLevelRecord", "topLevelRecord.inner"), (None, "inner"), ("", "inner")],
)
def test_types_that_are_used_again_are_found_by_their_namespace(space: str | None, reference: str) -> None:
    top = record({**INNER}, reference, {"type": "array", "items": {"type": reference}})
    schema = parse_schema(json.dumps(top if space is None else {**top, "namespace": space}))
    assert schema.arrow.field("b").type == schema.arrow.field("a").type
    assert schema.arrow.field("c").type.value_type == schema.arrow.field("a").type


def test_a_dotted_name_sets_the_namespace_of_what_is_inside() -> None:
    # Spark writes names such as topLevelRecord.candidate.
    inner = {"type": "record", "name": "topLevelRecord.candidate", "fields": [{"name": "f", "type": FIXED}]}
    parse_schema(json.dumps(record(inner, "topLevelRecord.candidate", "topLevelRecord.f")))
    # Most writers leave the namespace out, where there is only one type of the name.
    parse_schema(json.dumps(record(inner, "topLevelRecord.candidate", "f")))


def test_equal_schemas_have_one_fingerprint_whatever_their_spaces() -> None:
    raw = record("int", ["string", "null"])
    first, second = parse_schema(json.dumps(raw, indent=4).encode()), parse_schema(json.dumps(raw))
    assert first == second
    assert first.fingerprint == second.fingerprint
    assert len(first.fingerprint) == 64
    assert json.loads(first.text) == raw


def test_the_order_of_the_fields_makes_another_schema() -> None:
    first = parse_schema(json.dumps(record("int", "long")))
    swapped = record("int", "long")
    swapped["fields"] = list(reversed(swapped["fields"]))
    assert parse_schema(json.dumps(swapped)) != first


def test_a_schema_reaches_a_worker_unchanged() -> None:
    schema = parse_schema(json.dumps(record(INNER, ["null", ENUM], {"type": "map", "values": "inner"})))
    copy = pickle.loads(pickle.dumps(schema))
    assert copy == schema
    assert copy.arrow == schema.arrow
    assert copy.fingerprint == schema.fingerprint
    assert "parsed" not in repr(schema)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a", pa.int64()),
        ("b.x", pa.int32()),
        ("b", pa.struct([pa.field("x", pa.int32(), nullable=False), pa.field("y", pa.null())])),
        ("b.z", None),
        ("a.x", None),
        ("c.x", None),
        ("", None),
        (".", None),
        ("b.", None),
        ("missing", None),
    ],
)
def test_a_partition_column_is_found_by_its_path(path: str, expected: pa.DataType | None) -> None:
    schema = parse_schema(json.dumps(record("long", INNER, {"type": "array", "items": "inner"})))
    assert field_type(schema.arrow, path) == expected
