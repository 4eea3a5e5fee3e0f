"""Alerts from Avro container files, such as those that Fink hands out or that ``--outformat avro`` writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fink_dask.avro.container import read_header, read_records
from fink_dask.avro.reasons import RecordError
from fink_dask.avro.schema import AvroSchema, parse_schema
from fink_dask.errors import SchemaError, SettingsError


@dataclass(frozen=True)
class AlertFiles:
    """Files with the same schema."""

    paths: tuple[Path, ...]
    #: The schema as it stands in the first file.
    text: str
    schema: AvroSchema
    #: How many alerts the files say they hold.
    alerts: int

    def values(self) -> Iterator[bytes]:
        """Yield the alerts as schemaless Avro, byte for byte, with one block of a file in memory at a time.

        Raises SchemaError if the bytes of a file are not records of its schema.
        """
        for path in self.paths:
            try:
                yield from read_records(path, self.schema)
            except RecordError as error:
                raise SchemaError(f"{path}: {error}") from error


def open_files(paths: Sequence[Path]) -> AlertFiles:
    """Check files before any of them is published; each is read once.

    Raises SettingsError if one can't be read, is not an Avro file, or has a different schema from the first.
    Raises SchemaError if their schema can't be used.
    """
    found: list[tuple[str, AvroSchema]] = []
    alerts = 0
    for path in paths:
        try:
            metadata, records = read_header(path)
            text = metadata["avro.schema"]
        except OSError as error:
            raise SettingsError(f"can't read {path}: {error.strerror}") from error
        except (ValueError, KeyError) as error:
            words = error if isinstance(error, ValueError) else "not an Avro file"
            raise SettingsError(f"{path} is {words}") from error
        try:
            schema = parse_schema(text)
        except SchemaError as error:
            raise SchemaError(f"{path}: {error}") from error
        if found and schema != found[0][1]:
            raise SettingsError(f"{path} has a different schema from {paths[0]}: a topic of Fink has only one")
        found.append((text, schema))
        alerts += records
    return AlertFiles(tuple(paths), *found[0], alerts)
