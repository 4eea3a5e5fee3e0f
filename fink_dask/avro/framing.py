"""What others put around a record: take it off, or recognise it from a few values before a transfer begins.

- Confluent's: a zero byte and the four bytes of a schema's number in a registry
  (https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format).
- Avro's single-object encoding: two bytes and the eight of a schema's fingerprint
  (https://avro.apache.org/docs/1.12.0/specification/#single-object-encoding).
- A whole container file, as ZTF gives alerts away: the schema, and a block of one record.
- A prediction of FinkAI is JSON, which is made a record (`fink_dask.avro.predictions`).

No registry is asked. A dataset takes the records of one number or fingerprint, as those of others have another schema.
What else there may be, such as a text of base64, is not taken off, but called by its name.
"""

from __future__ import annotations

import binascii
import bz2
import lzma
import re
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pyarrow as pa

from fink_dask.avro.container import MAGIC, SYNC_BYTES, read_metadata
from fink_dask.avro.predictions import record_of
from fink_dask.avro.reasons import RecordError, body_of, make_walk, read_long
from fink_dask.avro.schema import AvroSchema
from fink_dask.batches import Memory, RawBatch, join_values, without_heads

#: What each begins with, and how many bytes come before the record.
_HEADS = {"confluent": (b"\0", 5), "single-object": (b"\xc3\x01", 10)}
_CONTAINER = "container"
NONE, PREDICTION = "none", "prediction"

#: The bytes that a container file may unpack to, as a multiple of its own and beyond that.
_EXPANSION, _EXTRA_BYTES = 20, 65_536
_NAMES = {"confluent": "Confluent's framing", "single-object": "Avro's single-object encoding"}
#: What is raised of a container file that is none, or whose block does not unpack.
UNREADABLE = (ValueError, IndexError, zlib.error, lzma.LZMAError, OSError, pa.ArrowException)
#: What values of others begin with, that nothing here takes off, and how many bytes of those are more than a chance:
#: https://docs.aws.amazon.com/glue/latest/dg/schema-registry.html has a byte of its version, one that says whether it
#: is compressed, and a number of 16 bytes.
_FOREIGN = {
    b"\x1f\x8b\x08": "compressed by gzip",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"\x03\x00": "of a registry of AWS Glue",
    b"\x03\x05": "of a registry of AWS Glue",
    b'{"': "JSON",
}
#: Bytes as text, as programs write them that know JSON only, often between quotes; in either alphabet.
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_BASE64 = re.compile(rb'"?([A-Za-z0-9+/_-]{4,}={0,2})"?\s*')


@dataclass(frozen=True)
class Framing:
    """What is around each record of a topic."""

    #: ``none``, ``container``, ``prediction``, ``confluent`` or ``single-object``; of the last two, which begin with
    #: the number or the fingerprint of a schema, a colon and these in hexadecimal say which one.
    name: str = NONE

    @property
    def kind(self) -> str:
        """The name without a schema's number."""
        return self.name.partition(":")[0]

    def in_words(self) -> str:
        """Say what it is, for a message."""
        if self.kind == _CONTAINER:
            return "whole Avro container files"
        if self.kind == PREDICTION:
            return "predictions of FinkAI in JSON"
        number = self.name.partition(":")[2]
        words = f"schema id {int(number, 16)}" if self.kind == "confluent" and number else f"fingerprint {number}"
        return f"{_NAMES[self.kind]}{f' ({words})' if number else ''}"

    def unwrap(self, batch: RawBatch) -> tuple[RawBatch, dict[int, str]]:
        """Take it off the values of a batch; return why it is not around some of them, by their places.

        The keys of what was in container files are the schemas in these.
        """
        if self.kind == NONE:
            return batch, {}
        if self.kind == _CONTAINER:
            return _unpack(batch, unpack_file, "it is no Avro container file of one record")
        if self.kind == PREDICTION:
            return _unpack(batch, lambda value: (None, record_of(value)), "it is no prediction")
        magic, size = _HEADS[self.kind]
        begins = magic + bytes.fromhex(self.name.partition(":")[2])
        data = np.frombuffer(batch.data, np.uint8)
        fits = np.diff(batch.starts) >= size
        for place, byte in enumerate(begins):
            fits[fits] = data[batch.starts[:-1][fits] + place] == byte
        missing = ~fits if batch.missing is None else ~fits | batch.missing
        data, starts = without_heads(data, batch.starts, np.where(fits, size, 0))
        there = missing if batch.missing is None else missing & ~batch.missing
        reasons = {int(index): self._why_not(batch.value(int(index)) or b"") for index in np.flatnonzero(there)}
        return replace(batch, data=data, starts=starts, missing=missing if missing.any() else None), reasons

    def _why_not(self, value: bytes) -> str:
        magic, size = _HEADS[self.kind]
        if value.startswith(magic) and len(value) >= size:
            found = Framing(f"{self.kind}:{value[len(magic) : size].hex()}")
            return f"it has {found.in_words()}, and this dataset's records have {self.in_words()}"
        return f"it does not have {self.in_words()}"


def _unpack(
    batch: RawBatch, unpack: Callable[[bytes], tuple[bytes | None, bytes]], otherwise: str
) -> tuple[RawBatch, dict[int, str]]:
    """Make schemas, where there are any, and records of the values of a batch."""
    values: list[bytes | None] = []
    keys: list[bytes | None] = []
    reasons = {}
    for index in range(len(batch)):
        schema = value = None
        framed = batch.value(index)
        if framed is not None:
            try:
                schema, value = unpack(framed)
            except UNREADABLE as error:
                reasons[index] = f"{otherwise}: {error}"
        values.append(value)
        keys.append(schema)
    data, starts, missing = join_values(values, Memory())
    return replace(batch, data=data, starts=starts, missing=missing, keys=keys), reasons


def unpack_file(value: bytes) -> tuple[bytes, bytes]:
    """Return the schema and the record of a container file of one record.

    Raises ValueError if it is none.
    """
    said, at = read_metadata(value)
    sync = value[at : at + SYNC_BYTES]
    records, at = read_long(value, at + SYNC_BYTES)
    size, at = read_long(value, at)
    if records != 1:
        raise RecordError(f"it has {records:,} records in a block")
    if size < 0 or value[at + size :] != sync:
        raise RecordError("its block does not end where the file ends")
    codec = said.get("avro.codec", b"null").decode(errors="replace")
    if codec not in _CODECS:
        raise RecordError(f"its codec {codec[:20]!r} is not known")
    limit = _EXPANSION * len(value) + _EXTRA_BYTES
    record = _CODECS[codec](value[at : at + size], limit)
    if len(record) > limit:
        raise RecordError(f"it unpacks to more than {limit:,} bytes")
    return said.get("avro.schema", b""), record


def _snappy(block: bytes, limit: int) -> bytes:
    # The size comes first, seven bits a byte; four bytes of a checksum come last.
    size = shift = 0
    for byte in block[:5]:
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    if size > limit:
        raise RecordError(f"it unpacks to {size:,} bytes")
    unpacked: bytes = pa.decompress(block[:-4], decompressed_size=size, codec="snappy", asbytes=True)
    return unpacked


def _zstandard(block: bytes, limit: int) -> bytes:
    unpacked: bytes = pa.CompressedInputStream(pa.BufferReader(block), "zstd").read(limit + 1)
    return unpacked


#: Unpack a block, to hardly more bytes than a limit.
_CODECS: dict[str, Callable[[bytes, int], bytes]] = {
    "null": lambda block, _: block,
    "deflate": lambda block, limit: zlib.decompressobj(-15).decompress(block, limit + 1),
    "bzip2": lambda block, limit: bz2.BZ2Decompressor().decompress(block, limit + 1),
    "xz": lambda block, limit: lzma.LZMADecompressor().decompress(block, limit + 1),
    "snappy": _snappy,
    "zstandard": _zstandard,
}


def may_be_framed(values: Sequence[bytes]) -> Framing:
    """Tell what a few values may have around them, by their first bytes alone; of the numbers, the first one."""
    for kind, (magic, size) in _HEADS.items():
        if values and all(value.startswith(magic) and len(value) > size for value in values):
            return Framing(f"{kind}:{values[0][len(magic) : size].hex()}")
    return Framing(_CONTAINER if values and all(value.startswith(MAGIC) for value in values) else NONE)


@lru_cache(maxsize=16)
def _judge(schema: AvroSchema) -> Callable[[bytes], bool]:
    """Make a function that tells whether a value is a record of a schema as it is."""
    walk = make_walk(schema.parsed)

    def is_record(value: bytes) -> bool:
        try:
            walk(body_of(value, schema.prefix))
        except RecordError:
            return False
        return True

    return is_record


def recognise(values: Sequence[bytes], schema: AvroSchema) -> list[Framing]:
    """Tell what a few values have around them, given the schema of the records inside.

    It is certain only where they are no records of the schema as they are, but are without what is around them.

    Returns None where nothing is; several where there are several numbers or fingerprints.
    """
    kind, is_record = may_be_framed(values).kind, _judge(schema)
    if kind not in _HEADS or any(map(is_record, values)):
        return []
    magic, size = _HEADS[kind]
    names = [f"{kind}:{value[len(magic) : size].hex()}" for value in values if is_record(value[size:])]
    return [Framing(name) for name in dict.fromkeys(names)]


def hint(value: bytes, schema: AvroSchema) -> str:
    """Name what seems to be around a value that is no record of the schema; empty where nothing seems to be."""
    found = may_be_framed([value])
    if found.kind in _HEADS and not recognise([value], schema):
        return ""
    if found.kind != NONE:
        return f"; it seems to have {found.in_words()} around it: see --framing"
    foreign = _foreign(value, schema)
    return "" if foreign is None else f"; it seems to be {foreign}, and not Avro alone"


def foreign_to(values: Sequence[bytes], schema: AvroSchema | None) -> str | None:
    """Say what all of a few values are, where none is a record of the schema and nothing here takes off what they have.

    `schema`: None where none is known: then text that could be base64 is not called that.
    """
    found = {_foreign(value, schema) for value in values}
    if len(found) != 1 or (schema is not None and any(map(_judge(schema), values))):
        return None
    return found.pop()


def _foreign(value: bytes, schema: AvroSchema | None) -> str | None:
    if schema is not None and (text := _BASE64.fullmatch(value)):
        with suppress(binascii.Error):
            inside = binascii.a2b_base64(text[1].rstrip(b"=").translate(_URL_SAFE) + b"===")
            if _judge(schema)(inside) or recognise([inside], schema) or inside.startswith(MAGIC):
                return "text of base64"
    return next((words for begins, words in _FOREIGN.items() if value.startswith(begins)), None)
