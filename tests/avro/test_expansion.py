"""What a few bytes may ask for: nulls, symbols and decimals take more memory in Arrow than in a record."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from fink_dask.avro import decoder as decoded
from fink_dask.avro.decoder import ColumnarDecoder
from fink_dask.avro.operations import allowed_cells
from fink_dask.avro.reference import FastavroDecoder
from fink_dask.avro.schema import MAX_CELLS, MAX_VALUE_CELLS, AvroSchema, parse_schema
from fink_dask.settings import BATCH_BYTES
from tests.alerts.made_up import AlertKind, avro_schema
from tests.avro.oracle import assert_same
from tests.avro.strategies import encode

DOUBLES = {
    "type": "record",
    "name": "wide",
    "fields": [{"name": f"n{index}", "type": ["null", "double"]} for index in range(99)],
}
SYMBOL = {"type": "enum", "name": "e", "symbols": ["A" * 63, "B"]}
FIXED = {"type": "fixed", "name": "f", "size": 255}
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 76}
PAIR = {
    "type": "record",
    "name": "p",
    "fields": [{"name": "s", "type": SYMBOL}, {"name": "n", "type": ["null", "long"]}],
}
#: Items of one or two bytes: a schema that makes the most of them, and an item.
GREEDY: list[tuple[object, bytes]] = [
    (["null", DOUBLES], b"\0"),
    (["null", "string", DOUBLES, FIXED, SYMBOL], b"\0"),
    (["null", FIXED], b"\0"),
    (["null", DECIMAL], b"\0"),
    (["null", "double"], b"\0"),
    (SYMBOL, b"\0"),
    (DECIMAL, b"\2\1"),
    ({"type": "array", "items": "int"}, b"\0"),
    (["null", {"type": "map", "values": "int"}, DOUBLES], b"\2\0"),
    (PAIR, b"\0\0"),
]


def schema_of(*types: object) -> AvroSchema:
    fields = [{"name": f"f{index}", "type": type_} for index, type_ in enumerate(types)]
    return parse_schema(json.dumps({"type": "record", "name": "alert", "fields": fields}))


def items(count: int, item: bytes) -> bytes:
    array = {"type": "record", "name": "r", "fields": [{"name": "n", "type": "long"}]}
    return encode(array, {"n": count}) + count * item + b"\0"


def most(cells: int, item: bytes) -> int:
    """How many items a record may have before they take more than its bytes allow."""
    count = 1
    while cells * (count + 1) <= MAX_CELLS + allowed_cells(len(items(count + 1, item))):
        count += 1
        if count > 20_000:
            break
    return count


@pytest.mark.parametrize("make", [ColumnarDecoder, FastavroDecoder])
def test_a_short_record_may_have_a_few_wide_nulls_and_not_one_more(make: Callable[..., decoded.Decoder]) -> None:
    schema = schema_of({"type": "array", "items": ["null", DOUBLES]})
    count = most(100, b"\0")
    assert 80 < count < 100
    result = make(schema).decode([items(number, b"\0") for number in (count + 1, count, 1, 10 * count)])
    assert result.positions.tolist() == [1, 2]
    assert [len(row["f0"]) for row in result.rows.to_pylist()] == [count, 1]
    size = len(items(count + 1, b"\0"))
    assert re.search(rf"\b{8 * (MAX_CELLS + 8 * size):,} .* f0$", result.bad[0].reason)


@pytest.mark.parametrize("make", [ColumnarDecoder, FastavroDecoder])
@pytest.mark.parametrize(("width", "count", "over"), [(159, 54, 0), (256, 33, 1)])
def test_both_decoders_draw_the_line_at_the_same_cell(
    width: int, count: int, over: int, make: Callable[..., decoded.Decoder]
) -> None:
    fields = [{"name": f"n{index}", "type": "long"} for index in range(width)]
    wide = {"type": "record", "name": "w", "fields": fields}
    schema = schema_of({"type": "array", "items": ["null", wide]}, *["boolean"] * over)
    value = items(count, b"\0") + b"\0" * over
    assert count * (1 + width) == MAX_CELLS + allowed_cells(len(value)) + over
    assert len(make(schema).decode([value]).bad) == over


@pytest.mark.parametrize(("type_", "item"), GREEDY, ids=[str(type_)[:40] for type_, _ in GREEDY])
def test_what_is_counted_is_no_less_than_what_arrow_takes(type_: object, item: bytes) -> None:
    schema = schema_of({"type": "array", "items": type_}, ["null", {**FIXED, "name": "g"}], {**SYMBOL, "name": "h"})
    cells = schema.parsed.children[0].children[0].cells
    count = most(cells, item)
    values = [items(count, item) + b"\0\0"] * 20
    found = ColumnarDecoder(schema).decode(values)
    assert found.bad == ()
    assert_same(FastavroDecoder(schema).decode(values), found)
    # The values' own bytes, and a bit a value that says whether it is null, come on top.
    counted = 8 * 20 * (schema.parsed.cells + count * cells)
    assert found.rows.nbytes <= counted * 65 / 64 + sum(map(len, values)) + 1024
    assert counted <= 8 * 20 * (schema.parsed.cells + MAX_CELLS + allowed_cells(len(values[0])))


def test_a_batch_takes_about_a_gigabyte_at_most_whatever_its_schema_and_its_bytes_are() -> None:
    fields = [{"name": f"f{index}", "type": ["null", "double"]} for index in range(9_990)]
    widest = {"type": "record", "name": "w", "fields": fields}
    greedy = [schema_of(type_) for type_, _ in GREEDY]
    greedy += [schema_of(["null", widest], ["w", "null"], ["null", {**FIXED, "size": 65_536}]), schema_of("boolean")]
    assert all(schema.parsed.cells <= MAX_VALUE_CELLS for schema in greedy)
    for schema in greedy:
        assert schema.max_records > 0
        rows = schema.max_records * (schema.parsed.cells + MAX_CELLS)
        assert 8 * (rows + allowed_cells(BATCH_BYTES)) <= 2**30
    # What one record of the largest message that librdkafka takes may ask for still fits Arrow's offsets.
    assert 8 * allowed_cells(100_000_000) < 2**31


@pytest.mark.parametrize("kind", AlertKind)
def test_no_batch_of_alerts_is_cut_short_for_what_it_might_hold(kind: AlertKind) -> None:
    assert parse_schema(json.dumps(avro_schema(kind))).max_records > 7500
