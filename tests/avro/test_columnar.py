from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fink_dask.avro import decoder as arena
from fink_dask.avro.decoder import ColumnarDecoder
from fink_dask.avro.reference import FastavroDecoder
from fink_dask.avro.schema import AvroSchema, field_type, parse_schema
from fink_dask.errors import FinkDaskError, SettingsError
from tests.alerts.made_up import AlertKind, avro_schema, encoded_alerts
from tests.avro import fuzz
from tests.avro.oracle import NUMBERS, assert_same, damage
from tests.avro.strategies import batches, encode
from tests.harness.examples import examples

ROOT = Path(__file__).parents[2]
SETTINGS = examples(150)


def schema_of(raw: object) -> AvroSchema:
    return parse_schema(json.dumps(raw))


def run(code: str, **environment: str) -> str:
    """Run Python in a process of its own, which finds the project."""
    done = subprocess.run(
        [sys.executable, *code.split("\t")],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@SETTINGS
@given(batches(), st.data())
def test_what_is_decoded_and_what_is_refused_is_the_same_as_record_by_record(
    case: tuple[dict[str, object], list[object]], data: st.DataObject
) -> None:
    raw, rows = case
    schema = schema_of(raw)
    values: list[bytes | None] = [encode(raw, row) for row in rows]
    pieces = st.sampled_from([b"", *NUMBERS, *(value for value in values if value)]) | st.binary(max_size=8)
    for index, value in enumerate(values):
        if value and data.draw(st.booleans()):
            cut = data.draw(st.integers(0, len(value)))
            gone = data.draw(st.integers(0, 3))
            piece = data.draw(pieces)
            values[index] = data.draw(st.sampled_from([None, value[:cut] + piece + value[cut + gone :]]))
    found = ColumnarDecoder(schema).decode(values)
    found.rows.validate(full=True)
    assert_same(FastavroDecoder(schema).decode(values), found)


@pytest.mark.parametrize("kind", AlertKind)
def test_an_alert_of_every_survey_arrives_bit_for_bit(kind: AlertKind) -> None:
    schema, values = schema_of(avro_schema(kind)), list(encoded_alerts(kind, 40))
    decoder = ColumnarDecoder(schema)
    assert isinstance(decoder, ColumnarDecoder)
    found = decoder.decode(values)
    found.rows.validate(full=True)
    assert found.bad == ()
    assert_same(FastavroDecoder(schema).decode(values), found)


@pytest.mark.faults
@pytest.mark.parametrize("bounds", ["0", "1"])
def test_damaged_alerts_never_lead_to_a_read_outside_their_bytes(bounds: str, tmp_path: Path) -> None:
    # Bounds checking is part of the compiled code, but not of the name that numba keeps it under.
    own = {"NUMBA_CACHE_DIR": str(tmp_path)} if bounds == "1" else {}
    said = run("-m\ttests.avro.fuzz\t4\t" + bounds, NUMBA_BOUNDSCHECK=bounds, **own)
    assert said.count(f"bounds checking {bounds}") == 3 + len(AlertKind)
    assert said.count("with unions") == 2


@pytest.mark.faults
def test_the_bounds_checking_of_the_test_above_sees_every_kind_of_read(tmp_path: Path) -> None:
    code = (
        "import numpy as np\n"
        "from fink_dask.avro import kernels\n"
        "data, into = np.zeros(20, np.uint8), np.zeros(40, np.uint8)\n"
        "for call in (lambda: kernels.load_int64(data, 13), lambda: kernels.load_int32(data, 17),\n"
        "             lambda: kernels.copy(into, 0, data, 2, 19), lambda: kernels.copy(into, 0, data, 10, 11),\n"
        "             lambda: kernels.copy(into, 25, data, 0, 16), lambda: kernels.read_long(data, 20, 21)):\n"
        "    try:\n"
        "        call()\n"
        "    except IndexError:\n"
        "        print('seen')\n"
    )
    assert run("-c\t" + code, NUMBA_BOUNDSCHECK="1", NUMBA_CACHE_DIR=str(tmp_path)).count("seen") == 6


def test_text_is_judged_by_the_same_rules_as_pythons() -> None:
    rng = random.Random(5)
    values = []
    for _ in range(4000):
        text = rng.choice(["", "a" * 11, "aaaaaaaé", "日本", "\U0010ffff", "\U00010000x"]).encode() * rng.randrange(
            1, 4
        )
        text = text + bytes(rng.choice([0x7F, 0x80, 0xBF, 0xC0, 0xC2, 0xE0, 0xED, 0xF0, 0xF4, 0xF5]) for _ in range(4))
        text = text[: rng.randrange(len(text) + 1)] + rng.choice([b"", b"\x80", b"\x90\x80\x80", b"\x9f\xbf", b"a" * 9])
        values.append(bytes([2 * len(text)]) + text if len(text) < 64 else b"\x00")
    schema = schema_of({"type": "record", "name": "r", "fields": [{"name": "text", "type": "string"}]})
    found = ColumnarDecoder(schema).decode(values)
    assert 100 < len(found.bad) < 3900
    assert_same(FastavroDecoder(schema).decode(values), found)


COLUMNS = [
    ["objectId"],
    ["candidate.jd"],
    ["candidate.magpsf", "objectId", "candidate.jd"],
    ["candidate.drbversion", "fink_class"],
    ["prv_candidates", "candid"],
    ["candidate", "candidate.jd"],
    ["cutoutScience.stampData", "cutoutDifference"],
]


@pytest.mark.parametrize("columns", COLUMNS, ids=",".join)
def test_only_what_is_asked_for_is_decoded_and_all_is_checked(columns: list[str]) -> None:
    schema = schema_of(avro_schema("ztf-full"))
    columns = [column for column in columns if column.split(".")[0] in schema.arrow.names]
    values, rng = list(encoded_alerts("ztf-full", 30)), random.Random(3)
    values += [damage(value, value, rng) for value in values]
    everything, some = ColumnarDecoder(schema).decode(values), ColumnarDecoder(schema, columns)
    found = some.decode(values)
    assert found.rows.schema == some.arrow
    assert some.schema == schema
    assert found.bad == everything.bad
    assert_same(FastavroDecoder(schema, columns).decode(values), found)
    assert [name for name in schema.arrow.names if name in found.rows.schema.names] == found.rows.schema.names
    assert_same(pickle.loads(pickle.dumps(some)).decode(values), found)


@SETTINGS
@given(batches(), st.data())
def test_any_selection_of_columns_is_what_the_whole_has(
    case: tuple[dict[str, object], list[object]], data: st.DataObject
) -> None:
    raw, rows = case
    schema = schema_of(raw)
    paths = list(schema.arrow.names)
    for path in paths:
        kind = field_type(schema.arrow, path)
        if pa.types.is_struct(kind):
            # The list grows while it is read: fields of fields come too.
            paths += [f"{path}.{field.name}" for field in kind]
    columns = data.draw(st.lists(st.sampled_from(paths), min_size=1, max_size=3))
    values = [encode(raw, row) for row in rows]
    found = ColumnarDecoder(schema, columns).decode(values)
    found.rows.validate(full=True)
    assert_same(FastavroDecoder(schema, columns).decode(values), found)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ([], "no column is named"),
        (["f99"], "'f99'"),
        (["f0.x"], "'f0.x'"),
        (["f6.texts"], "'f6.texts'"),
        (["f15.text"], "inside a list or a map"),
        ([""], "''"),
    ],
)
@pytest.mark.parametrize("make", [ColumnarDecoder, FastavroDecoder])
def test_a_column_that_there_is_not_is_named(make: type, columns: list[str], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        make(schema_of(fuzz.SCHEMA), columns)


def test_rows_come_out_in_the_order_of_their_key() -> None:
    schema, values = schema_of(avro_schema("ztf-full")), list(encoded_alerts("ztf-full", 30))
    values[7] = values[7][:-1]
    buffer = np.frombuffer(b"".join(values), np.uint8).copy()
    offsets = np.cumsum([0, *map(len, values)])
    decoder = ColumnarDecoder(schema, key_columns=["candidate.jd", "objectId"])
    seen: list[pa.RecordBatch] = []

    def order(keys: pa.RecordBatch) -> np.ndarray:
        seen.append(keys)
        return np.argsort(-keys.column("candidate").field("jd").to_numpy(), kind="stable")

    plain, found = decoder.decode_joined(buffer, offsets), decoder.decode_joined(buffer, offsets, order=order)
    assert seen[0].schema.names == ["objectId", "candidate"]
    assert seen[0].column("objectId").equals(plain.rows.column("objectId"))
    assert found.bad == plain.bad
    assert [bad.index for bad in found.bad] == [7]
    assert (np.diff(found.rows.column("candidate").field("jd").to_numpy()) <= 0).all()
    expected = FastavroDecoder(schema).decode([values[position] for position in found.positions.tolist()])
    expected = type(expected)(expected.rows, found.positions, found.bad)
    assert_same(expected, found)
    with pytest.raises(ValueError, match="a row twice"):
        decoder.decode_joined(buffer, offsets, order=lambda keys: np.zeros(len(keys), np.int64))


@pytest.mark.parametrize("kind", ["ztf-full", "lsst-full", "ztf-light"])
@pytest.mark.parametrize("wanted", [[], [3], [5, 0, 19], list(range(18, 2, -1)), list(range(19, -1, -1))], ids=len)
def test_rows_that_are_left_out_leave_no_trace(kind: str, wanted: list[int]) -> None:
    schema, values = schema_of(avro_schema(kind)), list(encoded_alerts(kind, 22))
    values[4], values[9] = b"", values[9][:-1]
    buffer, offsets = np.frombuffer(b"".join(values), np.uint8).copy(), np.cumsum([0, *map(len, values)])
    decoder = ColumnarDecoder(schema, key_columns=["objectId" if kind.startswith("ztf") else "diaSourceId"])
    found = decoder.decode_joined(buffer, offsets, order=lambda keys: np.array(wanted, np.int64))
    sound = [position for position in range(22) if position not in {4, 9}]
    assert found.positions.tolist() == [sound[row] for row in wanted]
    assert found.left_out.tolist() == [sound[row] for row in range(20) if row not in wanted]
    expected = FastavroDecoder(schema).decode([values[position] for position in found.positions.tolist()])
    assert_same(type(expected)(expected.rows, found.positions, found.bad), found)
    assert [bad.index for bad in found.bad] == [4, 9]
    found.rows.validate(full=True)


@pytest.mark.parametrize("offsets", [[], [0, 5], [2, 1], [-1, 2]])
def test_offsets_that_lie_about_their_bytes_are_refused(offsets: list[int]) -> None:
    schema = schema_of({"type": "record", "name": "r", "fields": [{"name": "a", "type": "int"}]})
    with pytest.raises(ValueError, match="offsets"):
        ColumnarDecoder(schema).decode_joined(b"\x02\x04", np.array(offsets, np.int64))


def test_rows_that_are_still_held_are_not_overwritten_by_the_next_batch() -> None:
    schema = schema_of({"type": "record", "name": "r", "fields": [{"name": "a", "type": "bytes"}]})
    decoder = ColumnarDecoder(schema)
    held = []
    for number in range(6):
        value = b"\x80\x80\x02" + bytes([number]) * 16384
        held.append(decoder.decode([value] * 3).rows.column("a").slice(1, 1))
        decoder.decode([value[:3] + b"\xff" * 16384] * 3)
    assert [column[0].as_py() for column in held] == [bytes([number]) * 16384 for number in range(6)]


def test_a_column_beyond_the_reach_of_its_offsets_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arena, "MAX_OFFSET", 300)
    symbols = {"type": "enum", "name": "e", "symbols": ["A" * 200]}
    schema = schema_of({"type": "record", "name": "r", "fields": [{"name": "a", "type": symbols}]})
    with pytest.raises(FinkDaskError, match="do not fit in one Arrow record batch"):
        ColumnarDecoder(schema).decode([b"\x00\x00"[:1]] * 2)


def test_validity_is_there_only_where_there_are_nulls() -> None:
    schema = schema_of({"type": "record", "name": "r", "fields": [{"name": "a", "type": ["null", "int"]}]})
    decoder = ColumnarDecoder(schema)
    assert decoder.decode([b"\x02\x02"] * 9).rows.column("a").buffers()[0] is None
    assert decoder.decode([b"\x02\x02", b"\x00"]).rows.column("a").to_pylist() == [1, None]


def test_the_decoders_compiler_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, fink_dask.planning.schemas; assert 'numba' not in sys.modules"
    run("-c\t" + code)


@pytest.mark.commands
def test_a_first_run_can_say_that_it_compiles_and_a_second_does_not(tmp_path: Path) -> None:
    code = "from fink_dask.avro.kernels import *; print(is_compiled(), warm_up() > 0, is_compiled())"
    first, second = (run("-c\t" + code, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2))
    assert (first.split(), second.split()) == (["False", "True", "True"], ["True"] * 3)
