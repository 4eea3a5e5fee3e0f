"""Rows that are ordered before they are decoded are those that are decoded first and picked out by key."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from io import BytesIO
from itertools import chain, product
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fink_dask.avro.decoder import TOMBSTONE, ColumnarDecoder
from fink_dask.avro.evolution import Versions
from fink_dask.avro.schema import parse_schema
from fink_dask.batches import Memory, join_records
from fink_dask.dataset.partitioning import MAX_KEY_LENGTH, NULL_KEY, hive_level, resolve_partitioning
from fink_dask.ledger.records import Identity
from fink_dask.ranges.decode import RangeDecoder
from tests.harness.examples import examples

RAW = {
    "type": "record",
    "name": "alert",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "class", "type": ["null", "string"]},
        {"name": "candidate", "type": {"type": "record", "name": "c", "fields": [{"name": "jd", "type": "double"}]}},
        {"name": "fid", "type": ["null", "int"]},
        {"name": "cutout", "type": "bytes"},
    ],
}
SCHEMA = parse_schema(json.dumps(RAW))
OTHER_SCHEMA = json.dumps({**RAW, "name": "other"}).encode()
# The same schema in other bytes is the same schema.
OUR_KEYS = (json.dumps(RAW).encode(), json.dumps(RAW, indent=1).encode())
PARSED = fastavro.parse_schema(RAW)
PARTITION = 3

DAYS = {
    2461095.5: "year=2026/month=02/day=24",
    2461096.4999999: "year=2026/month=02/day=24",
    2461096.5: "year=2026/month=02/day=25",
    2440587.5: "year=1970/month=01/day=01",
    float("nan"): f"year={NULL_KEY}/month={NULL_KEY}/day={NULL_KEY}",
    -1.0: f"year={NULL_KEY}/month={NULL_KEY}/day={NULL_KEY}",
}
CLASSES = [None, "", "SN", "Solar System", "a/b", "été", "x" * MAX_KEY_LENGTH, "é" * 40, NULL_KEY]


@dataclass(frozen=True)
class Sent:
    """A record of a topic."""

    value: bytes | None
    key: bytes | None = None


def encode(number: int, name: str | None, jd: float, fid: int | None) -> bytes:
    stream = BytesIO()
    alert = {"id": number, "class": name, "candidate": {"jd": jd}, "fid": fid, "cutout": b"%d" % number * 3}
    fastavro.schemaless_writer(stream, PARSED, alert)
    return stream.getvalue()


ALERTS = st.builds(
    encode,
    st.integers(0, 2**63 - 1),
    st.sampled_from(CLASSES),
    st.sampled_from(list(DAYS)),
    st.none() | st.integers(-1, 2),
)
DAMAGED = st.just(b"") | ALERTS.map(lambda value: value[:-1]) | ALERTS.map(lambda value: value + b"\x00")
VALUES = ALERTS | ALERTS | DAMAGED | st.none()
KEYS = st.sampled_from([*OUR_KEYS, *OUR_KEYS, OTHER_SCHEMA, b"no schema", None])
BATCHES = st.lists(st.lists(st.builds(Sent, VALUES, KEYS), max_size=25), max_size=3)


def place(alert: dict[str, Any], partitionby: tuple[str, ...]) -> str:
    """Name the directory of one alert, by plain words and no arrays."""
    levels = []
    for name in partitionby:
        if name == "time":
            levels.append(next(day for jd, day in DAYS.items() if repr(jd) == repr(alert["candidate"]["jd"])))
        else:
            levels.append(hive_level(name, None if alert[name] is None else str(alert[name])))
    return "/".join(levels)


def is_refused(alert: dict[str, Any], partitionby: tuple[str, ...]) -> bool:
    too_long = any(len(level) > MAX_KEY_LENGTH for level in place(alert, partitionby).split("/"))
    return too_long or ("class" in partitionby and alert["class"] in {NULL_KEY, ""})


#: Conditions, and what they mean.
WHERE: dict[str | None, Callable[[dict[str, Any]], bool]] = {
    None: lambda alert: True,
    "id < 0": lambda alert: False,
    "fid == 1": lambda alert: alert["fid"] == 1,
    'candidate.jd > 0 and class != "SN"': lambda alert: (
        alert["candidate"]["jd"] > 0 and alert["class"] not in {None, "SN"}
    ),
}


def naively(
    records: list[Sent], identity: Identity, first: int
) -> tuple[dict[str, list[dict[str, Any]]], dict[int, str], list[int]]:
    """Decode one record after the other; return the rows of each directory, why others are none, and the filtered."""
    judge = ColumnarDecoder(SCHEMA)
    rows: dict[str, list[dict[str, Any]]] = {}
    bad: dict[int, str] = {}
    filtered = []
    for index, record in enumerate(records):
        if identity.schema_source == "record key" and record.key not in OUR_KEYS:
            is_schema = record.key == OTHER_SCHEMA
            bad[index] = "fit" if is_schema else "no schema"
        elif record.value is None:
            bad[index] = TOMBSTONE
        elif judge.decode([record.value]).bad:
            bad[index] = judge.decode([record.value]).bad[0].reason
        else:
            alert: Any = fastavro.schemaless_reader(BytesIO(record.value), PARSED, None)
            if not WHERE[identity.where](alert):
                filtered.append(index)
            elif is_refused(alert, identity.partitionby):
                bad[index] = "partition"
            else:
                wanted = [name for name in identity.columns or alert if name not in identity.partitionby]
                row = {name: alert[name] for name in wanted}
                row |= {"kafka_partition": PARTITION, "kafka_offset": first + 2 * index}
                rows.setdefault(place(alert, identity.partitionby), []).append(row)
    return rows, bad, filtered


def make_identity(
    partitionby: tuple[str, ...], columns: tuple[str, ...] | None, source: str, where: str | None = None
) -> Identity:
    return Identity("topic", "id", partitionby, "ztf", SCHEMA.fingerprint, source, columns, where=where)


PARTITIONBY: list[tuple[str, ...]] = [(), ("time",), ("class",), ("class", "fid"), ("time", "class")]
ALL_CLASSES = [
    [Sent(encode(n, CLASSES[n % len(CLASSES)], jd, n % 2), OUR_KEYS[0]) for n in range(30)] for jd in (2461095.5, -1.0)
]
ALL_BAD = [[Sent(None), Sent(b""), Sent(b"\x00", OUR_KEYS[0]), Sent(None, OUR_KEYS[1])]]
ALL_REFUSED = [[Sent(encode(n, "x" * 200, -1.0, None), OUR_KEYS[0]) for n in range(3)]]


COLUMNS: list[tuple[str, ...] | None] = [None, ("id", "fid")]
SOURCES = ["file", "record key"]


@examples(150)
@given(
    batches=BATCHES,
    partitionby=st.sampled_from(PARTITIONBY),
    columns=st.sampled_from(COLUMNS),
    source=st.sampled_from(SOURCES),
    where=st.sampled_from(list(WHERE)),
)
def test_each_record_is_a_row_of_its_directory_in_offset_order_or_bad_with_a_reason_or_filtered(
    batches: list[list[Sent]],
    partitionby: tuple[str, ...],
    columns: tuple[str, ...] | None,
    source: str,
    where: str | None,
) -> None:
    check(batches, partitionby, columns, source, where)


@pytest.mark.parametrize(
    "batches",
    [ALL_REFUSED, [[], *ALL_CLASSES, *ALL_BAD, *ALL_CLASSES]],
    ids=["all refused", "all classes and all bad"],
)
def test_so_it_is_where_all_records_are_unusual(batches: list[list[Sent]]) -> None:
    for partitionby, columns, source, where in product(PARTITIONBY, COLUMNS, SOURCES, WHERE):
        check(batches, partitionby, columns, source, where)


def check(
    batches: list[list[Sent]],
    partitionby: tuple[str, ...],
    columns: tuple[str, ...] | None,
    source: str,
    where: str | None,
) -> None:
    """Hold what the decoder makes of batches against what a plain loop makes of them."""
    identity = make_identity(partitionby, columns, source, where)
    partitioning = resolve_partitioning(partitionby, "ztf", SCHEMA.arrow)
    decoder = RangeDecoder(Versions((SCHEMA,)), identity, partitioning, PARTITION)
    memory = Memory()
    for number, records in enumerate(batches):
        first = 1000 * number + 7
        offsets = [first + 2 * index for index in range(len(records))]  # each second offset is a hole
        values, keys = [record.value for record in records], [record.key for record in records]
        found = decoder.decode(join_records(offsets, [-1] * len(records), values, keys, memory))
        rows, bad, filtered = naively(records, identity, first)

        parts = [(directory, part.batch()) for directory, part in found.parts]
        directories = [directory for directory, _ in parts]
        assert len(set(directories)) == len(directories)
        assert all(part.schema.equals(decoder.file_schema) for _, part in parts)
        assert all(part.num_rows for _, part in parts)
        assert repr({directory: part.to_pylist() for directory, part in sorted(parts)}) == repr(
            dict(sorted(rows.items()))
        )
        assert [index for index, _ in found.bad] == sorted(bad)
        assert all(bad[index] in reason for index, reason in found.bad)
        assert found.filtered.tolist() == filtered


def test_reasons_of_refused_keys_name_the_key_and_belong_to_their_records() -> None:
    partitionby = ("class", "fid")
    partitioning = resolve_partitioning(partitionby, None, SCHEMA.arrow)
    decoder = RangeDecoder(Versions((SCHEMA,)), make_identity(partitionby, None, "file"), partitioning, 0)
    names = ["y" * 300, "SN", NULL_KEY, "z" * 300, None]
    values = [encode(n, name, -1.0, n) for n, name in enumerate(names)]
    found = decoder.decode(join_records(list(range(5)), [-1] * 5, values, [None] * 5, Memory()))
    reasons = dict(found.bad)
    assert sorted(reasons) == [0, 2, 3]
    assert "class=yyy" in reasons[0]
    assert f"is {NULL_KEY}" in reasons[2]
    assert "class=zzz" in reasons[3]
    assert {directory for directory, _ in found.parts} == {f"class={NULL_KEY}/fid=4", "class=SN/fid=1"}


EVOLVED = {**RAW, "fields": [RAW["fields"][3], {"name": "more", "type": ["int", "null"]}, *RAW["fields"][:3]]}
EVOLVED_SCHEMA, EVOLVED_PARSED = parse_schema(json.dumps(EVOLVED)), fastavro.parse_schema(EVOLVED)


def encode_evolved(number: int, name: str | None, jd: float, more: int | None) -> bytes:
    stream = BytesIO()
    alert = {"id": number, "class": name, "candidate": {"jd": jd}, "fid": 1, "more": more}
    fastavro.schemaless_writer(stream, EVOLVED_PARSED, alert)
    return stream.getvalue()


MIXED = st.lists(
    st.builds(Sent, ALERTS | DAMAGED, st.just(OUR_KEYS[0]))
    | st.builds(
        Sent,
        st.builds(encode_evolved, st.integers(0, 99), st.sampled_from(CLASSES), st.sampled_from(list(DAYS)), st.none())
        | st.builds(encode_evolved, st.integers(0, 99), st.just("SN"), st.just(-1.0), st.integers(0, 9))
        | st.none()
        | st.just(b"\x01"),
        st.just(json.dumps(EVOLVED).encode()),
    )
    | st.builds(Sent, ALERTS, st.sampled_from([b"no schema", None])),
    max_size=30,
)


@examples(150)
@given(
    records=MIXED,
    partitionby=st.sampled_from(PARTITIONBY),
    columns=st.sampled_from([None, ("more",), ("candidate.jd", "cutout")]),
    where=st.sampled_from([None, "more is null or more > 3", 'fid == 1 and class != "SN"', "id < 0"]),
)
def test_in_a_batch_of_several_schemas_each_record_is_what_it_would_be_alone(
    records: list[Sent], partitionby: tuple[str, ...], columns: tuple[str, ...] | None, where: str | None
) -> None:
    versions = Versions((SCHEMA,)).plus(EVOLVED_SCHEMA)
    identity = make_identity(partitionby, columns, "record key", where)
    partitioning = resolve_partitioning(partitionby, "ztf", SCHEMA.arrow)

    def decode(chosen: list[int]) -> tuple[dict[str, list[dict[str, Any]]], dict[int, str], set[int]]:
        decoder = RangeDecoder(versions, identity, partitioning, PARTITION)
        values, keys = [records[index].value for index in chosen], [records[index].key for index in chosen]
        found = decoder.decode(join_records(chosen, [-1] * len(chosen), values, keys, Memory()))
        parts = [(directory, part.batch()) for directory, part in found.parts]
        assert all(part.schema.equals(decoder.file_schema) for _, part in parts)
        for _, part in parts:
            part.validate(full=True)
        return (
            {name: part.to_pylist() for name, part in parts},
            {chosen[at]: why for at, why in found.bad},
            {chosen[at] for at in found.filtered},
        )

    rows: dict[str, list[dict[str, Any]]] = {}
    bad: dict[int, str] = {}
    filtered: set[int] = set()
    for index in range(len(records)):
        alone, wrong, without = decode([index])
        bad |= wrong
        filtered |= without
        for name, found in alone.items():
            rows.setdefault(name, []).extend(found)
    together, refused, left_out = decode(list(range(len(records))))
    assert repr(dict(sorted(together.items()))) == repr(dict(sorted(rows.items())))
    assert refused == bad
    assert left_out == filtered
    if where is not None:  # by another way than the columns of the rows
        wanted = {"more is null or more > 3": lambda row: row["more"] is None or row["more"] > 3}.get(where)
        assert wanted is None or columns is not None or all(map(wanted, chain.from_iterable(rows.values())))


def logical(kind: str, name: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "logicalType": name, **more}


TYPED: dict[str, Any] = {
    "big": "long",
    "small": "float",
    "sure": ["null", "boolean"],
    "kind": {"type": "enum", "name": "kinds", "symbols": ["SN", "AGN"]},
    "seen": logical("long", "timestamp-micros"),
    "night": logical("int", "date"),
    "price": logical("bytes", "decimal", precision=9, scale=2),
    "either": [
        "null",
        "long",
        "string",
        {"type": "record", "name": "inner", "fields": [{"name": "x", "type": ["null", "double"]}]},
    ],
}
TYPED_ROWS = [
    {
        "big": 2**62 + number,
        "small": 0.65 if number % 2 else 0.1,
        "sure": [None, True, False][number % 3],
        "kind": ["SN", "AGN"][number % 2],
        "seen": datetime(2026, 2, 20 + number, tzinfo=UTC),
        "night": date(2026, 2, 20 + number),
        "price": Decimal(number) / 4,
        "either": [None, number, f"text {number}", {"x": number / 2}, {"x": None}][number % 5],
    }
    for number in range(8)
]


@pytest.mark.parametrize(
    ("where", "is_wanted"),
    [
        (f"big == {2**62 + 1} or big in [{2**62 + 3}]", lambda row: row["big"] in {2**62 + 1, 2**62 + 3}),
        ("small == 0.65", lambda row: row["small"] == 0.65),
        ("not sure", lambda row: row["sure"] is False),
        ("kind != 'SN'", lambda row: row["kind"] == "AGN"),
        ("'2026-02-22' < seen <= '2026-02-24T00:00:00Z'", lambda row: row["seen"].day in {23, 24}),
        ("night == '2026-02-22'", lambda row: row["night"].day == 22),
        ("price in [0.25, 1.5]", lambda row: row["price"] in {Decimal("0.25"), Decimal("1.5")}),
        ("either.member0 > 1", lambda row: isinstance(row["either"], int) and row["either"] > 1),
        ("either.member1 == 'text 7'", lambda row: row["either"] == "text 7"),
        ("either.member2.x / 3 == 0.5", lambda row: row["either"] == {"x": 1.5}),
        ("either is null", lambda row: row["either"] is None),
        ("either.member2 is not null", lambda row: isinstance(row["either"], dict)),
    ],
)
def test_values_of_every_type_can_be_asked_of(where: str, is_wanted: Callable[[dict[str, Any]], bool]) -> None:
    fields = [{"name": name, "type": kind} for name, kind in TYPED.items()]
    schema = parse_schema(json.dumps({"type": "record", "name": "alert", "fields": fields}))
    parsed = fastavro.parse_schema(json.loads(schema.text))
    values = []
    for row in TYPED_ROWS:
        stream = BytesIO()
        fastavro.schemaless_writer(stream, parsed, row)
        values.append(stream.getvalue())
    identity = Identity("topic", "id", (), None, schema.fingerprint, "file", ("big",), where=where)
    decoder = RangeDecoder(Versions((schema,)), identity, resolve_partitioning((), None, schema.arrow), 0)
    found = decoder.decode(join_records(list(range(8)), [-1] * 8, values, [None] * 8, Memory()))
    kept = [offset for _, part in found.parts for offset in part.batch()["kafka_offset"].to_pylist()]
    assert kept == [number for number, row in enumerate(TYPED_ROWS) if is_wanted(row)]
    assert kept
    assert sorted([*kept, *found.filtered.tolist()]) == list(range(8))
