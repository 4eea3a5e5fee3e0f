"""Hold the columnar decoder against the one that reads record by record, bit for bit."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa

from fink_dask.avro.decoder import DecodedBatch

#: Numbers as bytes: huge, negative, longer than they need be, and longer than they may be.
NUMBERS = [
    b"\xfe" * 8 + b"\x7f", b"\xff" * 9 + b"\x01", b"\x80\x00", b"\x82\x00", b"\x80" * 9 + b"\x01",
    b"\x80" * 9 + b"\x02", b"\x80" * 11,
    b"\x01", b"\x03", b"\xff\xff\xff\xff\x0f", b"\x80\x80\x80\x80\x10", b"\xff\xff\xff\xff\x1f",
]  # fmt: skip


def assert_same(left: DecodedBatch, right: DecodedBatch) -> None:
    assert left.rows.schema == right.rows.schema
    assert np.array_equal(left.positions, right.positions)
    assert left.bad == right.bad
    for one, other in zip(left.rows.columns, right.rows.columns, strict=True):
        assert bits(one).equals(bits(other))


def bits(array: pa.Array) -> pa.Array:
    """Turn floats into integers of the same bits: NaN then equals itself, and -0 does not equal 0."""
    kind, nulls = array.type, array.null_count
    if pa.types.is_floating(kind):
        integer = pa.int32() if kind.bit_width == 32 else pa.int64()
        return pa.Array.from_buffers(integer, len(array), array.buffers(), nulls, array.offset)
    if pa.types.is_struct(kind):
        children = [bits(array.field(index)) for index in range(kind.num_fields)]
        return pa.StructArray.from_arrays(children, [field.name for field in kind], mask=array.is_null())
    if pa.types.is_list(kind) or pa.types.is_map(kind):
        values = bits(array.values)
        return pa.Array.from_buffers(
            pa.list_(values.type), len(array), array.buffers()[:2], nulls, array.offset, [values]
        )
    return array


def damage(value: bytes, other: bytes, rng: random.Random) -> bytes:
    """Cut, flip, insert, delete, splice or lengthen the bytes of a record."""
    at = rng.randrange(len(value))
    how = rng.randrange(7)
    if how == 0:
        return value[:at]
    if how == 1:
        flipped = bytearray(value)
        for _ in range(rng.randrange(1, 4)):
            flipped[rng.randrange(len(value))] = rng.randrange(256)
        return bytes(flipped)
    if how == 2:
        return value[:at] + rng.randbytes(rng.randrange(1, 12)) + value[at:]
    if how == 3:
        return value[:at] + value[at + rng.randrange(1, 20) :]
    if how == 4:
        return value[:at] + other[rng.randrange(len(other)) :]
    if how == 5:
        return value[:at] + rng.choice(NUMBERS) + value[at + 1 :]
    return value + rng.randbytes(rng.randrange(1, 5))
