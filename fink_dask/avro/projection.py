"""Cut a schema's record, and the columns made of it, down to the fields that are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pyarrow as pa

from fink_dask.avro.near import near_column
from fink_dask.avro.resolve import show
from fink_dask.avro.types import AvroType
from fink_dask.errors import SettingsError


def project(record: AvroType, columns: Sequence[str] | None) -> AvroType:
    """Keep some of the fields of a record.

    Parameters
    ----------
    record : AvroType
        The top-level record of a schema.
    columns : sequence of str or None
        Columns such as ``objectId``, or fields of structs such as ``candidate.jd``; None keeps everything. A column
        that is named keeps all its fields. The members of a choice are its fields.

    Returns
    -------
    AvroType
        A record with these fields, in the order of the schema.

    Raises
    ------
    SettingsError
        If there is no such column, or none is named.
    """
    if columns is None:
        return record
    if not columns:
        raise SettingsError("no column is named")
    for column in columns:
        _check(record, column)
    return _keep(record, [column.split(".") for column in columns])


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
        for name in column.split("."):
            node = node.value
            if name not in node.names:
                break
            path.append(name)
            node = node.children[node.names.index(name)]
        if path:
            found[".".join(path)] = None
    return tuple(found) or record.names[:1]


def project_array(array: pa.Array, node: AvroType, kept: AvroType) -> pa.Array:
    """Cut a column down to the fields of a projection, without copying.

    Parameters
    ----------
    array : pyarrow.Array
        Values of ``node.arrow``, without an offset.
    node : AvroType
        The type of the whole field.
    kept : AvroType
        What `project` made of it.

    Returns
    -------
    pyarrow.Array
        The same values as ``kept.arrow``.
    """
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
    for name in column.split("."):
        node = node.value
        if name not in node.names:
            if node.kind in {"array", "map"}:
                raise SettingsError(f"the column {show(column)} is inside a list or a map: name the whole of that")
            near = near_column(column, record.arrow)
            raise SettingsError(f"the schema has no column {show(column)}{near}")
        node = node.children[node.names.index(name)]
