"""Decode record by record with fastavro: slow, plain, and what the columnar decoder is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from itertools import count

import fastavro
import fastavro.read
import numpy as np
import pyarrow as pa

from fink_dask.avro.decoder import MAX_BATCH_BYTES, TOMBSTONE, BadRecord, DecodedBatch, bad_record, check_size
from fink_dask.avro.evolution import project, project_array
from fink_dask.avro.reasons import RecordError, body_of, make_walk
from fink_dask.avro.schema import AvroSchema
from fink_dask.avro.types import MAX_DECIMAL128_DIGITS, PRIMITIVES, AvroType
from fink_dask.errors import FinkDaskError, SchemaError, one_line

_Row = dict[str, object]


_CONVERSION_ERRORS = (pa.ArrowException, ArithmeticError, LookupError, TypeError, ValueError)


def storage_schema(record: AvroType) -> dict[str, object]:
    """Make the schema that fastavro reads with.

    Returns: A schema as fastavro has parsed it, of exactly the same bytes.
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
        if node.kind == "enum":
            return "int"  # fastavro refuses symbols that are no names of Avro's
        if node.kind in {"float", "fixed"}:
            # Written out at every use: fastavro looks a name up for every value.
            return {"type": "fixed", "name": self._new(), "size": node.size or 4}
        return node.kind if node.kind in PRIMITIVES else self._named(node)

    def _named(self, node: AvroType) -> object:
        if node in self._written:
            return self._written[node]
        name = self._written[node] = self._new()
        return self._record(name, node.names, node.children)

    def _record(self, name: str, names: tuple[str, ...], children: tuple[AvroType, ...]) -> object:
        fields = [{"name": field, "type": self.storage(child)} for field, child in zip(names, children, strict=True)]
        return {"type": "record", "name": name, "fields": fields}

    def _new(self) -> str:
        return f"t{next(self._numbers)}"


def storage_type(node: AvroType) -> pa.DataType:
    """Say which Arrow type takes what fastavro has read, before `from_storage` gives it its meaning.

    Returns: A type whose values pyarrow makes from Python objects without a change.
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
    return PRIMITIVES["int" if node.kind == "enum" else node.kind]


def from_storage(array: pa.Array, node: AvroType) -> pa.Array:  # noqa: PLR0911 - one for each kind
    """Give a column that was read its Arrow type; only decimals are copied."""
    node = node.value
    if array.type == node.arrow:
        return array
    if node.logical == "decimal":
        return _decimals(array, node)
    if node.kind == "enum":
        return pa.array(node.symbols, pa.string()).take(array)
    if node.kind == "record" and not node.names:
        return pa.Array.from_buffers(node.arrow, len(array), [array.buffers()[0], ones(len(array))], array.null_count)
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


def ones(count: int) -> pa.Buffer:
    """Return bits that are all 1: the values of a record without fields, which says only that it is there."""
    return pa.py_buffer(b"\xff" * (-(-count // 8)))


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


class FastavroDecoder:
    """Decode record by record with fastavro, behind a walk that lets only sound bytes through."""

    def __init__(self, schema: AvroSchema, columns: Sequence[str] | None = None) -> None:
        # The schema that the records were written with.
        self._schema = schema
        # The columns that are decoded; see `fink_dask.avro.evolution.project`.
        self._columns = columns
        self._kept = project(schema.parsed, columns)
        self._walk = make_walk(schema.parsed)
        self._storage_schema = storage_schema(schema.parsed)
        self._storage_types = [storage_type(child) for child in schema.parsed.children]

    def __reduce__(self) -> tuple[type[FastavroDecoder], tuple[AvroSchema, Sequence[str] | None]]:
        # The compiled walk is made of closures, which don't pickle.
        return (FastavroDecoder, (self._schema, self._columns))

    @property
    def schema(self) -> AvroSchema:
        """The schema that the records were written with."""
        return self._schema

    @property
    def arrow(self) -> pa.Schema:
        """The Arrow schema of the rows."""
        return pa.schema(self._kept.arrow_fields)

    def decode(self, values: Sequence[bytes | None]) -> DecodedBatch:
        """Decode a batch; see `Decoder.decode`."""
        check_size(sum(len(value) for value in values if value is not None))
        rows: list[_Row] = []
        positions: list[int] = []
        bad: list[BadRecord] = []
        for index, value in enumerate(values):
            try:
                rows.append(self._read(value))
            except RecordError as error:
                bad.append(bad_record(index, str(error)))
            else:
                positions.append(index)
        try:
            batch = self._to_arrow(rows)
        except _CONVERSION_ERRORS:
            batch, positions, unfit = self._convert_singly(rows, positions)
            bad = sorted(bad + unfit, key=lambda record: record.index)
        return DecodedBatch(batch, np.array(positions, dtype=np.int64), tuple(bad))

    def _read(self, value: bytes | None) -> _Row:
        if value is None:
            raise RecordError(TOMBSTONE)
        value = body_of(value, self._schema.prefix)
        self._walk(value)
        stream = BytesIO(value)
        try:
            row: _Row = fastavro.schemaless_reader(stream, self._storage_schema, None)
        except (ArithmeticError, EOFError, LookupError, TypeError, ValueError) as error:
            raise RecordError(f"fastavro refuses it: {error!r}") from error
        if stream.tell() != len(value):
            raise RecordError(f"fastavro reads {stream.tell():,} of {len(value):,} bytes")
        return row

    def _to_arrow(self, rows: list[_Row]) -> pa.RecordBatch:
        record = self._schema.parsed
        columns = []
        for name, child, type_ in zip(record.names, record.children, self._storage_types, strict=True):
            column = pa.array([row[name] for row in rows], type_)
            if isinstance(column, pa.ChunkedArray):
                # Symbols of an enum are longer than their bytes, so the sum of the values does not bound them.
                raise pa.ArrowCapacityError(f"the column {name} takes more than {MAX_BATCH_BYTES:,} bytes")
            columns.append(from_storage(column, child))
        whole = pa.StructArray.from_arrays(columns, fields=record.arrow_fields)
        return pa.RecordBatch.from_struct_array(project_array(whole, record, self._kept))

    def _convert_singly(
        self, rows: list[_Row], positions: list[int]
    ) -> tuple[pa.RecordBatch, list[int], list[BadRecord]]:
        fit: list[int] = []
        bad: list[BadRecord] = []
        for row, position in enumerate(positions):
            try:
                self._to_arrow([rows[row]])
            except _CONVERSION_ERRORS as error:
                bad.append(bad_record(position, f"Arrow can't hold it: {error}"))
            else:
                fit.append(row)
        try:
            batch = self._to_arrow([rows[row] for row in fit])
        except _CONVERSION_ERRORS as error:
            raise FinkDaskError(f"{len(fit)} records do not fit in one Arrow record batch: {error}") from error
        return batch, [positions[row] for row in fit], bad


class Transcoder:
    """Resolves records, one by one, by the rules of Avro's schema resolution, which fastavro implements.

    https://avro.apache.org/docs/1.12.0/specification/#schema-resolution

    Raises SchemaError if fastavro refuses one of the schemas, or a value is a time or a decimal number in only one of
    them, or not in the same unit.
    """

    def __init__(self, writer: AvroSchema, reader: AvroSchema) -> None:
        for field in reader.arrow:
            index = writer.arrow.get_field_index(field.name)
            if index >= 0:
                _check_same_kind(field.name, writer.arrow.field(index).type, field.type)
        self._walk, self._prefix = make_walk(writer.parsed), writer.prefix
        try:
            self._writer = fastavro.parse_schema(_without_logical_types(writer.document))
            self._reader = fastavro.parse_schema(_without_logical_types(reader.document))
        except (fastavro.schema.SchemaParseException, ValueError, TypeError, KeyError, RecursionError) as error:
            raise SchemaError(f"fastavro refuses the schema: {one_line(error)}") from error

    def transcode(self, value: bytes) -> bytes:
        """Write a record anew.

        `value`: the record, as the writer's schema has it.
        Returns: the record, as the reader's schema has it.
        Raises RecordError if it is not what the writer's schema says, or can't be read with the reader's.
        """
        self._walk(body_of(value, self._prefix))  # which bounds what fastavro makes of it
        stream = BytesIO(value)
        try:
            record = fastavro.schemaless_reader(stream, self._writer, self._reader)
            out = BytesIO()
            fastavro.schemaless_writer(out, self._reader, record)
        except (
            fastavro.read.SchemaResolutionError,
            ArithmeticError,
            EOFError,
            LookupError,
            TypeError,
            ValueError,
            AttributeError,
        ) as error:
            raise RecordError(f"it does not resolve to the dataset's schema: {error!r}") from error
        if stream.tell() != len(value):
            raise RecordError(f"fastavro reads {stream.tell():,} of {len(value):,} bytes")
        return out.getvalue()


def _check_same_kind(name: str, written: pa.DataType, wanted: pa.DataType) -> None:
    """Refuse a time or a decimal number that would be read as something else: resolution looks at the numbers alone."""
    if pa.types.is_struct(written) and pa.types.is_struct(wanted):
        for field in wanted:
            index = written.get_field_index(field.name)
            if index >= 0:
                _check_same_kind(f"{name}.{field.name}", written.field(index).type, field.type)
    elif (pa.types.is_list(written) or pa.types.is_large_list(written)) and hasattr(wanted, "value_type"):
        _check_same_kind(f"{name}[]", written.value_type, wanted.value_type)
    elif pa.types.is_map(written) and pa.types.is_map(wanted):
        _check_same_kind(f"{name}[]", written.item_type, wanted.item_type)
    elif written != wanted and any(pa.types.is_temporal(one) or pa.types.is_decimal(one) for one in (written, wanted)):
        raise SchemaError(f"{name} is {written} in that schema, but {wanted} in the dataset")


def _without_logical_types(schema: object) -> object:
    """Leave every value as it is written: dates that Python can't hold are none of this module's business."""
    if isinstance(schema, list):
        return [_without_logical_types(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key != "logicalType"}
    for key in ("type", "items", "values"):
        if key in kept:
            kept[key] = _without_logical_types(kept[key])
    if "fields" in kept:
        kept["fields"] = [_without_logical_types(field) for field in kept["fields"]]
    return kept
