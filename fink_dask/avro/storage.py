"""What fastavro reads a record into, and how a column of that becomes the Arrow type of the schema.

fastavro is given a schema of the same bytes with less meaning, so that no value passes through a Python type that can't
hold it: integers stay integers instead of datetimes that end in the year 9999, decimals stay bytes instead of a Decimal
that is rounded to its precision, a ``float`` stays four bytes because a signalling NaN would not survive a Python
float, and a map is a list of entries, which is how Avro writes it, because a dict would lose a key that comes twice.
"""

from __future__ import annotations

from itertools import count

import fastavro
import pyarrow as pa

from fink_dask.avro.types import MAX_DECIMAL128_DIGITS, PRIMITIVES, AvroType


def storage_schema(record: AvroType) -> dict[str, object]:
    """Make the schema that fastavro reads with.

    Parameters
    ----------
    record : AvroType
        The top-level record of a schema.

    Returns
    -------
    dict
        A schema as fastavro has parsed it, of exactly the same bytes.
    """
    parsed: dict[str, object] = fastavro.parse_schema(_Names().storage(record))
    return parsed


class _Names:
    """Give every named type a name of its own; one that is used again is written as its name."""

    def __init__(self) -> None:
        self._numbers = count()
        self._written: dict[AvroType, str] = {}

    def storage(self, node: AvroType) -> object:
        if node.kind in {"union", "choice"}:
            # A record of one field takes no bytes of its own, and says which member a value is.
            return [
                self._record(self._new(), (name,), (branch,)) if name else self.storage(branch)
                for name, branch in node.branches
            ]
        if node.kind == "array":
            return {"type": "array", "items": self.storage(node.children[0])}
        if node.kind == "map":
            return {"type": "array", "items": self._record(self._new(), ("key", "value"), _entry(node).children)}
        if node.kind in {"float", "fixed"}:
            # Written out at every use: fastavro looks a name up for every value.
            return {"type": "fixed", "name": self._new(), "size": node.size or 4}
        return node.kind if node.kind in PRIMITIVES else self._named(node)

    def _named(self, node: AvroType) -> object:
        if node in self._written:
            return self._written[node]
        name = self._written[node] = self._new()
        if node.kind == "enum":
            return {"type": "enum", "name": name, "symbols": list(node.symbols)}
        return self._record(name, node.names, node.children)

    def _record(self, name: str, names: tuple[str, ...], children: tuple[AvroType, ...]) -> object:
        fields = [{"name": field, "type": self.storage(child)} for field, child in zip(names, children, strict=True)]
        return {"type": "record", "name": name, "fields": fields}

    def _new(self) -> str:
        return f"t{next(self._numbers)}"


def storage_type(node: AvroType) -> pa.DataType:
    """Say which Arrow type takes what fastavro has read, before `from_storage` gives it its meaning.

    Parameters
    ----------
    node : AvroType
        The type of a field.

    Returns
    -------
    pyarrow.DataType
        A type whose values pyarrow makes from Python objects without a change.
    """
    node = node.value
    if node.kind in {"record", "choice"}:
        # Where a record of a choice has one field, pyarrow takes the others for null.
        return pa.struct([(name, storage_type(child)) for name, child in zip(node.names, node.children, strict=True)])
    if node.kind == "array":
        return pa.list_(storage_type(node.children[0]))
    if node.kind == "map":
        return pa.list_(storage_type(_entry(node)))
    if node.kind in {"float", "fixed"}:
        return pa.binary(node.size or 4)
    return PRIMITIVES.get(node.kind, pa.string())


def from_storage(array: pa.Array, node: AvroType) -> pa.Array:
    """Give a column that was read its Arrow type; only decimals are copied.

    Parameters
    ----------
    array : pyarrow.Array
        Values of `storage_type`, without an offset.
    node : AvroType
        The type of the field.

    Returns
    -------
    pyarrow.Array
        The same values as ``node.arrow``.
    """
    node = node.value
    if array.type == node.arrow:
        return array
    if node.logical == "decimal":
        return _decimals(array, node)
    if node.kind in {"record", "choice"}:
        children = [from_storage(array.field(index), child) for index, child in enumerate(node.children)]
        return _typed(node.arrow, array, 1, children)
    if node.kind == "array":
        return _typed(node.arrow, array, 2, [from_storage(array.values, node.children[0])])
    if node.kind == "map":
        entries = [array.values.field(0), from_storage(array.values.field(1), node.children[0])]
        pairs = pa.struct([node.arrow.key_field, node.arrow.item_field])
        return _typed(node.arrow, array, 2, [_typed(pairs, array.values, 1, entries)])
    return _typed(node.arrow, array, 2, None)


def _typed(type_: pa.DataType, array: pa.Array, buffers: int, children: list[pa.Array] | None) -> pa.Array:
    return pa.Array.from_buffers(type_, len(array), array.buffers()[:buffers], array.null_count, 0, children)


def _decimals(array: pa.Array, node: AvroType) -> pa.Array:
    # Both hold the unscaled value as two's complement: Avro big-endian, of any length, and Arrow little-endian.
    width = 16 if node.precision <= MAX_DECIMAL128_DIGITS else 32
    unscaled = b"".join(
        int.from_bytes(value or b"", "big", signed=True).to_bytes(width, "little", signed=True)
        for value in array.to_pylist()
    )
    buffers = [array.buffers()[0], pa.py_buffer(unscaled)]
    return pa.Array.from_buffers(node.arrow, len(array), buffers, array.null_count)


def _entry(node: AvroType) -> AvroType:
    return AvroType("record", names=("key", "value"), children=(AvroType("string"), node.children[0]))
