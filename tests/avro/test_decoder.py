from __future__ import annotations

import json
import pickle
import re
import struct
from collections.abc import Callable
from decimal import Decimal
from io import BytesIO

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fink_dask.avro import decoder as decoded
from fink_dask.avro.decoder import ColumnarDecoder
from fink_dask.avro.reference import FastavroDecoder
from fink_dask.avro.schema import parse_schema
from fink_dask.errors import FinkDaskError

TWO_TO_62 = b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f"
MINUS_TWO_TO_63 = b"\xff" * 9 + b"\x01"


def alert(*types: object) -> dict[str, object]:
    fields = [{"name": f"f{index}", "type": type_} for index, type_ in enumerate(types)]
    return {"type": "record", "name": "alert", "fields": fields}


def decoder_of(schema: object, make: Callable[..., decoded.Decoder] = ColumnarDecoder) -> decoded.Decoder:
    return make(parse_schema(json.dumps(schema)))


def encode(schema: object, row: object) -> bytes:
    stream = BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), row)
    return stream.getvalue()


def varint(value: int) -> bytes:
    return encode(alert("long"), {"f0": value})


ENUM = {"type": "enum", "name": "e", "symbols": ["A", "B"]}
FIXED = {"type": "fixed", "name": "x", "size": 4}
INTS = {"type": "array", "items": "int"}
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}
MILLIS = {"type": "int", "logicalType": "time-millis"}

POISON: list[tuple[str, object, bytes | None, str]] = [
    ("a tombstone", "int", None, "tombstone"),
    ("no bytes", "int", b"", "empty"),
    ("half a varint", "long", b"\x80", r"end.*\b1\b"),
    ("half a double", "double", b"\0\0\0", r"end.*\b3\b"),
    ("half a float", "float", b"\0", r"end.*\b1\b"),
    ("half a fixed", FIXED, b"\0", r"end.*\b1\b"),
    ("half a string", "string", b"\x0aab", r"\b5\b.*\b2\b.* f0$"),
    ("bytes that follow", "int", b"\x02\x02\x02", r"\b2\b.*follow"),
    ("a varint of 11 bytes", "long", b"\x80" * 10 + b"\x01", "ten bytes"),
    ("a varint of 65 bits", "long", b"\xff" * 9 + b"\x02", "64 bits"),
    ("an int of 33 bits", "int", varint(2**31), "2147483648.*32 bits.* f0$"),
    ("a negative int of 33 bits", "int", varint(-(2**31) - 1), "-2147483649"),
    ("a boolean of 2", "boolean", b"\x02", r"boolean.*\b2\b.* f0$"),
    ("branch 2 of 2", ["int", "null"], b"\x04\x02", r"branch 2\b.*\b2\b.* f0$"),
    ("branch -1", ["int", "null"], b"\x01", r"branch -1\b"),
    ("branch -2", ["int", "null"], b"\x03\x02", r"branch -2\b"),
    ("symbol 2 of 2", ENUM, b"\x04", r"\b2\b.*symbol"),
    ("symbol -1", ENUM, b"\x01", r"-1\b.*symbol"),
    ("invalid UTF-8", "string", b"\x04\xff\xfe", r"UTF-8.*\b0\b"),
    ("half a surrogate pair", "string", b"\x06\xed\xa0\x80", "UTF-8"),
    ("invalid UTF-8 in a key", {"type": "map", "values": "int"}, b"\x02\x02\xff\x02\x00", "UTF-8"),
    ("a negative length", "string", b"\x01abc", r"length.* -1\b"),
    ("a negative length of bytes", "bytes", b"\x03abc", r"length.* -2\b"),
    ("a length of 2^62", "bytes", TWO_TO_62 + b"abc", "length.* 4,611"),
    ("2^62 items", INTS, TWO_TO_62 + b"abc", "block.* 4,611"),
    ("-2^63 items", INTS, MINUS_TWO_TO_63 + b"\x00\x00", "block.* 9,223"),
    ("2^62 entries", {"type": "map", "values": "int"}, TWO_TO_62 + b"abc", "block.* 4,611"),
    ("a block that lies about its size", INTS, b"\x03\x02\x02\x04\x00", "size"),
    ("a block of a negative size", INTS, b"\x03\x01\x02\x04\x00", r"length.* -1\b"),
    ("an array without an end", INTS, b"\x02\x02", r"end.*\b2\b"),
    ("a decimal of five digits", DECIMAL, b"\x06\x01\x86\xa0", r"\b4 digits"),
    ("a decimal of no bytes", DECIMAL, b"\x00", "decimal.*bytes"),
    ("a time after midnight", MILLIS, varint(86_400_000), r"86400000\b.*time"),
    ("a time before midnight", MILLIS, b"\x01", r"-1\b.*time"),
]


@pytest.mark.parametrize(("what", "type_", "poison", "reason"), POISON, ids=[case[0] for case in POISON])
@pytest.mark.parametrize("make", [ColumnarDecoder, FastavroDecoder])
def test_a_bad_record_is_named_and_its_neighbours_arrive(
    what: str, type_: object, poison: bytes | None, reason: str, make: Callable[..., decoded.Decoder]
) -> None:
    decoder = decoder_of(alert(type_), make)
    sound = {"string": b"\x02a", "bytes": b"\x02a", "long": b"\x0a", "float": b"\0" * 4, "double": b"\0" * 8}
    good = sound.get(str(type_), {str(DECIMAL): b"\x02\x05", str(FIXED): b"abcd"}.get(str(type_), b"\x00"))
    if type_ == ["int", "null"]:
        good = b"\x02"
    for batch in ([poison, good], [good, poison, good], [good, poison], [poison] * 3):
        result = decoder.decode(batch)
        expected = [index for index, value in enumerate(batch) if value is good]
        assert result.positions.tolist() == expected
        assert result.rows.num_rows == len(expected)
        assert [bad.index for bad in result.bad] == [index for index in range(len(batch)) if index not in expected]
        assert all(re.search(reason, bad.reason) for bad in result.bad)
        if expected:
            alone = decoder.decode([good]).rows
            assert all(result.rows.slice(row, 1).equals(alone) for row in range(len(expected)))


def test_a_reason_fits_on_one_line_however_deep_the_field_is() -> None:
    inner: object = "string"
    for level in range(20):
        inner = {"type": "record", "name": f"r{level}", "fields": [{"name": "n" * 200, "type": inner}]}
    (bad,) = decoder_of(alert(inner)).decode([b"\x02\xff"]).bad
    assert len(bad.reason) <= 200
    assert bad.reason.isprintable()
    assert "UTF-8" in bad.reason


def test_a_message_of_a_few_kilobytes_can_not_ask_for_gigabytes() -> None:
    wide = {"type": "record", "name": "w", "fields": [{"name": f"n{i}", "type": ["int", "null"]} for i in range(5000)]}
    decoder = decoder_of(alert({"type": "array", "items": [wide, "null"]}))
    result = decoder.decode([varint(100_000) + b"\x02" * 100_000 + b"\x00", varint(1) + b"\x02\x00"])
    assert result.positions.tolist() == [1]
    assert "expands" in result.bad[0].reason


def test_a_batch_beyond_the_reach_of_arrow_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoded, "MAX_BATCH_BYTES", 3)
    with pytest.raises(FinkDaskError, match=r"\b4\b"):
        decoder_of(alert("int")).decode([b"\x02"] * 4)


def test_a_value_that_arrow_refuses_does_not_spoil_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = decoder_of(alert("int"), FastavroDecoder)
    # The walk lets nothing through that Arrow refuses, so it is put out of the way.
    monkeypatch.setattr(decoder, "_walk", lambda data: None)
    result = decoder.decode([b"\x02", varint(2**40), b"", b"\x04"])
    assert result.rows.column("f0").to_pylist() == [1, 2]
    assert result.positions.tolist() == [0, 3]
    assert [bad.index for bad in result.bad] == [1, 2]
    assert "Arrow" in result.bad[0].reason
    assert "fastavro" in result.bad[1].reason


@pytest.mark.parametrize("values", [[], [None], [b""]])
def test_a_batch_without_a_sound_record_still_has_the_schema(values: list[bytes | None]) -> None:
    everything = alert(
        "int", ["float", "null"], ENUM, FIXED, DECIMAL, MILLIS, INTS, {"type": "map", "values": "e"}, "null"
    )
    decoder = decoder_of(everything)
    result = decoder.decode(values)
    assert result.rows.schema == decoder.schema.arrow
    assert result.rows.num_rows == 0
    assert result.positions.dtype == np.int64
    assert len(result.bad) == len(values)


def test_an_identifier_of_64_bits_keeps_every_bit() -> None:
    identifiers = [170094456272322680, 2**53 + 1, 2**63 - 1, -(2**63)]
    rows = decoder_of(alert(["long", "null"])).decode([b"\x00" + varint(each) for each in identifiers]).rows
    assert rows.column("f0").to_pylist() == identifiers


@pytest.mark.parametrize("bits", [0x7FC00001, 0x7FA00001, 0xFFC12345, 0x7F800000, 0xFF800000, 0x80000000, 0x00000001])
def test_a_float_keeps_its_bits_even_when_it_is_not_a_number(bits: int) -> None:
    single, double = struct.pack("<I", bits), struct.pack("<Q", bits << 32 | 1)
    result = decoder_of(alert("float", "double", {"type": "array", "items": ["null", "float"]})).decode(
        [single + double + b"\x02\x02" + single + b"\x00"]
    )
    assert result.rows.column("f0").buffers()[1].to_pybytes()[:4] == single
    assert result.rows.column("f1").buffers()[1].to_pybytes()[:8] == double
    assert result.rows.column("f2").values.buffers()[1].to_pybytes()[:4] == single


def test_a_time_beyond_the_year_9999_does_not_lose_its_alert() -> None:
    kinds = ["timestamp-millis", "timestamp-micros", "timestamp-nanos", "local-timestamp-millis"]
    schema = alert(*({"type": "long", "logicalType": kind} for kind in kinds), {"type": "int", "logicalType": "date"})
    result = decoder_of(schema).decode([varint(2**63 - 1) * 4 + varint(2**31 - 1), varint(-(2**63)) * 4 + b"\x01"])
    assert result.bad == ()
    assert result.rows.column(0).cast(pa.int64()).to_pylist() == [2**63 - 1, -(2**63)]
    assert result.rows.column(4).cast(pa.int32()).to_pylist() == [2**31 - 1, -1]


@pytest.mark.parametrize("digits", [1, 9, 18, 38, 39, 76])
def test_a_decimal_keeps_every_digit(digits: int) -> None:
    number = {"type": "bytes", "logicalType": "decimal", "precision": digits, "scale": digits // 2}
    fixed = {**number, "type": "fixed", "name": "d", "size": 32}
    unscaled = [10**digits - 1, -(10**digits) + 1, 0, -1]
    raw = [value.to_bytes(32, "big", signed=True) for value in unscaled]
    rows = decoder_of(alert(number, ["null", fixed])).decode([b"\x40" + each + b"\x02" + each for each in raw]).rows
    rows.validate(full=True)
    # Built from digits: arithmetic on a Decimal rounds to 28 of them.
    exact = [Decimal((value < 0, tuple(map(int, str(abs(value)))), -(digits // 2))) for value in unscaled]
    assert rows.column("f0").to_pylist() == exact
    assert rows.column("f1").to_pylist() == exact


def test_a_map_keeps_its_order_and_every_entry() -> None:
    # Two blocks: b and a, then a again with its size in bytes.
    data = b"\x04" + b"\x02b\x00\x02" + b"\x02a\x02" + b"\x01\x08" + b"\x02a\x00\x04" + b"\x00"
    result = decoder_of(alert({"type": "map", "values": ["int", "null"]})).decode([data])
    assert result.bad == ()
    assert result.rows.column("f0").to_pylist() == [[("b", 1), ("a", None), ("a", 2)]]


def test_what_is_decoded_can_be_written_to_parquet(tmp_path: object) -> None:
    optional = {
        "type": "record",
        "name": "o",
        "fields": [{"name": "n", "type": "null"}, {"name": "d", "type": DECIMAL}],
    }
    schema = alert(
        "null", [optional, "null"], {"type": "array", "items": ["o", "null"]}, {"type": "map", "values": "null"}
    )
    rows = [
        {
            "f0": None,
            "f1": {"n": None, "d": Decimal("-12.34")},
            "f2": [None, {"n": None, "d": Decimal("0.01")}],
            "f3": {},
        },
        {"f0": None, "f1": None, "f2": [], "f3": {"k": None}},
    ]
    decoded = decoder_of(schema).decode([encode(schema, row) for row in rows]).rows
    decoded.validate(full=True)
    pq.write_table(pa.Table.from_batches([decoded]), f"{tmp_path}/t.parquet")
    assert pq.read_table(f"{tmp_path}/t.parquet").to_pylist() == decoded.to_pylist()


@pytest.mark.parametrize("make", [ColumnarDecoder, FastavroDecoder])
def test_a_decoder_reaches_a_worker_unchanged(make: Callable[..., decoded.Decoder]) -> None:
    original = decoder_of(alert("int", INTS), make)
    decoder = pickle.loads(pickle.dumps(original))
    assert type(decoder) is type(original)
    assert decoder.decode([b"\x02\x02\x04\x00"]).rows.to_pylist() == [{"f0": 1, "f1": [2]}]
