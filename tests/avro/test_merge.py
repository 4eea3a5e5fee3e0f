"""Several schemas make one record: what fits is kept as it was written, what does not is refused with its name."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fink_dask.avro.decoder import ColumnarDecoder
from fink_dask.avro.evolution import MAX_VERSIONS, Versions, fit_batch
from fink_dask.avro.schema import AvroSchema, parse_schema
from fink_dask.errors import SchemaError
from tests.harness.examples import examples
from tests.harness.versions import OTHER, V1, V2, V3, encode, make_alert, nullable, record, with_more


def schema(raw: Any) -> AvroSchema:
    return parse_schema(json.dumps(raw))


def of(*raws: Any) -> Versions:
    versions = Versions((schema(raws[0]),))
    for raw in raws[1:]:
        versions = versions.plus(schema(raw))
    return versions


def one(kind: Any) -> Any:
    return record("r", a=kind, b="int")


ENUM = {"type": "enum", "name": "e", "symbols": ["A", "B"]}
ITEM = record("item", x="int")
FITTING: list[tuple[Any, Any, pa.DataType, bool]] = [
    ("int", nullable("int"), pa.int32(), True),
    (["null", "int"], nullable("int"), pa.int32(), True),
    ("null", "string", pa.string(), True),
    (nullable("string"), "null", pa.string(), True),
    (ENUM, ENUM | {"symbols": ["B", "C"]}, pa.string(), False),
    ({"type": "int", "logicalType": "date"}, {"type": "int", "logicalType": "date"}, pa.date32(), False),
    (["int", "string"], ["int", "string", "null"], pa.struct({"member0": pa.int32(), "member1": pa.string()}), True),
    (ITEM, record("item", x="int", y="null"), pa.struct([pa.field("x", pa.int32(), False), ("y", pa.null())]), False),
]
CLASHING: list[tuple[Any, Any, str]] = [
    ("int", "long", "a long.*an int"),
    ("float", "double", "a double.*a float"),
    ("long", "int", "an int.*a long"),
    ("string", "bytes", "bytes.*string"),
    ("string", ENUM, "enum.*string"),
    ("int", {"type": "int", "logicalType": "date"}, "a date.*an int"),
    (
        {"type": "long", "logicalType": "timestamp-millis"},
        {"type": "long", "logicalType": "timestamp-micros"},
        "timestamp-micros.*timestamp-millis",
    ),
    (
        {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
        {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 3},
        r"\b9\b.*\b3\b.*\b9\b.*\b2\b",
    ),
    ({"type": "fixed", "name": "f", "size": 4}, {"type": "fixed", "name": "f", "size": 5}, "fixed of 5.*fixed of 4"),
    (["int", "string"], ["string", "int"], "string and int.*int and string"),
    (["int", "string"], ["int", "string", "long"], "int and string and long.*int and string"),
    ([record("p", x="int"), record("q", x="int")], [record("q", x="int"), record("p", x="int")], "union.*union"),
    ("int", ["int", "string"], "int and string.*an int"),
    ({"type": "array", "items": "int"}, {"type": "array", "items": "long"}, r" a\[\] .*long.*int"),
    ({"type": "map", "values": "int"}, {"type": "map", "values": "string"}, " a{} .*string.*int"),
    (ITEM, record("item", x=record("deep", y="int")), r" a\.x .*a record.*an int"),
    (ITEM, {"type": "map", "values": "int"}, "a map.*a record"),
]


@pytest.mark.parametrize(("first", "second", "kind", "may_be_null"), FITTING, ids=str)
def test_what_fits_has_one_type(first: Any, second: Any, kind: pa.DataType, may_be_null: bool) -> None:
    for pair in ((first, second), (second, first)):
        field = of(*map(one, pair)).arrow.field("a")
        assert (field.type, field.nullable) == (kind, may_be_null)


@pytest.mark.parametrize(("first", "second", "words"), CLASHING, ids=str)
def test_what_does_not_fit_is_named_with_both_types(first: Any, second: Any, words: str) -> None:
    with pytest.raises(SchemaError, match=words):
        of(one(first), one(second))
    with pytest.raises(SchemaError):
        of(one(second), one(first))


def test_columns_come_in_the_order_in_which_they_were_met_and_those_that_not_all_have_may_be_null() -> None:
    versions = of(V1, V2, V3)
    names = ["objectId", "candid", "candidate", "prv_candidates", "tags", "cutout", "finkclass", "origin", "score"]
    assert versions.arrow.names == names
    assert [field.name for field in versions.arrow if not field.nullable] == [
        "objectId",
        "candid",
        "candidate",
        "tags",
        "cutout",
    ]
    assert [field.name for field in versions.arrow.field("candidate").type] == ["jd", "fid", "drb"]
    item = versions.arrow.field("prv_candidates").type.value_type
    assert [(field.name, field.nullable) for field in item] == [("jd", False), ("magpsf", False), ("diffmaglim", True)]


def test_what_is_said_of_a_schema_does_not_change_when_others_are_taken_in() -> None:
    before = of(V1, V2)
    clash = copy.deepcopy(V1)
    clash["fields"].append({"name": "finkclass", "type": "int"})
    clash["fields"].append({"name": "score", "type": "string"})
    said = []
    for versions in (before, before.plus(schema(V3))):
        with pytest.raises(SchemaError) as caught:
            versions.plus(schema(clash))
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert re.search("finkclass.*int.*string", said[0])


def test_there_are_no_more_than_so_many_and_none_grows_without_bound() -> None:
    versions = of(V1, *(with_more(V1, number) for number in range(MAX_VERSIONS - 1)))
    with pytest.raises(SchemaError, match=r"\b16\b"):
        versions.plus(schema(with_more(V1, 100)))
    assert versions.plus(schema(V1)) is versions
    with pytest.raises(SchemaError, match=r"string.*long"):
        versions.plus(schema(OTHER))
    many = [record("r", **{f"x{start + at}": "int" for at in range(15_000)}) for start in (0, 15_000)]
    with pytest.raises(SchemaError, match="fields"):
        of(*many)
    # A million items of a byte would each be as wide as the wide ones.
    small = record("r", items={"type": "array", "items": record("item", x="int")})
    wide = nullable({"type": "fixed", "name": "wide", "size": 60_000})
    large = record("r", items={"type": "array", "items": record("item", x="int", y=wide)})
    for pair in ((small, large), (large, small)):
        with pytest.raises(SchemaError, match="fields"):
            of(*pair)


CHOSEN = st.lists(st.tuples(st.sampled_from([V1, V2, V3]), st.integers(0, 50)), max_size=12)


@examples(30)
@given(CHOSEN, st.permutations([V1, V2, V3]))
def test_rows_in_the_columns_of_all_are_the_rows_with_nulls(chosen: Any, order: Any) -> None:
    versions = of(*order)
    for raw in (V1, V2, V3):
        alerts = [make_alert(raw, number) for kind, number in chosen if kind is raw]
        rows = ColumnarDecoder(schema(raw)).decode([encode(raw, alert) for alert in alerts]).rows
        fitted = fit_batch(rows, versions.arrow)
        fitted.validate(full=True)
        assert fitted.schema.equals(versions.arrow)
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_batches([fitted]), sink)
        read = pq.read_table(pa.BufferReader(sink.getvalue()))
        for row, own in zip(read.to_pylist(), rows.to_pylist(), strict=True):
            assert without_nulls(row) == without_nulls(own)
            assert row.keys() == set(versions.arrow.names)


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


EVERYTHING = record(
    "everything",
    a="boolean",
    b={"type": "fixed", "name": "f", "size": 3},
    c={"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 1},
    d={"type": "map", "values": record("inner", e="string", f={"type": "array", "items": "double"})},
    g={"type": "array", "items": {"type": "map", "values": "int"}},
    h=["int", record("choice", i="bytes")],
    j={"type": "long", "logicalType": "timestamp-nanos"},
    k="null",
    l={"type": "bytes", "logicalType": "decimal", "precision": 60, "scale": 1},
)


@pytest.mark.parametrize("rows", [0, 1, 9])
def test_any_type_that_a_record_lacks_is_null_also_below_a_null(rows: int) -> None:
    poor, rich = record("r", x="int"), record("r", x="int", y=nullable(EVERYTHING), z=EVERYTHING | {"name": "two"})
    rich = json.loads(json.dumps(rich).replace('"name": "two"', '"name": "two", "namespace": "n"'))
    versions = of(poor, rich)
    batch = ColumnarDecoder(schema(poor)).decode([encode(poor, {"x": number}) for number in range(rows)]).rows
    fitted = fit_batch(batch, versions.arrow)
    fitted.validate(full=True)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_batches([fitted]), sink)
    found = pq.read_table(pa.BufferReader(sink.getvalue())).to_pylist()
    assert found == [{"x": number, "y": None, "z": None} for number in range(rows)]
