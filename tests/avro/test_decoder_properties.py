from __future__ import annotations

import json
import math
import struct
from io import BytesIO

import fastavro
from hypothesis import given, settings
from hypothesis import strategies as st

from fink_dask.avro.decoder import make_decoder
from fink_dask.avro.schema import parse_schema

QUICK = settings(deadline=None, max_examples=120)
TWO_TO_62 = b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f"


def encode(schema: object, row: object) -> bytes:
    stream = BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), row)
    return stream.getvalue()


PRIMITIVES = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(width=32),
    "double": st.floats(),
    "string": st.text(max_size=5),
    "bytes": st.binary(max_size=5),
}


@st.composite
def typed(draw: st.DrawFn, names: list[str], depth: int = 3) -> tuple[object, st.SearchStrategy[object]]:
    """A random type with a strategy for its values; ``names`` holds what is defined."""
    kinds = ["primitive", "union", "fixed", "enum"] + (["array", "map", "record"] if depth else [])
    kind = draw(st.sampled_from(kinds))
    names.append(f"t{len(names)}")
    name = names[-1]
    if kind == "fixed":
        return {"type": "fixed", "name": name, "size": 3}, st.binary(min_size=3, max_size=3)
    if kind == "enum":
        return {"type": "enum", "name": name, "symbols": ["A", "BB"]}, st.sampled_from(["A", "BB"])
    if kind == "record":
        fields = [draw(typed(names, depth - 1)) for _ in range(draw(st.integers(1, 3)))]
        schema = {
            "type": "record",
            "name": name,
            "fields": [{"name": f"f{i}", "type": f[0]} for i, f in enumerate(fields)],
        }
        return schema, st.fixed_dictionaries({f"f{index}": field[1] for index, field in enumerate(fields)})
    if kind in {"array", "map", "union"}:
        inner, values = draw(typed(names, depth - 1).filter(lambda pair: kind == "map" or not empty(pair[0])))
        if kind == "array":
            return {"type": "array", "items": inner}, st.lists(values, max_size=3)
        if kind == "map":
            return {"type": "map", "values": inner}, st.dictionaries(st.text(max_size=3), values, max_size=3)
        if isinstance(inner, list):
            return inner, values
        branches = draw(st.sampled_from([[inner, "null"], ["null", inner], [inner]]))
        return branches, values | st.none() if len(branches) == 2 else values
    primitive = draw(st.sampled_from(sorted(PRIMITIVES)))
    return primitive, PRIMITIVES[primitive]


def empty(type_: object) -> bool:
    if isinstance(type_, dict) and type_["type"] == "record":
        return all(empty(field["type"]) for field in type_["fields"])
    return type_ == "null"


@st.composite
def batches(draw: st.DrawFn) -> tuple[dict[str, object], list[object]]:
    names: list[str] = []
    fields = [draw(typed(names)) for _ in range(draw(st.integers(1, 4)))]
    rows = st.fixed_dictionaries({f"f{index}": field[1] for index, field in enumerate(fields)})
    schema = {
        "type": "record",
        "name": "alert",
        "fields": [{"name": f"f{i}", "type": f[0]} for i, f in enumerate(fields)],
    }
    return schema, draw(st.lists(rows, min_size=1, max_size=5))


def same(left: object, right: object) -> bool:
    """Compare what fastavro and Arrow make of one value; NaN equals NaN, 0 does not equal -0 or False."""
    if isinstance(left, dict) and isinstance(right, list):
        right = dict(right)
    if isinstance(left, dict):
        return (
            isinstance(right, dict) and list(left) == list(right) and all(same(left[key], right[key]) for key in left)
        )
    if isinstance(left, (list, tuple)):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and isinstance(right, float):
        return (math.isnan(left) and math.isnan(right)) or struct.pack("d", left) == struct.pack("d", right)
    return type(left) is type(right) and left == right


@QUICK
@given(batches())
def test_every_value_of_every_type_arrives_as_it_was_written(case: tuple[dict[str, object], list[object]]) -> None:
    schema, rows = case
    values = [encode(schema, row) for row in rows]
    result = make_decoder(parse_schema(json.dumps(schema))).decode(values)
    assert result.bad == ()
    assert result.positions.tolist() == list(range(len(rows)))
    result.rows.validate(full=True)
    parsed = fastavro.parse_schema(schema)
    oracle = [fastavro.schemaless_reader(BytesIO(value), parsed, None) for value in values]
    assert same(oracle, result.rows.to_pylist())


@QUICK
@given(batches(), st.data())
def test_damaged_bytes_harm_no_record_but_their_own(
    case: tuple[dict[str, object], list[object]], data: st.DataObject
) -> None:
    schema, rows = case
    decoder = make_decoder(parse_schema(json.dumps(schema)))
    values = [encode(schema, row) for row in rows]
    victim = data.draw(st.integers(0, len(values) - 1))
    value = values[victim]
    cut = data.draw(st.integers(0, len(value)))
    damaged = data.draw(
        st.sampled_from([value[:cut], value + value[:cut], value[:cut] + TWO_TO_62 + value[cut:]])
        | st.binary(max_size=20).map(lambda noise: value[:cut] + noise + value[cut + len(noise) :])
    )
    result = decoder.decode([*values[:victim], damaged, *values[victim + 1 :]])
    result.rows.validate(full=True)
    assert result.rows.num_rows + len(result.bad) == len(values)
    assert {bad.index for bad in result.bad} <= {victim}
    untouched = decoder.decode(values).rows
    for row, position in enumerate(result.positions.tolist()):
        if position != victim:
            assert same(untouched.slice(position, 1).to_pylist(), result.rows.slice(row, 1).to_pylist())
