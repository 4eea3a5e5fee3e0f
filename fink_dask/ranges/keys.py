"""Tell from a record's key which schema it was written with, where a topic keeps its schemas there."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fink_dask.avro.evolution import Versions
from fink_dask.avro.schema import MAX_SCHEMA_BYTES, AvroSchema, parse_schema
from fink_dask.errors import SchemaError

#: For a topic with more schemas in its keys, or more bytes of them, remembering them gains nothing.
_REMEMBERED_KEYS = 64

_REMEMBERED_BYTES = 16 * 2**20

_FINGERPRINT_CHARS = 16

#: Takes a schema into the dataset; raises SchemaError where it does not fit.
Register = Callable[[AvroSchema], None]


@dataclass(frozen=True)
class UnknownSchema:
    """A record whose schema is not one of the dataset's."""

    #: Why, for the quarantine.
    reason: str


class SchemaKeys:
    """Finds the number of each record's schema among those of a dataset."""

    def __init__(self, versions: Versions, register: Register) -> None:
        self._numbers = {schema.text: number for number, schema in enumerate(versions.schemas)}
        # Is given each schema that is not among them, once.
        self._register = register
        self._remembered: dict[bytes | None, int | UnknownSchema | None] = {}
        self._bytes = 0
        #: Schemas that were taken in, and are not in `versions`.
        self.discovered: set[AvroSchema] = set()

    def numbers(self, keys: Sequence[bytes | None]) -> list[int | UnknownSchema | None]:
        """Find the number of the schema of each key, or why it has none; None for a schema of `discovered`."""
        return [self._number(key) for key in keys]

    def _number(self, key: bytes | None) -> int | UnknownSchema | None:
        try:
            return self._remembered[key]
        except KeyError:
            pass
        size = len(key or b"")
        if len(self._remembered) >= _REMEMBERED_KEYS or self._bytes + size > _REMEMBERED_BYTES:
            self._remembered.clear()
            self._bytes = 0
        self._remembered[key] = number = self._find(key or b"")
        self._bytes += size
        return number

    def _find(self, key: bytes) -> int | UnknownSchema | None:
        if not is_schema_like(key):
            return UnknownSchema("its key holds no schema")
        try:
            schema = parse_schema(key)
        except SchemaError as error:
            return UnknownSchema(f"its key holds no schema that can be used: {error}")
        if schema.text in self._numbers:
            return self._numbers[schema.text]
        if schema not in self.discovered:
            try:
                self._register(schema)
            except SchemaError as error:
                return UnknownSchema(misfit_in_words(schema, error))
            self.discovered.add(schema)
        return None


def is_schema_like(key: bytes | None) -> bool:
    """Tell whether a key may be a schema, and not a name: JSON with a schema begins like this, and is not endless."""
    return key is not None and len(key) <= MAX_SCHEMA_BYTES and key.removeprefix(BOM_UTF8).lstrip()[:1] == b"{"


def misfit_in_words(schema: AvroSchema, error: SchemaError) -> str:
    """Say why records of a schema can't be in a dataset; the fingerprint tells schemas apart."""
    name = schema.fingerprint[:_FINGERPRINT_CHARS]
    return f"written with schema {name}, which does not fit this dataset: {error}"
