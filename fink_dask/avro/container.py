"""Avro's object container files, around records that are already encoded.

The format is that of https://avro.apache.org/docs/1.12.0/specification/#object-container-files. fastavro reads it, but
can't write records that are given as bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fink_dask.avro.reasons import RecordError, compile_split, read_long, read_span
from fink_dask.avro.schema import AvroSchema
from fink_dask.errors import one_line

#: What every container file begins with.
MAGIC = b"Obj\x01"
#: Bytes of the marker between blocks.
SYNC_BYTES = 16


def header(schema: AvroSchema, metadata: Mapping[str, bytes], sync: bytes) -> bytes:
    """Return what a file begins with.

    `metadata`: what else the file says of itself.
    """
    said = {"avro.schema": schema.strict.encode(), "avro.codec": b"null", **metadata}
    entries = b"".join(_with_size(name.encode()) + _with_size(value) for name, value in said.items())
    return MAGIC + _long(len(said)) + entries + _long(0) + sync


def schema_of(data: bytes) -> bytes:
    """Return the schema of a file, given what it begins with.

    Raises ValueError if it has none there.
    """
    said, _ = read_metadata(data)
    if "avro.schema" not in said:
        raise ValueError("its head has no avro.schema")
    return said["avro.schema"]


def read_metadata(data: bytes) -> tuple[dict[str, bytes], int]:
    """Read what a file says of itself, and where its marker begins.

    Raises ValueError if it is not such a file, or its head does not end within these bytes.
    """
    if not data.startswith(MAGIC):
        raise ValueError("it does not begin as an Avro file does")
    said: dict[str, bytes] = {}
    at = len(MAGIC)
    try:
        while True:
            count, at = read_long(data, at)
            if not count:
                return said, at
            if count < 0:  # the size of the entries in bytes follows
                count, (_, at) = -count, read_long(data, at)
            for _ in range(count):
                start, at = read_span(data, at, "its head")
                name = data[start:at].decode(errors="replace")
                start, at = read_span(data, at, "its head")
                said[name] = data[start:at]
    except IndexError:
        raise ValueError("its head is cut off") from None


def block_head(records: int, size: int) -> bytes:
    """Return what precedes the bytes of a block of records; the file's sync marker follows them."""
    return _long(records) + _long(size)


def read_header(path: Path) -> tuple[dict[str, str], int]:
    """Read what a file says of itself, and count its records without decoding them.

    Raises ValueError if it is not such a file.
    """
    import fastavro  # here, as most transfers never need it

    with path.open("rb") as file:
        try:
            reader = fastavro.block_reader(file)
            return dict(reader.metadata), sum(block.num_records for block in reader)
        except OSError:
            raise
        except Exception as error:  # fastavro's own are of many kinds, and this file may be anything
            raise ValueError(f"not an Avro file ({one_line(error, 100) or type(error).__name__})") from error


def read_records(path: Path, schema: AvroSchema) -> Iterator[bytes]:
    """Yield the bytes of each record of a sound file, one by one in Python, which is slow.

    Raises RecordError if the bytes of a block are not records of the schema.
    """
    import fastavro

    split = compile_split(schema.top)
    with path.open("rb") as file:
        for block in fastavro.block_reader(file):
            data: Any = block.bytes_
            found = list(split(data.getvalue()))
            if len(found) != block.num_records:
                raise RecordError(f"a block has {len(found):,} records, but says {block.num_records:,}")
            yield from found


def _with_size(data: bytes) -> bytes:
    return _long(len(data)) + data


def _long(value: int) -> bytes:
    """Encode a number that is not negative: zigzag, then seven bits a byte."""
    value <<= 1
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
