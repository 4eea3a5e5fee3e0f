"""Fit the rows of one writer schema into the columns of several: what a row lacks is null, and nothing is copied."""

from __future__ import annotations

import pyarrow as pa


def fit_batch(rows: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Give rows the columns of a schema, and no others.

    Parameters
    ----------
    rows : pyarrow.RecordBatch
        Rows whose arrays have no offset.
    schema : pyarrow.Schema
        Columns that `fink_dask.avro.evolution.merge_types` made of the rows' and others.
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
