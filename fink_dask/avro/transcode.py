"""Read records that were written with one schema as if they had been written with another."""

from __future__ import annotations

import json
from io import BytesIO

import fastavro
import fastavro.read
import pyarrow as pa

from fink_dask.avro.schema import AvroSchema
from fink_dask.avro.walk import RecordError, make_walk
from fink_dask.errors import SchemaError


class Transcoder:
    """Resolves records, one by one, by the rules of Avro's schema resolution, which fastavro implements.

    https://avro.apache.org/docs/1.12.0/specification/#schema-resolution

    Parameters
    ----------
    writer : AvroSchema
        What the records were written with.
    reader : AvroSchema
        What they are wanted in.

    Raises
    ------
    SchemaError
        If fastavro refuses one of the schemas, or a value is a time or a decimal number in only one of them, or not in
        the same unit.
    """

    def __init__(self, writer: AvroSchema, reader: AvroSchema) -> None:
        for field in reader.arrow:
            index = writer.arrow.get_field_index(field.name)
            if index >= 0:
                _check_same_kind(field.name, writer.arrow.field(index).type, field.type)
        self._walk = make_walk(writer.parsed)
        try:
            self._writer = fastavro.parse_schema(_without_logical_types(json.loads(writer.text)))
            self._reader = fastavro.parse_schema(_without_logical_types(json.loads(reader.text)))
        except (fastavro.schema.SchemaParseException, ValueError, TypeError, KeyError, RecursionError) as error:
            raise SchemaError(f"fastavro refuses the schema: {' '.join(str(error).split())[:200]}") from error

    def transcode(self, value: bytes) -> bytes:
        """Write a record anew.

        Parameters
        ----------
        value : bytes
            The record, as the writer's schema has it.

        Returns
        -------
        bytes
            The record, as the reader's schema has it.

        Raises
        ------
        RecordError
            If it is not what the writer's schema says, or can't be read with the reader's.
        """
        self._walk(value)  # which bounds what fastavro makes of it
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
