from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fink_dask.avro import columns
from fink_dask.avro.decoder import ColumnarDecoder
from fink_dask.avro.schema import parse_schema
from tests.avro.strategies import batches, encode, laid_out
from tests.harness.examples import examples

QUICK = examples(60)
TWO_TO_62 = b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f"


@pytest.fixture(autouse=True, scope="module")
def used_again() -> Iterator[None]:
    """Let each batch be written where one before it was: what is not written would be that one's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "_REUSED_BYTES", 1)
        yield


def same(left: object, right: object) -> bool:
    """Compare what was written with what Arrow makes of it; NaN equals NaN, 0 does not equal -0 or False."""
    if isinstance(left, dict) and isinstance(right, list):
        right = dict(right)
    if isinstance(left, dict):
        return (
            isinstance(right, dict) and list(left) == list(right) and all(same(left[key], right[key]) for key in left)
        )
    if isinstance(left, (list, tuple)):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and isinstance(right, float):
        return (math.isnan(left) and math.isnan(right)) or struct.pack("d", left) == struct.pack("d", right)
    return type(left) is type(right) and left == right


@QUICK
@given(batches())
def test_every_value_of_every_type_arrives_as_it_was_written(case: tuple[dict[str, object], list[object]]) -> None:
    schema, rows = case
    values = [encode(schema, row) for row in rows]
    result = ColumnarDecoder(parse_schema(json.dumps(schema))).decode(values)
    assert result.bad == ()
    assert result.positions.tolist() == list(range(len(rows)))
    result.rows.validate(full=True)
    assert same([laid_out(schema, row) for row in rows], result.rows.to_pylist())


@QUICK
@given(batches(), st.data())
def test_damaged_bytes_harm_no_record_but_their_own(
    case: tuple[dict[str, object], list[object]], data: st.DataObject
) -> None:
    schema, rows = case
    decoder = ColumnarDecoder(parse_schema(json.dumps(schema)))
    values = [encode(schema, row) for row in rows]
    victim = data.draw(st.integers(0, len(values) - 1))
    value = values[victim]
    cut = data.draw(st.integers(0, len(value)))
    damaged = data.draw(
        st.sampled_from([value[:cut], value + value[:cut], value[:cut] + TWO_TO_62 + value[cut:]])
        | st.binary(max_size=20).map(lambda noise: value[:cut] + noise + value[cut + len(noise) :])
    )
    result = decoder.decode([*values[:victim], damaged, *values[victim + 1 :]])
    result.rows.validate(full=True)
    assert result.rows.num_rows + len(result.bad) == len(values)
    assert {bad.index for bad in result.bad} <= {victim}
    untouched = decoder.decode(values).rows
    for row, position in enumerate(result.positions.tolist()):
        if position != victim:
            assert same(untouched.slice(position, 1).to_pylist(), result.rows.slice(row, 1).to_pylist())
