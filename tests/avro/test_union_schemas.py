"""Which unions a schema may have, and the types of their columns."""

from __future__ import annotations

import json
import re

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
    ("of the same type twice", record(["int", "int"]), "a.member1: a union that has the same int twice"),
    ("of two arrays", record([INTS, "null", TEXTS]), "a.member1: a union that has the same array twice"),
    ("of two maps", record([NUMBERS, NUMBERS]), "has the same map twice"),
    ("of one record twice", record(["null", INNER, "inner"]), "a.member1: a union that has the same record"),
    ("of one enum twice", record([ENUM, "null", "int", "e"]), "a.member2: a union that has the same enum"),
    ("of one fixed twice", record(["int", FIXED, {"type": "f"}]), "a.member2: a union that has the same fixed"),
    ("of a type and its logical type", record(["int", DATE]), "a.member1: a union that has the same int twice"),
    ("of 20,001 types", record(["int"] * 20_001), "field a: a union of more than 20,000 types"),
    ("of an unknown type", record(["int", "string", "x"]), "field a.member2: unknown type 'x'"),
    ("that is recursive", record(["int", "alert", "null"]), "field a.member1: the type 'alert' contains itself"),
    ("with a union", record(["long", "null", ["int"]]), "a.member1: a union directly in a union"),
    ("with a union in an object", record(["long", {"type": ["int"]}]), "a.member1: a union directly in a union"),
    ("in a union", record([["long", "int"], "null"]), "a union directly in a union"),
    ("in an array with a union", record({"type": "array", "items": ["int", ["string"]]}), "a[].member1: a union dir"),
    ("with null twice", record(["null", "int", "long", {"type": "null"}]), "null twice"),
    ("with a disguised null twice", record(["null", "int", NULL]), "null twice"),
    ("as the top level", [record("int"), "int"], "must be a record"),
    ("of 81 levels", record(nested(40)), f"more than {MAX_DEPTH} levels"),
    ("of 2^14 members", record(*doubling(14)), "more than 20,000 fields when every use"),
    (
        "of wide types",
        record([{**FIXED, "name": f"w{i}", "size": 65_536} for i in range(8)]),
        "more than 524,288 bytes",
    ),
]


@pytest.mark.parametrize(("what", "raw", "reason"), REFUSALS, ids=[what for what, _, _ in REFUSALS])
def test_a_union_that_avro_forbids_or_that_is_too_large_is_refused_by_its_place(
    what: str, raw: object, reason: str
) -> None:
    with pytest.raises(SchemaError, match=re.escape(reason)) as caught:
        parse_schema(json.dumps(raw))
    assert len(str(caught.value)) < 400


def test_unions_as_deep_as_records_may_be_are_accepted() -> None:
    parse_schema(json.dumps(record(nested((MAX_DEPTH - 2) // 2))))
