"""The fields of a schema for people to read: their types in words, and what the writer says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fink_dask.avro.schema import AvroSchema
from fink_dask.avro.types import AvroType

#: What a writer says of the fields of its records, by record and name.
_Docs = dict[AvroType, Mapping[str, str]]
#: Symbols of an enum that are named.
_SYMBOLS = 8


@dataclass(frozen=True)
class Field:
    """A field of a record."""

    name: str
    #: Its Avro type in words, such as ``list of record``.
    type: str
    #: Whether it may be null.
    nullable: bool
    #: What the writer says of it, unchecked; empty where it says nothing.
    doc: str
    #: The fields of the record, or the members of the union, that it or its items are.
    fields: tuple[Field, ...]


def fields_of(schema: AvroSchema) -> tuple[Field, ...]:
    """Describe the fields of a schema, in its order."""
    docs: _Docs = {}
    _gather(schema.document, schema.top, docs)
    return _fields(schema.parsed, docs)


def count_fields(fields: Sequence[Field]) -> int:
    """Count fields, including those inside others."""
    return sum(1 + count_fields(field.fields) for field in fields)


def _gather(raw: object, node: AvroType, docs: _Docs) -> None:
    """Note what a definition says of its fields; a mere reference to it by name says nothing."""
    if isinstance(raw, list):
        for branch, (_, child) in zip(raw, node.branches, strict=True):
            _gather(branch, child, docs)
    elif isinstance(raw, dict):
        kind = raw["type"]
        if kind in {"array", "map"}:
            _gather(raw["items" if kind == "array" else "values"], node.children[0], docs)
        elif kind == "record":
            docs[node] = {field["name"]: field["doc"] for field in raw["fields"] if isinstance(field.get("doc"), str)}
            for field, child in zip(raw["fields"], node.children, strict=True):
                _gather(field["type"], child, docs)


def _fields(node: AvroType, docs: _Docs) -> tuple[Field, ...]:
    said = docs.get(node, {})
    return tuple(
        Field(name, _in_words(child), child.nullable, said.get(name, ""), _fields(_innermost(child), docs))
        for name, child in zip(node.names, node.children, strict=True)
    )


def _innermost(node: AvroType) -> AvroType:
    """Return what the items of lists and maps are made of."""
    value = node.value
    return _innermost(value.children[0]) if value.kind in {"array", "map"} else value


def _in_words(node: AvroType) -> str:
    value = node.value
    if value.kind in {"array", "map"}:
        items = _in_words(value.children[0])
        return f"list of {items}" if value.kind == "array" else f"map of {items}"
    if value.kind == "choice":
        return f"union of {len(value.children)} types"
    if value.kind == "enum":
        more = ", …" if len(value.symbols) > _SYMBOLS else ""
        return f"enum ({', '.join(value.symbols[:_SYMBOLS])}{more})"
    kind = f"fixed of {value.size} bytes" if value.kind == "fixed" else value.kind
    if value.logical == "decimal":
        return f"{kind} (decimal of {value.precision} digits, {value.scale} after the point)"
    return f"{kind} ({value.logical})" if value.logical else kind
