"""Random schemas with values that fit them, for tests that compare decoders."""

from __future__ import annotations

from io import BytesIO

import fastavro
from hypothesis import strategies as st


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
