"""What others put around a record is recognised, and taken off; no record is read as something that it is not."""

from __future__ import annotations

import base64
import io
import json
import struct
from collections.abc import Callable
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pytest

from fink_dask.avro.framing import Framing, foreign_to, hint, may_be_framed, recognise, unpack_file
from fink_dask.avro.schema import parse_schema
from fink_dask.batches import Memory, RawBatch, join_records

SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "alert",
    "fields": [{"name": "id", "type": "long"}, {"name": "name", "type": ["null", "string"]}],
}
PARSED = parse_schema(json.dumps(SCHEMA))
ROWS: list[dict[str, Any]] = [{"id": 1000 * i, "name": None if i % 2 else f"ZTF{i}"} for i in range(6)]


def encode(row: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, SCHEMA, row)
    return buffer.getvalue()


RECORDS = [encode(row) for row in ROWS]


def container(*rows: dict[str, Any], codec: str = "null", schema: dict[str, Any] = SCHEMA) -> bytes:
    buffer = io.BytesIO()
    fastavro.writer(buffer, schema, rows, codec=codec)
    return buffer.getvalue()


def batch_of(values: list[bytes | None]) -> RawBatch:
    numbers = list(range(len(values)))
    return join_records(numbers, numbers, values, [b"k"] * len(values), Memory())


def unwrap(name: str, values: list[bytes | None]) -> tuple[list[bytes | None], dict[int, str], RawBatch]:
    batch, reasons = Framing(name).unwrap(batch_of(values))
    return [batch.value(index) for index in range(len(batch))], reasons, batch


CONFLUENT = [b"\0" + struct.pack(">I", 42) + record for record in RECORDS]
SINGLE = [b"\xc3\x01" + b"\x01\x02\x03\x04\x05\x06\x07\x08" + record for record in RECORDS]
FRAMED = [("confluent:0000002a", CONFLUENT), ("single-object:0102030405060708", SINGLE)]


@pytest.mark.parametrize(("name", "values"), FRAMED)
def test_a_framing_is_recognised_and_taken_off(name: str, values: list[bytes]) -> None:
    assert may_be_framed(values) == Framing(name)
    assert recognise(values, PARSED) == [Framing(name)]
    assert unwrap(name, [*values])[:2] == (RECORDS, {})
    assert unwrap(name.partition(":")[0], [*values])[:2] == (RECORDS, {})


@pytest.mark.parametrize(("name", "values"), FRAMED)
def test_a_record_of_another_schema_is_never_read_with_this_one(name: str, values: list[bytes]) -> None:
    other = bytearray(values[1])
    other[4] ^= 1
    found, reasons, batch = unwrap(name, [values[0], bytes(other), None, b"", values[0][:4], RECORDS[2], values[3]])
    assert [found[0], found[6]] == [RECORDS[0], RECORDS[3]]
    assert batch.missing is not None
    assert batch.missing.tolist() == [False, True, True, True, True, True, False]
    assert set(reasons) == {1, 3, 4, 5}
    assert "dataset" in reasons[1]
    assert len(recognise([*values, bytes(other)], PARSED)) == 2


def test_plain_records_are_plain_whatever_they_begin_with() -> None:
    # The first field is 0, so each begins as Confluent's framing does, and is a record as it is.
    zeros = [encode({"id": 0, "name": "\0\0\0" + row["name"]}) for row in ROWS if row["name"]]
    assert may_be_framed(zeros).kind == "confluent"
    assert recognise(zeros, PARSED) == []
    assert recognise(RECORDS, PARSED) == recognise([], PARSED) == []
    assert may_be_framed([*CONFLUENT, RECORDS[1]]) == may_be_framed([]) == Framing()


def test_what_is_around_no_record_of_the_schema_is_not_recognised() -> None:
    assert recognise([b"\0\0\0\0\x2a" + b"\xff" * 20], PARSED) == []
    assert hint(b"\0\0\0\0\x2a" + b"\xff" * 20, PARSED) == ""
    assert "Confluent" in hint(CONFLUENT[0], PARSED)
    assert "container" in hint(container(ROWS[0]), PARSED)
    assert hint(b"", PARSED) == hint(RECORDS[0][:-1], PARSED) == ""
    for begins, words in (
        (b"\x1f\x8b\x08", "gzip"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\x03\x00", "Glue"),
        (b'{"', "JSON"),
    ):
        assert words in hint(begins + RECORDS[0], PARSED)


BASE64 = {
    "as it is": base64.b64encode,
    "for names": base64.urlsafe_b64encode,
    "without its end": lambda value: base64.b64encode(value).rstrip(b"="),
    "in quotes": lambda value: b'"' + base64.b64encode(value) + b'"\n',
}


@pytest.mark.parametrize("inside", [RECORDS, CONFLUENT, SINGLE, [container(row) for row in ROWS]])
@pytest.mark.parametrize("encode", BASE64.values(), ids=BASE64)
def test_text_of_base64_is_called_that(encode: Callable[[bytes], bytes], inside: list[bytes]) -> None:
    values = [*map(encode, inside)]
    assert "base64" in str(foreign_to(values, PARSED))
    assert "base64" in hint(values[0], PARSED)
    assert foreign_to([*values, RECORDS[0]], PARSED) is None


def test_what_may_be_records_is_called_nothing_else() -> None:
    text = {"type": "record", "name": "note", "fields": [{"name": "text", "type": "string"}]}
    records = [b"$QUJDREVGR0hJSktMTU5P"[:19], b'&{"a": "not JSON alone"'[:20]]
    schema = parse_schema(json.dumps(text))
    assert foreign_to(RECORDS, PARSED) is foreign_to([], PARSED) is foreign_to(records, schema) is None
    assert foreign_to([b"a sentence", b"QUJDREVGR0hJSktMTU5P"], PARSED) is None
    headed = [b"\x03\x00" + record for record in RECORDS]
    pair = {"type": "record", "name": "pair", "fields": [{"name": n, "type": "int"} for n in "ab"] + SCHEMA["fields"]}
    assert "Glue" in str(foreign_to(headed, PARSED))
    assert foreign_to(headed, parse_schema(json.dumps(pair))) is None
    assert foreign_to([b'{"a": 1}'] * 2, None) == "JSON"
    assert foreign_to([base64.b64encode(record) for record in RECORDS], None) is None


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2", "xz"])
def test_a_container_file_gives_its_record_and_its_schema(codec: str) -> None:
    values = [container(row, codec=codec) for row in ROWS]
    assert may_be_framed(values) == Framing("container")
    found, reasons, batch = unwrap("container", [*values, None])
    assert (found, reasons) == ([*RECORDS, None], {})
    assert {parse_schema(key or b"") for key in batch.keys[:-1]} == {PARSED}


def _with_codec(name: bytes, block: bytes) -> bytes:
    """Put a block of another codec into a file that fastavro can't write without another library."""
    plain = container(ROWS[0])
    head = plain[: plain.rindex(RECORDS[0]) - 1].replace(
        b"\x14avro.codec\x08null", b"\x14avro.codec" + bytes([2 * len(name)]) + name
    )
    assert name in head
    return head + bytes([2 * len(block)]) + block + plain[-16:]


def test_a_container_file_of_snappy_and_of_zstandard_is_read() -> None:
    snappy = pa.compress(RECORDS[0], codec="snappy", asbytes=True) + b"sum "
    assert unpack_file(_with_codec(b"snappy", snappy))[1] == RECORDS[0]
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(RECORDS[0])
    assert unpack_file(_with_codec(b"zstandard", sink.getvalue().to_pybytes()))[1] == RECORDS[0]


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"Obj\x01",
        RECORDS[0],
        container(),
        container(*ROWS),
        container(ROWS[0])[:-1],
        container(ROWS[0])[:40],
        container(ROWS[0]) + b"\0",
        container(ROWS[0]).replace(b"null", b"nulx", 1),
        container({"id": 1, "name": "\0" * 10_000_000}, codec="deflate"),
        container({"id": 1, "name": "\0" * 10_000_000}, codec="xz"),
        container({"id": 1, "name": "\0" * 10_000_000}, codec="bzip2"),
        b"Obj\x01" + b"\xff" * 100,
    ],
    ids=lambda value: f"{len(value)} bytes",
)
def test_a_hostile_container_file_is_a_reason_and_not_an_error(value: bytes) -> None:
    found, reasons, batch = unwrap("container", [container(ROWS[0]), value, container(ROWS[1])])
    assert (found[0], found[2]) == (RECORDS[0], RECORDS[1])
    assert list(reasons) == [1]
    assert batch.missing is not None
    assert np.flatnonzero(batch.missing).tolist() == [1]
    assert len(reasons[1]) < 200
