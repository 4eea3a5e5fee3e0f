"""Alerts most of whose fields are unions of several types, made of those that surveys send."""

from __future__ import annotations

import random
from collections.abc import Callable
from io import BytesIO

import fastavro

from tests.alerts.made_up import AlertKind, avro_schema, made_up_alerts
from tests.avro.strategies import branch_name

#: What a field may be instead, with a value of it.
OTHERS: dict[str, tuple[object, object]] = {
    "boolean": ("boolean", True),
    "int": ("int", -(2**31)),
    "double": ("double", 0.5),
    "string": ("string", "日本"),
    "bytes": ("bytes", b"\x80\x00\xff"),
    "array": ({"type": "array", "items": ["string", "null", "long"]}, [("long", 2**62), None, ("string", "é" * 9)]),
    "map": ({"type": "map", "values": ["null", "bytes", "float"]}, {"": ("float", 1.5), "k": ("bytes", b"abc")}),
}

_Convert = Callable[[object], object]


class UnionAlerts:
    """Alerts of a survey in which everything that may be null is a union of two or three other types.

    `seed`: decides the types, and which of them a value is.
    """

    def __init__(self, kind: AlertKind, seed: int) -> None:
        self._kind = kind
        self._rng = random.Random(seed)
        self._known: dict[str, _Convert] = {}
        parsed = fastavro.parse_schema(avro_schema(kind))
        self.schema, self._convert = self._widen({key: parsed[key] for key in ("type", "name", "fields")})

    def encoded(self, count: int) -> list[bytes]:
        """Make alerts up and encode them."""
        parsed, values = fastavro.parse_schema(self.schema), []
        for alert in made_up_alerts(self._kind, count):
            stream = BytesIO()
            fastavro.schemaless_writer(stream, parsed, self._convert(alert))
            values.append(stream.getvalue())
        return values

    def _widen(self, type_: object) -> tuple[object, _Convert]:
        if isinstance(type_, list):
            return self._widen_union(next(branch for branch in type_ if branch != "null"))
        if isinstance(type_, str):
            return type_, self._known.get(type_, lambda value: value)
        kind = type_["type"]
        if kind == "record":
            fields = {field["name"]: self._widen(field["type"]) for field in type_["fields"]}
            convert = self._known[type_["name"]] = lambda row: {
                name: change(row[name]) for name, (_, change) in fields.items()
            }
            plain = [{"name": name, "type": field} for name, (field, _) in fields.items()]
            return {"type": "record", "name": type_["name"], "fields": plain}, convert
        key = "items" if kind == "array" else "values"
        inner, change = self._widen(type_[key])
        if kind == "array":
            return {"type": "array", key: inner}, lambda items: [change(item) for item in items]
        return {"type": "map", key: inner}, lambda items: {name: change(item) for name, item in items.items()}

    def _widen_union(self, branch: object) -> tuple[object, _Convert]:
        rng, (inner, change), name = self._rng, self._widen(branch), branch_name(branch)
        others = {other: OTHERS[other] for other in rng.sample(sorted(OTHERS), 3) if other != name}
        branches = [inner, "null", *(other for other, _ in others.values())]
        rng.shuffle(branches)

        def convert(value: object) -> object:
            if rng.random() < 0.1:
                other = rng.choice(sorted(others))
                return other, others[other][1]
            return None if value is None else (name, change(value))

        return branches, convert
