from __future__ import annotations

import gc
import json
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fink_dask.avro import columns as arena
from fink_dask.avro.appending import append, begin, lay_out
from fink_dask.avro.columns import Columns
from fink_dask.avro.decoder import ColumnarDecoder, DecodedBatch
from fink_dask.avro.kernels import decode, warm_up
from fink_dask.avro.reference import FastavroDecoder
from fink_dask.avro.schema import AvroSchema, field_type, parse_schema
from fink_dask.batches import Memory
from fink_dask.errors import FinkDaskError, SettingsError
from tests.alerts.made_up import AlertKind, avro_schema
from tests.avro import fuzz
from tests.avro.oracle import NUMBERS, assert_same, damage
from tests.avro.strategies import batches, encode
from tests.harness.alerts_once import alerts_once
from tests.harness.examples import examples

ROOT = Path(__file__).parents[2]
SETTINGS = examples(75)


def schema_of(raw: object) -> AvroSchema:
    return parse_schema(json.dumps(raw))


def joined(values: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    return np.frombuffer(b"".join(values), np.uint8).copy(), np.cumsum([0, *map(len, values)])


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
    schema, values = schema_of(avro_schema(kind)), alerts_once(kind, 40)
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
    file = tmp_path / "reads.py"
    file.write_text(
        "import numpy as np\n"
        "from fink_dask.avro.appending import place\n"
        "from fink_dask.avro.kernels import read_long\n"
        "from fink_dask.compiling import compiled, load_byte, load_int32, load_int64, span\n"
        "data, into = np.zeros(20, np.uint8), np.zeros(64, np.uint8)\n"
        "table = np.array([into.ctypes.data, 0, 0, 0, 30, 0, 0, 0])\n"
        "def a(n): return load_int64(data, n)\n"
        "def b(n): return load_int32(data, n)\n"
        "def c(n): return load_byte(data, n)\n"
        "def d(n): return span(data, n, 5)\n"
        "def e(n): return span(data, 3, n)\n"
        "def f(n): return place(table, 0, 0, n, 8)\n"
        "def h(n): return read_long(data, n, n + 1)\n"
        "for call, fits in ((a, 12), (b, 16), (c, 19), (d, 15), (e, 17), (f, 22), (h, 19)):\n"
        "    call = compiled(call)\n"
        "    call(fits)\n"
        "    for wrong in (fits + 1, -1):\n"
        "        try:\n"
        "            call(wrong)\n"
        "        except IndexError:\n"
        "            print('seen')\n"
    )
    assert run(str(file), NUMBA_BOUNDSCHECK="1", NUMBA_CACHE_DIR=str(tmp_path)).count("seen") == 14


def test_a_numba_that_has_changed_what_it_does_not_promise_compiles_and_keeps_loops_all_the_same(
    tmp_path: Path,
) -> None:
    file = tmp_path / "loops.py"
    file.write_text(
        "import numba.core.options\n"
        "from numba.core.caching import Cache\n"
        "load = Cache._load_overload\n"
        "Cache._load_overload = lambda cache, asked: load(cache, *asked)\n"
        "def promised(cache, kind, context):\n"
        "    context.refresh()\n"
        "    return cache._load_overload((kind, context))\n"
        "Cache.load_overload = promised\n"
        "del numba.core.options.DefaultOptions\n"
        "import numpy as np\n"
        "from fink_dask.compiling import compiled, load_int32\n"
        "def read(data, at): return load_int32(data, at)\n"
        "for _ in range(2):\n"
        "    call = compiled(read)\n"
        "    print('read', call(np.arange(3, dtype=np.int32).view(np.uint8), 4), sum(call.stats.cache_hits.values()))\n"
    )
    said = run(str(file), NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    assert [line for line in said.splitlines() if line.startswith("read")] == ["read 1 0", "read 1 1"]


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
    values, rng = alerts_once(AlertKind.ZTF_FULL, 30), random.Random(3)
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
        ([], "column"),
        (["f99"], "'f99'"),
        (["f0.x"], "'f0.x'"),
        (["f6.texts"], "'f6.texts'"),
        (["f15.text"], "list"),
        ([""], "''"),
    ],
)
@pytest.mark.parametrize("make", [ColumnarDecoder, FastavroDecoder])
def test_a_column_that_there_is_not_is_named(make: type, columns: list[str], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        make(schema_of(fuzz.SCHEMA), columns)


def test_rows_come_out_in_the_order_they_are_wanted_in() -> None:
    schema, values = schema_of(avro_schema("ztf-full")), alerts_once(AlertKind.ZTF_FULL, 30)
    values[7] = values[7][:-1]
    decoder = ColumnarDecoder(schema, key_columns=["candidate.jd", "objectId"])
    decoding = decoder.decode_joined(*joined(values))
    keys = decoding.keys()
    assert keys.schema.names == ["objectId", "candidate"]
    assert keys.column("objectId").equals(decoding.take().column("objectId"))
    assert [bad.index for bad in decoding.bad] == [7]
    order = np.argsort(-keys.column("candidate").field("jd").to_numpy(), kind="stable")
    # A row may come twice, and rows that follow each other are moved together.
    for wanted in (order, order[:4], np.array([5, 6, 7, 8, 2, 2, 2, 28]), np.arange(3, 20), np.zeros(0, np.int64)):
        positions = decoding.positions[wanted]
        expected = FastavroDecoder(schema).decode([values[position] for position in positions.tolist()])
        rows = decoding.take(wanted)
        rows.validate(full=True)
        assert_same(expected, DecodedBatch(rows, expected.positions, ()))
    for wrong in ([29], [-1]):
        with pytest.raises(ValueError, match="not"):
            decoding.take(np.array(wrong))


@SETTINGS
@given(batches(), st.data())
def test_any_rows_in_any_order_are_what_the_whole_has(
    case: tuple[dict[str, object], list[object]], data: st.DataObject
) -> None:
    raw, rows = case
    values = [encode(raw, row) for row in rows for _ in range(3)]
    decoding = ColumnarDecoder(schema_of(raw)).decode_joined(*joined(values))
    wanted = np.array(data.draw(st.lists(st.integers(0, len(values) - 1), max_size=12)), np.int64)
    some = decoding.take(wanted)
    some.validate(full=True)
    expected = FastavroDecoder(schema_of(raw)).decode([values[row] for row in wanted.tolist()])
    assert_same(expected, DecodedBatch(some, expected.positions, ()))


@SETTINGS
@given(batches(), st.data())
def test_rows_of_many_batches_that_are_put_together_are_what_one_batch_would_have(
    case: tuple[dict[str, object], list[object]], data: st.DataObject
) -> None:
    raw, rows = case
    decoder = ColumnarDecoder(schema_of(raw))
    values = [encode(raw, row) for row in rows for _ in range(3)]
    several: list[Columns] = []
    wanted: list[int] = []
    for _ in range(data.draw(st.integers(1, 5))):
        some = data.draw(st.lists(st.integers(0, len(values) - 1), max_size=12))
        decoding = decoder.decode_joined(*joined(values))
        if not several or data.draw(st.booleans()):
            several.append(Columns(decoding.taker))
        decoding.append(several[-1], np.array(some, np.int64), data.draw(st.sampled_from([0, 5000, 2**20])), 0.5)
        wanted += some
        if data.draw(st.booleans()):  # put aside on the disk, and brought back
            several[-1].unpack(several[-1].pack().to_pybytes())
    whole, *others = several
    for other in others:
        whole.extend(other, data.draw(st.sampled_from([0, 2**20])))
    found = whole.batch()
    found.validate(full=True)
    expected = FastavroDecoder(schema_of(raw)).decode([values[row] for row in wanted])
    assert_same(expected, DecodedBatch(found, expected.positions, ()))


@pytest.mark.parametrize("kind", ["ztf-full", "lsst-full", "ztf-light"])
def test_rows_that_are_left_out_leave_no_trace(kind: str) -> None:
    schema, values = schema_of(avro_schema(kind)), alerts_once(kind, 22)
    values[4], values[9] = b"", values[9][:-1]
    decoder = ColumnarDecoder(schema, key_columns=["objectId" if kind.startswith("ztf") else "diaSourceId"])
    decoding = decoder.decode_joined(*joined(values))
    sound = [position for position in range(22) if position not in {4, 9}]
    assert decoding.positions.tolist() == sound
    assert [bad.index for bad in decoding.bad] == [4, 9]
    for wanted in ([], [3], [5, 0, 19], list(range(18, 2, -1)), list(range(19, -1, -1))):
        rows = decoding.take(np.array(wanted, np.int64))
        expected = FastavroDecoder(schema).decode([values[sound[row]] for row in wanted])
        assert_same(expected, DecodedBatch(rows, expected.positions, ()))
        rows.validate(full=True)


def test_a_batch_that_outgrows_its_memory_again_and_again_loses_nothing() -> None:
    raw = avro_schema("lsst-full")
    schema, values = schema_of(raw), alerts_once(AlertKind.LSST_FULL, 6)
    fields = [{"name": "texts", "type": {"type": "array", "items": "string"}}, {"name": "bytes", "type": "bytes"}]
    texts = {"type": "record", "name": "r", "fields": fields}
    grown = [
        encode(texts, {"texts": ["é" * (7 * number)] * 3**number, "bytes": b"x" * 9**number}) for number in range(6)
    ]
    for one, records in ((schema, values), (schema_of(texts), grown), (schema_of(texts), grown[::-1])):
        damaged = [each for record in records for each in (record[:-1], record)]
        assert_same(FastavroDecoder(one).decode(damaged), ColumnarDecoder(one).decode(damaged))


@pytest.fixture
def growth(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of the memory of columns after each time that it grew."""
    sizes = []
    grow = arena.Scratch.grow

    def noted(scratch: arena.Scratch, *args: int) -> None:
        grow(scratch, *args)
        sizes.append(scratch.nbytes)

    monkeypatch.setattr(arena.Scratch, "grow", noted)
    return sizes


def record_of(*types: object) -> dict[str, object]:
    fields = [{"name": f"f{index}", "type": type_} for index, type_ in enumerate(types)]
    return {"type": "record", "name": "r", "fields": fields}


def test_a_record_that_is_too_large_for_all_its_columns_is_read_a_few_times_and_not_once_for_each(
    growth: list[int],
) -> None:
    inner = {"type": "array", "items": ["null", {"type": "array", "items": ["string", "null"]}]}
    raw = record_of(*["string", inner, ["null", "boolean"]] * 25)
    lists = [None, ["x" * 99, None] * 15] * 9
    row = {f"f{index}": ("y" * 999, lists, True)[index % 3] for index in range(75)}
    value, schema = encode(raw, row), schema_of(raw)
    bad = value[:-1] + b"\x03"
    values = [bad, value, b"", bad, value, value[:-3], value]
    assert_same(FastavroDecoder(schema).decode(values), ColumnarDecoder(schema).decode(values))
    assert 1 <= len(growth) <= 5


def test_a_bad_record_makes_no_room_for_what_it_claims(growth: list[int]) -> None:
    schema = schema_of(record_of("string", {"type": "array", "items": ["null", "double"]}))
    value = encode(schema.document, {"f0": "x" * 9999, "f1": [None] * 9999})
    assert len(ColumnarDecoder(schema).decode([value[:-1], value + b"\0"]).bad) == 2
    assert growth == []


def test_what_one_large_record_takes_is_not_expected_of_all_where_memory_is_large(
    growth: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arena, "_GUESSED_BYTES", 2**19)
    lists = [{"type": "array", "items": "double"}] * 10
    schema = schema_of(record_of({"type": "array", "items": ["null", "double"]}, *lists))
    values = [
        encode(
            schema.document,
            {"f0": [None] * (1 if number else 20_000)}
            | {f"f{each}": [0.5] * (2**15 if each == number else 0) for each in range(1, 11)},
        )
        for number in range(11)
    ]
    found = ColumnarDecoder(schema).decode([*values, *[b"\0" * 11] * 5000])
    assert found.bad == ()
    assert len(growth) > 5
    # Twice what it takes, and one last guess.
    assert growth[-1] < 2 * found.rows.nbytes + 2**22


def test_a_text_of_any_length_at_the_very_end_of_the_bytes_arrives() -> None:
    schema = schema_of({"type": "record", "name": "r", "fields": [{"name": "a", "type": "string"}]})
    decoder, oracle = ColumnarDecoder(schema), FastavroDecoder(schema)
    for size in range(40):
        for text in ("a" * size, "é" + "a" * size):
            values = [encode(schema.document, {"a": each}) for each in ("before", text)]
            assert_same(oracle.decode(values), decoder.decode(values))


@pytest.mark.parametrize("offsets", [[], [0, 5], [2, 1], [-1, 2]])
def test_offsets_that_lie_about_their_bytes_are_refused(offsets: list[int]) -> None:
    schema = schema_of({"type": "record", "name": "r", "fields": [{"name": "a", "type": "int"}]})
    with pytest.raises(ValueError, match="offsets"):
        ColumnarDecoder(schema).decode_joined(b"\x02\x04", np.array(offsets, np.int64))


@pytest.mark.parametrize(
    ("kind", "value", "trace"),
    [
        ({"type": "enum", "name": "e", "symbols": ["A", "SECRET"]}, b"\x02\x02", b"SECRET"),
        ("int", b"\x02\x02", b"\x01"),
        ("long", b"\x02\x02", b"\x01"),
    ],
)
def test_a_null_has_nothing_of_what_was_there_in_the_batch_before(kind: object, value: bytes, trace: bytes) -> None:
    decoder = ColumnarDecoder(schema_of(record_of(["null", kind])))
    column = decoder.decode([value] * 50).rows.column(0)
    assert trace in column.buffers()[-1].to_pybytes()
    column = decoder.decode([b"\x00"] * 50).rows.column(0)
    assert column.null_count == 50
    assert trace not in column.buffers()[-1].to_pybytes()


def test_a_tombstone_is_no_row_of_a_schema_whose_records_have_no_byte_either() -> None:
    found = ColumnarDecoder(schema_of(record_of("null"))).decode([b"", None, b""])
    assert found.rows.num_rows == 2
    assert found.positions.tolist() == [0, 2]
    assert [bad.index for bad in found.bad] == [1]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_nothing_is_compiled_again_for_offsets_and_bytes_of_another_kind(kind: type) -> None:
    schema = schema_of(record_of("string"))
    warm_up()
    offsets = np.array([0, 9, 2, 9, 4])[::2]
    offsets.flags.writeable = False
    for each in (offsets, offsets.copy(), [0, 2, 4]):
        rows = ColumnarDecoder(schema).decode_joined(kind(b"\x02a\x02b"), each).take()
        assert rows.column("f0").to_pylist() == ["a", "b"]
    # Nor for those of the tests before.
    assert [len(each.signatures) for each in (decode, append, begin, lay_out)] == [1, 1, 1, 1]


@pytest.mark.parametrize("size", [2**14, 2**20])
def test_rows_that_are_still_held_are_not_overwritten_by_the_next_batch(size: int) -> None:
    schema = schema_of(record_of("bytes"))
    decoder = ColumnarDecoder(schema)
    held = []
    for number in range(6):
        values = [encode(schema.document, {"f0": bytes([each]) * size}) for each in (number, 255)]
        held.append(decoder.decode(values[:1] * 3).rows.column("f0").slice(1, 1))
        places = [decoder.decode(values[1:] * 3).rows.column("f0").buffers()[-1].address for _ in range(2)]
    assert [column[0].as_py() for column in held] == [bytes([number]) * size for number in range(6)]
    if size == 2**20:
        assert places[0] == places[1], (
            "each row group's memory is cleared and mapped anew, which takes as long as filling it"
        )


def test_memory_is_not_used_again_as_long_as_anything_is_made_of_it() -> None:
    memory = Memory()
    first = memory.take(3 * 4096)
    first[:] = 1
    inside = first[4096:][:10]
    buffer = pa.py_buffer(inside).slice(2, 3)
    del first, inside
    memory.take(3 * 4096)[:] = 2
    assert buffer.to_pybytes() == b"\1\1\1"


def test_memory_can_be_given_back_at_any_moment_while_another_piece_is_looked_for() -> None:
    memory = Memory(kept=4)
    threshold = gc.get_threshold()
    for allocations in range(1, 20):
        gc.collect()
        gc.disable()
        garbage: list[object] = [memory.take(5000)]
        garbage.append(garbage)
        held = [memory.take(size) for size in (1000, 1001, 1002)]
        del held, garbage
        # Python keeps pairs to use them again, and collects garbage only where it makes new ones.
        pairs = [(number, -number) for number in range(3000)]
        gc.set_threshold(gc.get_count()[0] + allocations)
        gc.enable()
        try:
            memory.take(10**7)
        finally:
            gc.set_threshold(*threshold)
        del pairs


def test_a_column_beyond_the_reach_of_its_offsets_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arena, "MAX_OFFSET", 300)
    symbols = {"type": "enum", "name": "e", "symbols": ["A" * 200]}
    schema = schema_of({"type": "record", "name": "r", "fields": [{"name": "a", "type": symbols}]})
    with pytest.raises(FinkDaskError, match=r"Arrow.*\b300\b"):
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


def test_a_process_that_finds_the_decoder_on_disk_decodes_at_once_and_can_still_compile() -> None:
    code = """
import sys
import numba
from fink_dask.avro.decoder import ColumnarDecoder
from fink_dask.avro.schema import parse_schema
from fink_dask.avro.kernels import warm_up
warm_up()
schema = parse_schema(b'{"type": "record", "name": "r", "fields": [{"name": "a", "type": "string"}]}')
rows = ColumnarDecoder(schema).decode([b"\\x04hi", b"\\x04h", b"\\x00"]).rows.column("a").to_pylist()
loaded = "numba.cpython.numbers" in sys.modules
print(rows, loaded, numba.njit(lambda number: number + 1)(1))
"""
    run("-c\t" + code)
    assert run("-c\t" + code).strip() == "['hi', ''] False 2"
