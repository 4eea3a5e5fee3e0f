"""Merge the records of several writer schemas into one, with the columns of all, or say why that is impossible."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fink_dask.avro.operations import allowed_cells
from fink_dask.avro.resolve import MAX_FIELDS, MAX_VALUE_CELLS
from fink_dask.avro.types import AvroType
from fink_dask.errors import SchemaError

_PATH_CHARS = 80

_NULL = AvroType("null")


def merge_types(first: AvroType, second: AvroType, path: str = "") -> AvroType:
    """Merge two types, so that each value of either is a value of the result, unchanged.

    What only one of two records has, or only one allows to be null, may be null. All else must be the same: numbers are
    not widened, because files that were written before would have another type than those that come after.

    Parameters
    ----------
    first : AvroType
        What is there already; its fields come first, in its order.
    second : AvroType
        What is added.
    path : str
        Dotted name of the field, for the error.

    Raises
    ------
    SchemaError
        If they don't fit, with the field and both types.
    """
    if first is second:
        return first
    one, other = first.value, second.value
    may_be_null = first.nullable or second.nullable
    if "null" in (one.kind, other.kind):
        return _nullable(one if other.kind == "null" else other)
    if not _is_same_kind(one, other):
        where = path if len(path) <= _PATH_CHARS else f"...{path[-_PATH_CHARS:]}"
        raise SchemaError(f"field {where} is {_in_words(second)}, and {_in_words(first)} in this dataset")
    merged = one
    if one.kind == "record":
        merged = _merge_records(one, other, path)
    elif one.kind in {"array", "map"}:
        child = merge_types(one.children[0], other.children[0], f"{path}{'[]' if one.kind == 'array' else '{}'}")
        merged = replace(one, children=(child,))
    elif one.kind == "enum":
        merged = replace(one, symbols=tuple(dict.fromkeys((*one.symbols, *other.symbols))))
    return _nullable(merged) if may_be_null else merged


def check_bounds(merged: AvroType, parts: tuple[AvroType, ...]) -> None:
    """Refuse a merged record that is larger than a schema may be, or grows out of the bytes of one of its parts.

    A part's record takes the place of the merged one in Arrow. That is bounded for the whole record; of the items of
    lists there are as many as a record has bytes, so an item may not grow by more than its own bytes allow it anyway.

    Raises
    ------
    SchemaError
        If it is too large.
    """
    wide = any(
        whole.cells > max(item.cells, allowed_cells(_min_bytes(item)))
        for part in parts
        for item, whole in _items(part, merged)
    )
    if wide or merged.field_count > MAX_FIELDS or merged.cells > MAX_VALUE_CELLS:
        raise SchemaError("together with the other schemas of this dataset, it has too many fields")


def _merge_records(one: AvroType, other: AvroType, path: str) -> AvroType:
    fields = dict(zip(one.names, one.children, strict=True))
    added = dict(zip(other.names, other.children, strict=True))
    children = {}
    for name in dict.fromkeys((*fields, *added)):
        if name in fields and name in added:
            children[name] = merge_types(fields[name], added[name], f"{path}.{name}" if path else name)
        else:
            children[name] = _nullable(fields.get(name) or added[name])
    return replace(one, names=tuple(children), children=tuple(children.values()))


def _nullable(node: AvroType) -> AvroType:
    if node.nullable:
        return node
    if node.kind == "choice":
        return replace(node, null_branch=len(node.children))
    return AvroType("union", children=(node.value, _NULL))


def _is_same_kind(one: AvroType, other: AvroType) -> bool:
    """Tell whether two types that are not null hold values of one kind, whatever is below records, arrays and maps."""
    if one.kind == "choice":
        # Members have numbers for names: only where their types differ is it certain which one is meant.
        members = [child.arrow for child in one.children]
        is_clear = len(set(members)) == len(members)
        return is_clear and other.kind == "choice" and members == [child.arrow for child in other.children]
    return (one.kind, one.logical, one.size, one.precision, one.scale) == (
        other.kind,
        other.logical,
        other.size,
        other.precision,
        other.scale,
    )


def _in_words(node: AvroType) -> str:
    value = node.value
    if value.kind == "choice":
        return f"a union of {' and '.join(child.kind for child in value.children[:4])}"
    if value.logical == "decimal":
        return f"a decimal of {value.precision} digits, {value.scale} of them after the point"
    name = f"fixed of {value.size} bytes" if value.kind == "fixed" else value.logical or value.kind
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _items(part: AvroType, whole: AvroType) -> Iterator[tuple[AvroType, AvroType]]:
    """Yield the items of the lists and maps of a part, each with what it becomes."""
    part, whole = part.value, whole.value
    if part.kind == "record":
        places = dict(zip(whole.names, whole.children, strict=True))
        for name, child in zip(part.names, part.children, strict=True):
            yield from _items(child, places[name])
    elif part.kind in {"array", "map"}:
        yield part.children[0], whole.children[0]
        yield from _items(part.children[0], whole.children[0])


def _min_bytes(node: AvroType) -> int:
    """Count the bytes that a value takes at least."""
    if node.kind in {"union", "choice"}:
        return 1
    if node.kind == "record":
        return sum(map(_min_bytes, node.children))
    return {"null": 0, "float": 4, "double": 8, "fixed": node.size}.get(node.kind, 1)
