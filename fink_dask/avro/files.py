"""Read a schema from a file: JSON, whose types may be in files beside it, or the head of an Avro container file."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from fink_dask.avro.container import MAGIC, schema_of
from fink_dask.avro.schema import MAX_SCHEMA_BYTES, AvroSchema, parse_schema
from fink_dask.errors import SchemaError, SettingsError, UnknownTypeError, parameter

#: What a survey calls the files of its types.
_SUFFIX = ".avsc"
#: Files beside a schema that are looked into; LSST's schemas are some thirty files.
_MAX_FILES = 500


def read_schema_file(path: Path) -> AvroSchema:
    """Read a schema from a file.

    Raises SettingsError if it can't be read.
    Raises SchemaError if `parse_schema` refuses it.
    """
    try:
        with path.open("rb") as file:
            # A container file goes on after its schema.
            raw = file.read(MAX_SCHEMA_BYTES + 2**16)
    except OSError as error:
        raise SettingsError(f"can't read {parameter('schema')} {path}: {error.strerror}") from error
    if raw.startswith(MAGIC):
        try:
            return parse_schema(schema_of(raw))
        except ValueError as error:
            raise SettingsError(f"{parameter('schema')} {path} is an Avro file without a schema: {error}") from error
    beside = cache(lambda: _types_beside(path))
    try:
        return parse_schema(raw, lambda name: beside().get(name))
    except UnknownTypeError as error:
        raise SchemaError(f"{error}; no {_SUFFIX} file beside {path.name} defines it") from error


def _types_beside(path: Path) -> dict[str, object]:
    """Read the types that the other files of a directory define, by their full names."""
    found: dict[str, object] = {}
    for other in sorted(path.parent.glob(f"*{_SUFFIX}"))[:_MAX_FILES]:
        try:
            with other.open("rb") as file:
                definition = json.loads(file.read(MAX_SCHEMA_BYTES).decode("utf-8-sig"))
        except (OSError, ValueError, RecursionError):
            continue
        name, space = (definition.get(key) for key in ("name", "namespace")) if isinstance(definition, dict) else (0, 0)
        if isinstance(name, str):
            found.setdefault(name if "." in name or not space else f"{space}.{name}", definition)
    return found
