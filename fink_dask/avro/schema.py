"""Read a writer schema that nobody vouches for, and tell which Arrow schema its records have."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from fink_dask.avro.lazy import lazy_property
from fink_dask.avro.operations import BATCH_CELLS
from fink_dask.avro.resolve import MAX_CELLS, Resolver, refuse, show
from fink_dask.avro.types import AvroType
from fink_dask.errors import SchemaError, SettingsError

#: The most bytes of a schema. Those of Fink have 40 to 73 kB; a hostile message may have any size.
MAX_SCHEMA_BYTES = 4 * 1024 * 1024
#: Columns that the dataset adds to every row.
RESERVED_COLUMNS = frozenset({"kafka_partition", "kafka_offset"})


@dataclass(frozen=True)
class AvroSchema:
    """A writer schema that was read, checked and resolved; `parse_schema` makes it.

    Parameters
    ----------
    text : str
        The schema as compact JSON in ASCII, with keys and fields in the writer's order.
    parsed : AvroType
        The top-level record, with every named type resolved.
    """

    text: str
    parsed: AvroType = field(compare=False, repr=False)

    @lazy_property
    def fingerprint(self) -> str:
        """SHA-256 of `text`, in hexadecimal."""
        return hashlib.sha256(self.text.encode("ascii")).hexdigest()

    @lazy_property
    def arrow(self) -> pa.Schema:
        """The Arrow schema of the records; `fink_dask.avro.types` has the mapping."""
        return pa.schema(self.parsed.arrow_fields)

    @property
    def max_records(self) -> int:
        """The most records to decode at once, so that even a batch of nothing but nulls takes no gigabytes in Arrow."""
        return BATCH_CELLS // (self.parsed.cells + MAX_CELLS)


def parse_schema(raw: bytes | str) -> AvroSchema:
    """Read a writer schema, or refuse it in one line that names the field.

    Parameters
    ----------
    raw : bytes or str
        JSON, in UTF-8 where it is bytes, from a source that may be hostile.

    Returns
    -------
    AvroSchema
        The schema, within the bounds of this module.

    Raises
    ------
    SchemaError
        If `raw` is not JSON, not a valid Avro 1.12 record schema, recursive, larger than the bounds, or uses what can't
        be stored: a record without fields, items that take no bytes.
    """
    try:
        document = _load(raw)
        text = json.dumps(document, separators=(",", ":"))
        if len(text) > MAX_SCHEMA_BYTES:
            raise SchemaError(f"the Avro schema has more than {MAX_SCHEMA_BYTES:,} bytes")
        parsed = Resolver().resolve(document)
        if parsed.kind != "record":
            refuse((), f"a topic's schema must be a record, not {show(parsed.kind.replace('choice', 'union'))}")
    except RecursionError:
        raise SchemaError("the Avro schema is nested too deeply to be read") from None
    for name in parsed.names:
        if name in RESERVED_COLUMNS:
            refuse((name,), "the dataset adds a column of this name itself; rename the field in the topic")
    return AvroSchema(text, parsed)


def read_schema_file(path: Path) -> AvroSchema:
    """Read a schema from a file.

    Raises
    ------
    SettingsError
        If it can't be read.
    SchemaError
        If `parse_schema` refuses it.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_SCHEMA_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"can't read --schema {path}: {error.strerror}") from error
    return parse_schema(text)


def field_type(schema: pa.Schema, path: str) -> pa.DataType | None:
    """Find the type of a field by its dotted path.

    Parameters
    ----------
    schema : pyarrow.Schema
        The schema to look in.
    path : str
        A column, or a field of nested structs such as ``candidate.jd``. Lists and maps are not entered.

    Returns
    -------
    pyarrow.DataType or None
        The type, or None where there is no such field.
    """
    first, *rest = path.split(".")
    index = schema.get_field_index(first)
    if index < 0:
        return None
    found = schema.field(index).type
    for name in rest:
        index = found.get_field_index(name) if pa.types.is_struct(found) else -1
        if index < 0:
            return None
        found = found.field(index).type
    return found


def _load(raw: bytes | str) -> object:
    if len(raw) > MAX_SCHEMA_BYTES:
        raise SchemaError(f"the Avro schema has {len(raw):,} bytes, more than {MAX_SCHEMA_BYTES:,}")
    try:
        text = raw.decode("utf-8") if isinstance(raw, bytes) else raw
        document: object = json.loads(text, object_pairs_hook=_without_duplicates)
    except ValueError as error:
        # UnicodeDecodeError and JSONDecodeError are ValueErrors, and so is an integer of thousands of digits.
        raise SchemaError(f"the Avro schema is not JSON in UTF-8: {' '.join(str(error).split())[:120]}") from error
    return document


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    # Parsers disagree on which of two equal keys wins, so the same bytes would be two schemas.
    result: dict[str, object] = {}
    for key, value in pairs:
        if key in result:
            raise SchemaError(f"the Avro schema has the JSON key {show(key)} twice in one object")
        result[key] = value
    return result
