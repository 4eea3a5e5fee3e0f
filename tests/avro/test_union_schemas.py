"""Which unions a schema may have, and the types of their columns."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from fink_dask.avro.schema import parse_schema
from fink_dask.avro.spelling import MAX_DEPTH
from fink_dask.errors import SchemaError

FIXED = {"type": "fixed", "name": "f", "size": 3}
ENUM = {"type": "enum", "name": "e", "symbols": ["A", "B"]}
INNER = {"type": "record", "name": "inner", "fields": [{"name": "x", "type": "int"}, {"name": "y", "type": ["null"]}]}
INTS, TEXTS = {"type": "array", "items": "int"}, {"type": "array", "items": "string"}
NUMBERS = {"type": "map", "values": "int"}
DATE = {"type": "int", "logicalType": "date"}
NULL = {"type": {"type": "null"}}


def record(*types: object) -> dict[str, object]:
    fields = [{"name": name, "type": type_} for name, type_ in zip("abcdefghijklmnop", types, strict=False)]
    return {"type": "record", "name": "alert", "fields": fields}


def nested(levels: int) -> object:
    """Records of unions of records: two levels each."""
    type_: object = "int"
    for level in range(levels):
        type_ = {"type": "record", "name": f"level{level}", "fields": [{"name": "x", "type": ["string", type_]}]}
    return type_


def doubling(levels: int) -> list[object]:
    """Records with two unions that each have the record before as a member."""
    types: list[object] = [{"type": "record", "name": "t0", "fields": [{"name": "x", "type": "int"}]}]
    for level in range(levels):
        fields = [{"name": name, "type": ["null", "int", f"t{level}"]} for name in ("left", "right")]
        types.append({"type": "record", "name": f"t{level + 1}", "fields": fields})
    return types


def struct(*types: pa.DataType) -> pa.DataType:
    return pa.struct([pa.field(f"member{index}", type_) for index, type_ in enumerate(types)])


MAPPINGS: list[tuple[object, pa.DataType, bool]] = [
    (["int", "string"], struct(pa.int32(), pa.string()), False),
    (["int", "null", "string"], struct(pa.int32(), pa.string()), True),
    (["null", "int", "string"], struct(pa.int32(), pa.string()), True),
    ([NULL, "int", "long"], struct(pa.int32(), pa.int64()), True),
    (["float", "double"], struct(pa.float32(), pa.float64()), False),
    ([ENUM, FIXED, DATE], struct(pa.string(), pa.binary(3), pa.date32()), False),
    (
        [INNER, {"type": "array", "items": ["null", "inner", "long"]}],
        struct(
            inner := pa.struct([pa.field("x", pa.int32(), nullable=False), pa.field("y", pa.null())]),
            pa.list_(struct(inner, pa.int64())),
        ),
        False,
    ),
]


@pytest.mark.parametrize(("type_", "arrow", "nullable"), MAPPINGS, ids=lambda value: str(value)[:60])
def test_a_union_of_several_types_is_a_struct_as_spark_makes_it(
    type_: object, arrow: pa.DataType, nullable: bool
) -> None:
    schema = parse_schema(json.dumps(record(type_)))
    assert schema.arrow == pa.schema([pa.field("a", arrow, nullable=nullable)])


REFUSALS: list[tuple[str, object, str]] = [
    ("of the same type twice", record(["int", "int"]), r" a\.member1: .* int twice"),
    ("of two arrays", record([INTS, "null", TEXTS]), r" a\.member1: .* array twice"),
    ("of two maps", record([NUMBERS, NUMBERS]), "map twice"),
    ("of one record twice", record(["null", INNER, "inner"]), r" a\.member1: .* record twice"),
    ("of one enum twice", record([ENUM, "null", "int", "e"]), r" a\.member2: .* enum twice"),
    ("of one fixed twice", record(["int", FIXED, {"type": "f"}]), r" a\.member2: .* fixed twice"),
    ("of a type and its logical type", record(["int", DATE]), r" a\.member1: .* int twice"),
    ("of 20,001 types", record(["int"] * 20_001), " a: .*20,000"),
    ("of an unknown type", record(["int", "string", "x"]), r" a\.member2: .*'x'"),
    ("that is recursive", record(["int", "alert", "null"]), r" a\.member1: .*'alert'.*itself"),
    ("with a union", record(["long", "null", ["int"]]), r" a\.member1: .*directly"),
    ("with a union in an object", record(["long", {"type": ["int"]}]), r" a\.member1: .*directly"),
    ("in a union", record([["long", "int"], "null"]), " a: .*directly"),
    ("in an array with a union", record({"type": "array", "items": ["int", ["string"]]}), r"a\[\]\.member1: .*direct"),
    ("with null twice", record(["null", "int", "long", {"type": "null"}]), "null twice"),
    ("with a disguised null twice", record(["null", "int", NULL]), "null twice"),
    ("as the top level", [record("int"), "int"], "record.*'union'"),
    ("of 81 levels", record(nested(40)), rf"\b{MAX_DEPTH}\b"),
    ("of 2^14 members", record(*doubling(14)), "20,000"),
    (
        "of wide types",
        record([{**FIXED, "name": f"w{i}", "size": 65_536} for i in range(8)]),
        "524,288",
    ),
]


@pytest.mark.parametrize(("what", "raw", "reason"), REFUSALS, ids=[what for what, _, _ in REFUSALS])
def test_a_union_that_avro_forbids_or_that_is_too_large_is_refused_by_its_place(
    what: str, raw: object, reason: str
) -> None:
    with pytest.raises(SchemaError, match=reason) as caught:
        parse_schema(json.dumps(raw))
    assert len(str(caught.value)) < 400


def test_unions_as_deep_as_records_may_be_are_accepted() -> None:
    parse_schema(json.dumps(record(nested((MAX_DEPTH - 2) // 2))))
