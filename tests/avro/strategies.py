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
    """A random type with a strategy for its values, as fastavro writes them; ``names`` holds what is defined."""
    kinds = ["primitive", "union", "fixed", "enum"] + (["array", "map", "record"] if depth > 0 else [])
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
    if kind in {"array", "map"}:
        inner, values = draw(typed(names, depth - 1).filter(lambda pair: kind == "map" or not empty(pair[0])))
        if kind == "array":
            return {"type": "array", "items": inner}, st.lists(values, max_size=3)
        return {"type": "map", "values": inner}, st.dictionaries(st.text(max_size=3), values, max_size=3)
    if kind == "union":
        return draw(union(names, depth))
    primitive = draw(st.sampled_from(sorted(PRIMITIVES)))
    return primitive, PRIMITIVES[primitive]


@st.composite
def union(draw: st.DrawFn, names: list[str], depth: int) -> tuple[object, st.SearchStrategy[object]]:
    """A union of up to four types besides null; a value is a pair of its branch's name and itself."""
    members: dict[str, tuple[object, st.SearchStrategy[object]]] = {}
    for _ in range(draw(st.integers(1, 4))):
        inner, values = draw(typed(names, depth - 1))
        if not isinstance(inner, list) and inner != "null":
            members.setdefault(branch_name(inner), (inner, values))
    if not members:
        return ["null"], st.none()
    branches = [inner for inner, _ in members.values()]
    # fastavro would take a value for the first branch that it fits, and does not look for pairs within it.
    values = st.one_of([st.tuples(st.just(name), values) for name, (_, values) in members.items()])
    place = draw(st.none() | st.integers(0, len(branches)))
    if place is None:
        return branches, values
    return [*branches[:place], "null", *branches[place:]], values | st.none()


def branch_name(type_: object) -> str:
    """What fastavro calls a branch: the name of what has one, of anything else its type."""
    return str(type_.get("name", type_["type"])) if isinstance(type_, dict) else str(type_)


def laid_out(type_: object, value: object) -> object:
    """Lay a value that fastavro writes out as rows do: the members of a union of two or more types are a struct's."""
    if isinstance(type_, list):
        branches = [branch for branch in type_ if branch != "null"]
        if value is None:
            return None
        name, inner = value
        if len(branches) == 1:
            return laid_out(branches[0], inner)
        taken = {branch_name(branch): branch for branch in branches}
        return {
            f"member{index}": laid_out(taken[each], inner) if each == name else None for index, each in enumerate(taken)
        }
    if isinstance(type_, dict) and type_["type"] == "record":
        return {field["name"]: laid_out(field["type"], value[field["name"]]) for field in type_["fields"]}
    if isinstance(type_, dict) and type_["type"] == "array":
        return [laid_out(type_["items"], item) for item in value]
    if isinstance(type_, dict) and type_["type"] == "map":
        return {key: laid_out(type_["values"], item) for key, item in value.items()}
    return value


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
