"""Several writer schemas whose records make one dataset, and a record cut down to the fields that are asked for.

The records of several schemas are merged into one, with the columns of all, or it is said why that is impossible; the
rows of one are fitted into the columns of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

import pyarrow as pa

from fink_dask.avro.operations import BATCH_CELLS, allowed_cells
from fink_dask.avro.schema import MAX_CELLS, MAX_VALUE_CELLS, AvroSchema
from fink_dask.avro.spelling import MAX_FIELDS, show, steps_to
from fink_dask.avro.types import AvroType, lazy_property
from fink_dask.errors import SchemaError, SettingsError

_PATH_CHARS = 80

_NULL = AvroType("null")

#: The most schemas of a dataset: a producer has one, and changes it now and then.
MAX_VERSIONS = 16


def near_column(column: str, fields: Iterable[pa.Field]) -> str:
    """Name the column that the user may have meant, for the end of an error; fields of structs have dots.

    Returns: such as ``; did you mean magpsf?``; empty where nothing is like it.
    """
    names = []
    for field in fields:
        names.append(field.name)
        if pa.types.is_struct(field.type):
            names += [f"{field.name}.{field.type.field(index).name}" for index in range(field.type.num_fields)]
    last = column.rpartition(".")[2]
    found = [name for name in names if name.rpartition(".")[2] == last] or get_close_matches(column, names, 1)
    return f"; did you mean {found[0]}?" if found else ""


def project(record: AvroType, columns: Sequence[str] | None) -> AvroType:
    """Keep some of the fields of a record.

    `columns`: columns such as ``objectId``, or fields of structs such as ``candidate.jd``; None keeps everything. A
    column that is named keeps all its fields. The members of a choice are its fields.
    Returns: A record with these fields, in the order of the schema.
    Raises SettingsError if there is no such column, or none is named.
    """
    if columns is None:
        return record
    if not columns:
        raise SettingsError("no column is named")
    for column in columns:
        _check(record, column)
    return _keep(record, [steps_to(record.names, column) for column in columns])


def covering(record: AvroType, columns: Sequence[str] | None) -> tuple[str, ...] | None:
    """Name the columns of a record that hold all that it has of the columns of several; see `project`.

    Where it has a struct, but not the field that is asked for, it is the whole struct: whether that is null counts.
    Of a record that has none of them it is the first column, because a row can't be without any.
    """
    if columns is None:
        return None
    found: dict[str, None] = {}
    for column in columns:
        node, path = record, []
        for name in steps_to(record.names, column):
            node = node.value
            if name not in node.names:
                break
            path.append(name)
            node = node.children[node.names.index(name)]
        if path:
            found[".".join(path)] = None
    return tuple(found) or record.names[:1]


def project_array(array: pa.Array, node: AvroType, kept: AvroType) -> pa.Array:
    """Cut a column down to the fields of a projection, without copying."""
    if node is kept:
        return array
    node, kept = node.value, kept.value
    whole = dict(zip(node.names, zip(range(len(node.names)), node.children, strict=True), strict=True))
    children = []
    for name, child in zip(kept.names, kept.children, strict=True):
        index, full = whole[name]
        children.append(project_array(array.field(index), full, child))
    return pa.Array.from_buffers(kept.arrow, len(array), array.buffers()[:1], array.null_count, 0, children)


def _keep(node: AvroType, paths: Iterable[list[str]]) -> AvroType:
    if node.kind == "union":
        return replace(node, children=tuple(_keep(child, paths) if child.names else child for child in node.children))
    rests: dict[str, list[list[str]]] = {}
    for first, *rest in paths:
        rests.setdefault(first, []).append(rest)
    kept = {
        name: child if [] in rests[name] else _keep(child, rests[name])
        for name, child in zip(node.names, node.children, strict=True)
        if name in rests
    }
    return replace(node, names=tuple(kept), children=tuple(kept.values()))


def _check(record: AvroType, column: str) -> None:
    node = record
    for name in steps_to(record.names, column):
        node = node.value
        if name not in node.names:
            if node.kind in {"array", "map"}:
                raise SettingsError(f"the column {show(column)} is inside a list or a map: name the whole of that")
            near = near_column(column, record.arrow)
            raise SettingsError(f"the schema has no column {show(column)}{near}")
        node = node.children[node.names.index(name)]


def merge_types(first: AvroType, second: AvroType, path: str = "") -> AvroType:
    """Merge two types, so that each value of either is a value of the result, unchanged.

    What only one of two records has, or only one allows to be null, may be null. All else must be the same: numbers are
    not widened, because files that were written before would have another type than those that come after.

    `first`: what is there already; its fields come first, in its order.
    `path`: dotted name of the field, for the error.
    Raises SchemaError if they don't fit, with the field and both types.
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

    Raises SchemaError if it is too large.
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
    return (one.kind, bool(one.names), one.logical, one.size, one.precision, one.scale) == (
        other.kind,
        bool(other.names),  # a record without fields is a boolean
        other.logical,
        other.size,
        other.precision,
        other.scale,
    )


def _in_words(node: AvroType) -> str:
    value = node.value
    if value.kind == "record" and not value.names:
        return "a record without fields"
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


@dataclass(frozen=True)
class Versions:
    """The writer schemas of a dataset, in the order in which it took them in; they fit each other."""

    #: At least one; `plus` makes more of one.
    schemas: tuple[AvroSchema, ...]

    @property
    def first(self) -> AvroSchema:
        """The schema with which the dataset began."""
        return self.schemas[0]

    @lazy_property
    def record(self) -> AvroType:
        """The record with the fields of all schemas: those of the first one, then what each later one adds."""
        return self._steps[-1]

    @lazy_property
    def arrow(self) -> pa.Schema:
        """The columns of `record`."""
        return pa.schema(self.record.arrow_fields)

    @property
    def max_records(self) -> int:
        """The most records to decode at once; see `AvroSchema.max_records`."""
        return BATCH_CELLS // (self.record.cells + MAX_CELLS)

    def plus(self, schema: AvroSchema) -> Versions:
        """Add a schema.

        What it says of a schema that does not fit stays the same when others are taken in meanwhile: it is about the
        first of `schemas` with which it does not fit.

        Raises SchemaError if it does not fit, with the reason, or there are too many.
        """
        if schema in self.schemas:
            return self
        for count, record in enumerate(self._steps, 1):
            merged = merge_types(record, schema.parsed)
            check_bounds(merged, tuple(one.parsed for one in (*self.schemas[:count], schema)))
        if len(self.schemas) >= MAX_VERSIONS:
            raise SchemaError(f"this dataset has {MAX_VERSIONS} schemas already")
        return Versions((*self.schemas, schema))

    @lazy_property
    def _steps(self) -> tuple[AvroType, ...]:
        steps = [self.first.parsed]
        for schema in self.schemas[1:]:
            steps.append(merge_types(steps[-1], schema.parsed))
        return tuple(steps)


def fit_batch(rows: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Give rows the columns of a schema, and no others.

    `schema`: columns that `fink_dask.avro.evolution.merge_types` made of the rows' and others.
    """
    names = set(rows.schema.names)
    arrays = [
        _fit(rows.column(field.name), field.type) if field.name in names else _blank(field, rows.num_rows)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _fit(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if array.type.equals(kind):
        return array
    if pa.types.is_null(array.type):
        return _blank(pa.field("", kind), len(array))
    if pa.types.is_struct(kind):
        return _fit_struct(array, kind)
    # A list or a map: the places of the items stay, and the items get their fields.
    is_map = pa.types.is_map(kind)
    items = _fit_entries(array, kind) if is_map else _fit(array.values, kind.value_type)
    return pa.Array.from_buffers(kind, len(array), array.buffers()[:2], array.null_count, 0, [items])


def _fit_struct(array: pa.Array, kind: pa.DataType) -> pa.Array:
    children = []
    for index in range(kind.num_fields):
        field, at = kind.field(index), array.type.get_field_index(kind.field(index).name)
        children.append(_fit(array.field(at), field.type) if at >= 0 else _blank(field, len(array)))
    return pa.Array.from_buffers(kind, len(array), array.buffers()[:1], array.null_count, 0, children)


def _fit_entries(array: pa.Array, kind: pa.DataType) -> pa.Array:
    entries = pa.struct([kind.key_field, kind.item_field])
    items = _fit(array.items, kind.item_type)
    return pa.Array.from_buffers(entries, len(items), [None], 0, 0, [array.keys, items])


def _blank(field: pa.Field, count: int) -> pa.Array:
    """Make `count` nulls; where the field can't be null, the values that lie beneath a null further up."""
    kind = field.type
    if pa.types.is_null(kind):
        return pa.nulls(count)
    mask = pa.py_buffer(bytes((count + 7) // 8)) if field.nullable else None
    buffers, children = [mask], []
    if pa.types.is_struct(kind):
        children = [_blank(kind.field(index), count) for index in range(kind.num_fields)]
    elif pa.types.is_map(kind):
        entries = [_blank(kind.key_field, 0), _blank(kind.item_field, 0)]
        children = [pa.Array.from_buffers(pa.struct([kind.key_field, kind.item_field]), 0, [None], 0, 0, entries)]
        buffers.append(_zeros(4 * (count + 1)))
    elif pa.types.is_list(kind):
        children = [_blank(kind.value_field, 0)]
        buffers.append(_zeros(4 * (count + 1)))
    elif pa.types.is_string(kind) or (pa.types.is_binary(kind) and not pa.types.is_fixed_size_binary(kind)):
        buffers += [_zeros(4 * (count + 1)), _zeros(0)]
    else:
        buffers.append(_zeros((count * kind.bit_width + 7) // 8))
    return pa.Array.from_buffers(kind, count, buffers, count if field.nullable else 0, 0, children)


def _zeros(size: int) -> pa.Buffer:
    return pa.py_buffer(bytes(size))
