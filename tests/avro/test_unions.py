"""Unions of two or more types besides null, of which Arrow and Parquet have none."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fink_dask.avro import decoder as decoded
from fink_dask.avro.decoder import ColumnarDecoder
from fink_dask.avro.reference import FastavroDecoder
from fink_dask.avro.schema import field_type, parse_schema
from fink_dask.errors import SettingsError
from tests.alerts.made_up import AlertKind
from tests.avro.oracle import assert_same
from tests.avro.strategies import encode, laid_out
from tests.avro.union_alerts import UnionAlerts

RECORD = {"type": "record", "name": "r", "fields": [{"name": "x", "type": "int"}, {"name": "s", "type": "string"}]}
ENUM = {"type": "enum", "name": "e", "symbols": ["A", "BB"]}
FIXED = {"type": "fixed", "name": "f", "size": 3}
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2}
WIDE = {"type": "fixed", "name": "w", "size": 20, "logicalType": "decimal", "precision": 40, "scale": 1}
DATE = {"type": "int", "logicalType": "date"}
LONGS = {"type": "array", "items": "long"}
MAP = {"type": "map", "values": ["null", "int"]}
BOTH = pytest.mark.parametrize("make", [ColumnarDecoder, FastavroDecoder])


def alert(*types: object) -> dict[str, object]:
    fields = [{"name": f"f{index}", "type": type_} for index, type_ in enumerate(types)]
    return {"type": "record", "name": "alert", "fields": fields}


def members(count: int, **taken: object) -> dict[str, object]:
    return {f"member{index}": taken.get(f"member{index}") for index in range(count)}


def decode(make: Callable[..., decoded.Decoder], schema: object, values: list[bytes], *columns: str) -> pa.RecordBatch:
    result = make(parse_schema(json.dumps(schema)), columns or None).decode(values)
    assert result.bad == ()
    result.rows.validate(full=True)
    return result.rows


#: Each branch of a union, as its bytes and as what a row has.
BRANCHES: list[tuple[str, list[object], list[tuple[bytes, object]]]] = [
    (
        "the null in the middle has no member",
        ["int", "null", "string"],
        [
            (b"\0\4", members(2, member0=2)),
            (b"\2", None),
            (b"\4\4hi", members(2, member1="hi")),
            (b"\4\0", members(2, member1="")),
        ],
    ),
    (
        "int and long stay apart, as float and double do",
        ["long", "int", "float", "double"],
        [
            (b"\0" + b"\xff" * 9 + b"\1", members(4, member0=-(2**63))),
            (b"\2\1", members(4, member1=-1)),
            (b"\4\0\0\xc0\x3f", members(4, member2=1.5)),
            (b"\6\0\0\0\0\0\0\xf8\x3f", members(4, member3=1.5)),
        ],
    ),
    (
        "records, arrays, maps, enums, fixed",
        [RECORD, LONGS, MAP, ENUM, FIXED, "null"],
        [
            (b"\0\2\2a", members(5, member0={"x": 1, "s": "a"})),
            (b"\2\3\4\2\4\2\6\0", members(5, member1=[1, 2, 3])),
            (b"\2\0", members(5, member1=[])),
            (b"\4\4\2k\2\6\0\0\0", members(5, member2=[("k", 3), ("", None)])),
            (b"\6\2", members(5, member3="BB")),
            (b"\x08abc", members(5, member4=b"abc")),
            (b"\x0a", None),
        ],
    ),
    (
        "logical types",
        [DECIMAL, WIDE, DATE, {"type": "long", "logicalType": "timestamp-micros"}, "boolean"],
        [
            (b"\0\4\x04\xd2", members(5, member0=Decimal("12.34"))),
            (b"\2" + b"\xff" * 20, members(5, member1=Decimal("-0.1"))),
            (b"\4\1", members(5, member2=pa.scalar(-1, pa.date32()).as_py())),
            (b"\6\2", members(5, member3=pa.scalar(1, pa.timestamp("us", tz="UTC")).as_py())),
            (b"\x08\1", members(5, member4=True)),
        ],
    ),
    (
        "two records are two types",
        [RECORD, {**RECORD, "name": "q"}],
        [(b"\0\2\0", members(2, member0={"x": 1, "s": ""})), (b"\2\3\0", members(2, member1={"x": -2, "s": ""}))],
    ),
]
PLACES: list[tuple[str, Callable[[object], object], Callable[[list[bytes]], bytes], Callable[[object], object]]] = [
    (
        "an array",
        lambda union: {"type": "array", "items": union},
        lambda values: bytes([2 * len(values)]) + b"".join(values) + b"\0",
        lambda values: values,
    ),
    (
        "a map",
        lambda union: {"type": "map", "values": union},
        lambda values: b"".join(b"\2\2k" + value for value in values) + b"\0",
        lambda values: [("k", value) for value in values],
    ),
]


@BOTH
@pytest.mark.parametrize(("what", "union", "values"), BRANCHES, ids=[what for what, _, _ in BRANCHES])
def test_the_value_of_each_branch_is_in_its_member_and_no_other_is(
    what: str, union: list[object], values: list[tuple[bytes, object]], make: Callable[..., decoded.Decoder]
) -> None:
    # Up and down, so that every branch follows every other, with a field on each side.
    values = values + values[::-1] + values[::2] + values[1::2]
    rows = decode(make, alert("string", union, "bytes"), [b"\2a" + raw + b"\2z" for raw, _ in values])
    assert rows.column(1).to_pylist() == [value for _, value in values]
    assert rows.column(0).to_pylist() == ["a"] * len(values)
    assert rows.column(2).to_pylist() == [b"z"] * len(values)
    taken = sum(pa.compute.is_valid(field).to_numpy(zero_copy_only=False) for field in rows.column(1).flatten())
    assert taken.tolist() == [0 if value is None else 1 for _, value in values]


@BOTH
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place[0])
@pytest.mark.parametrize(("what", "union", "values"), BRANCHES, ids=[what for what, _, _ in BRANCHES])
def test_items_of_arrays_and_maps_and_fields_of_records_in_them_may_be_unions(
    what: str,
    union: list[object],
    values: list[tuple[bytes, object]],
    place: tuple,
    make: Callable[..., decoded.Decoder],
) -> None:
    _, wrap, join, expect = place
    raw, seen = [each for each, _ in values], [value for _, value in values]
    rows = decode(make, alert(wrap(union)), [join(raw), join(raw[::-1]), b"\0", join(raw[:1])])
    assert rows.column(0).to_pylist() == [expect(seen), expect(seen[::-1]), [], expect(seen[:1])]
    inner = {"type": "record", "name": "i", "fields": [{"name": "u", "type": union}]}
    rows = decode(make, alert(wrap([inner, "string"])), [join([b"\0" + each for each in raw] + [b"\2\2q"])])
    wanted = [members(2, member0={"u": value}) for value in seen] + [members(2, member1="q")]
    assert rows.column(0).to_pylist() == [expect(wanted)]


@BOTH
def test_a_union_of_more_branches_than_one_byte_counts_is_read(make: Callable[..., decoded.Decoder]) -> None:
    union = [{"type": "fixed", "name": f"n{index}", "size": 1} for index in range(150)]
    numbers = [0, 1, 63, 64, 65, 127, 128, 149]
    for at in (0, 64, 150):
        raw = [encode(alert("long"), {"f0": number + (number >= at)}) + bytes([number]) for number in numbers]
        null = encode(alert("long"), {"f0": at})
        rows = decode(make, alert([*union[:at], "null", *union[at:]]), [*raw, null])
        taken = [{key: value for key, value in row["f0"].items() if value is not None} for row in rows.to_pylist()[:-1]]
        assert taken == [{f"member{number}": bytes([number])} for number in numbers]
        assert rows.column(0)[-1].as_py() is None


@BOTH
@pytest.mark.parametrize(
    ("poison", "reason"),
    [
        (b"\6\0", r"branch 3\b.*\b3\b.* f0$"),
        (b"\1\0", r"branch -1\b.*\b3\b.* f0$"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\1", r"branch.*\b3\b.* f0$"),
        (b"", "empty"),
        (b"\0", r"end.*\b1\b"),
        (b"\0\xff\xff\xff\xff\xff\1", r"32 bits.* f0\.member0$"),
        (b"\4\2\xff", r"UTF-8.*\b0\b.* f0\.member1\[\]\.member1$"),
        (b"\4\2\4\0", r"branch 2\b.*\b2\b.* f0\.member1\[\]$"),
        (b"\2\0", r"\b1\b.*follow"),
    ],
)
def test_a_damaged_union_is_set_aside_and_its_neighbours_arrive(
    poison: bytes, reason: str, make: Callable[..., decoded.Decoder]
) -> None:
    schema = parse_schema(json.dumps(alert(["int", "null", {"type": "array", "items": ["long", "string"]}])))
    poison = poison.replace(b"\4\2\xff", b"\4\2\2\2\xff")
    good = [b"\0\2", b"\4\2\2\2a\0", b"\2"]
    result = make(schema).decode([good[0], poison, good[1], poison, good[2]])
    result.rows.validate(full=True)
    assert [bad.index for bad in result.bad] == [1, 3]
    assert all(re.search(reason, bad.reason) for bad in result.bad), result.bad
    in_list = [members(2, member1="a")]
    assert result.rows.column(0).to_pylist() == [members(2, member0=1), members(2, member1=in_list), None]


SOME_COLUMNS = [
    ["f1.member0.x"],
    ["f1.member2", "f3"],
    ["f2.member1"],
    ["f1.member0.u.member1", "f0"],
    ["f1.member0.u", "f2"],
]


@pytest.mark.parametrize("columns", SOME_COLUMNS, ids=",".join)
def test_one_member_can_be_asked_for_and_the_others_are_stepped_over(columns: list[str]) -> None:
    fields = [{"name": "u", "type": ["bytes", "string", "null", LONGS]}, {"name": "x", "type": ["null", "double"]}]
    inner = {"type": "record", "name": "i", "fields": fields}
    raw = alert("string", ["null", inner, FIXED, MAP, ENUM], ["null", "int", "i", "bytes"], ["float", "boolean"])
    one, other = {"u": ("string", "ü"), "x": 0.5}, {"u": ("array", [1, 2]), "x": None}
    rows = [
        {"f0": "a", "f1": ("i", one), "f2": ("int", 7), "f3": ("boolean", True)},
        {"f0": "b", "f1": ("f", b"abc"), "f2": None, "f3": ("float", 1.5)},
        {"f0": "c", "f1": ("map", {"k": None}), "f2": ("i", other), "f3": ("boolean", False)},
        {"f0": "d", "f1": None, "f2": ("bytes", b"z"), "f3": ("float", -0.0)},
        {"f0": "e", "f1": ("e", "BB"), "f2": ("i", {"u": None, "x": 1.0}), "f3": ("float", 2.0)},
    ]
    values = [encode(raw, row) for row in rows]
    schema = parse_schema(json.dumps(raw))
    some = ColumnarDecoder(schema, columns)
    found = some.decode(values)
    found.rows.validate(full=True)
    assert found.rows.schema == some.arrow
    assert_same(FastavroDecoder(schema, columns).decode(values), found)
    everything = decode(ColumnarDecoder, raw, values)
    for column in columns:
        assert field_type(some.arrow, column) == field_type(everything.schema, column)
        first, *rest = column.split(".")
        left, right = found.rows.column(first), everything.column(first)
        for name in rest:
            left, right = pa.compute.struct_field(left, name), pa.compute.struct_field(right, name)
        assert left.equals(right)


@BOTH
@pytest.mark.parametrize("column", ["f0.member2", "f0.int", "f0.member1.x", "f0.member0.y"])
def test_a_member_that_there_is_not_is_named(column: str, make: Callable[..., decoded.Decoder]) -> None:
    with pytest.raises(SettingsError, match=column.replace(".", r"\.")):
        make(parse_schema(json.dumps(alert([RECORD, "string", "null"]))), [column])


def test_a_field_of_a_member_can_be_a_partition_column() -> None:
    schema = parse_schema(json.dumps(alert(["null", "string", RECORD])))
    assert field_type(schema.arrow, "f0.member1.x") == pa.int32()
    assert field_type(schema.arrow, "f0.member2") is None


@pytest.mark.parametrize("kind", AlertKind)
def test_alerts_full_of_unions_arrive_bit_for_bit(kind: AlertKind, tmp_path: Path) -> None:
    alerts = UnionAlerts(kind, seed=3)
    values, schema = alerts.encoded(12), parse_schema(json.dumps(alerts.schema))
    found = ColumnarDecoder(schema).decode(values)
    found.rows.validate(full=True)
    assert found.bad == ()
    assert_same(FastavroDecoder(schema).decode(values), found)
    pq.write_table(pa.Table.from_batches([found.rows]), tmp_path / "alerts.parquet")
    # In words, because NaN does not equal itself.
    assert str(pq.read_table(tmp_path / "alerts.parquet").to_pylist()) == str(found.rows.to_pylist())


def test_what_the_tests_take_for_the_truth_has_one_member_a_value() -> None:
    union = ["string", "null", LONGS, RECORD]
    assert laid_out(union, None) is None
    assert laid_out(union, ("array", [1])) == members(3, member1=[1])
    assert laid_out(alert(union), {"f0": ("r", {"x": 1, "s": "a"})}) == {"f0": members(3, member2={"x": 1, "s": "a"})}
