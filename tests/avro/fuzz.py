"""Damage records at random and hold both decoders against each other: ``python -m tests.avro.fuzz ROUNDS SEED``."""

from __future__ import annotations

import json
import os
import random
import sys
from io import BytesIO

import fastavro

from fink_dask.avro.decoder import ColumnarDecoder
from fink_dask.avro.reference import FastavroDecoder
from fink_dask.avro.schema import parse_schema
from tests.alerts.made_up import AlertKind, avro_schema, encoded_alerts
from tests.avro.oracle import assert_same, damage
from tests.avro.union_alerts import UnionAlerts

DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 7, "scale": 2}
INNER = {
    "type": "record",
    "name": "inner",
    "fields": [
        {"name": "text", "type": ["string", "null"]},
        {"name": "nothing", "type": "null"},
        {"name": "map", "type": ["null", {"type": "map", "values": ["null", DECIMAL]}]},
        {"name": "enum", "type": ["null", {"type": "enum", "name": "kind", "symbols": ["A", "BB", "CCC"]}]},
    ],
}
TYPES: list[object] = [
    "boolean", "string", "int", "long", ["null"], ["int"], ["null", INNER], ["inner", "null"], DECIMAL,
    {"type": "fixed", "name": "wide", "size": 40, "logicalType": "decimal", "precision": 60},
    ["null", {"type": "fixed", "name": "three", "size": 3}], ["kind", "null"], ["boolean", "null"],
    ["null", {"type": "int", "logicalType": "time-millis"}], {"type": "long", "logicalType": "time-micros"},
    {"type": "array", "items": ["null", {"type": "array", "items": ["inner", "null"]}]},
    {"type": "map", "values": {"type": "array", "items": "double"}}, ["null", "bytes"],
    ["inner", "null", "long", "three", "kind", {"type": "array", "items": ["string", "inner", "boolean"]}],
]  # fmt: skip
SCHEMA = {
    "type": "record",
    "name": "everything",
    "fields": [{"name": f"f{index}", "type": type_} for index, type_ in enumerate(TYPES)],
}


def everything(count: int, rng: random.Random) -> list[bytes]:
    """Records with every type that alerts have not, and text that is not ASCII."""
    records = []
    for _ in range(count):
        number = rng.randbytes(4)
        inner = {
            "text": rng.choice(["", "é", "日本", "a" * 20, "\U0001f52d" * 9, None]),
            "nothing": None,
            "map": {"k": b"\x01", "ü": None},
            "enum": rng.choice(["A", "CCC", None]),
        }
        values: list[object] = [
            rng.random() < 0.5, "ascii", rng.randrange(-(2**31), 2**31), rng.randrange(-(2**63), 2**63), None, 7,
            rng.choice([inner, None]), rng.choice([inner, None]), number[:3], b"\0" * 20 + number * 5,
            rng.choice([number[:3], None]), "BB", None, rng.choice([86_399_999, None]), rng.randrange(86_400_000_000),
            [None, [inner, None], []], {"a": [1.0, 2.5], "": []}, number * 9,
            rng.choice([None, inner, 2**62, ("three", number[:3]), ("kind", "BB"), ["é", inner, True, "x" * 20]]),
        ]  # fmt: skip
        stream = BytesIO()
        row = {f"f{index}": value for index, value in enumerate(values)}
        fastavro.schemaless_writer(stream, _WITHOUT_LOGICAL_TYPES, row)
        records.append(stream.getvalue())
    return records


def _plain(raw: object) -> object:
    if isinstance(raw, dict):
        return {key: _plain(value) for key, value in raw.items() if key != "logicalType"}
    return [_plain(value) for value in raw] if isinstance(raw, list) else raw


_WITHOUT_LOGICAL_TYPES = fastavro.parse_schema(_plain(SCHEMA))


def main(rounds: int, seed: int) -> None:
    rng = random.Random(seed)
    corpora = [(str(kind), avro_schema(kind), list(encoded_alerts(kind, 20))) for kind in AlertKind]
    for kind in (AlertKind.ZTF_FULL, AlertKind.LSST_LIGHT):
        alerts = UnionAlerts(kind, seed)
        corpora.append((f"{kind} with unions", alerts.schema, alerts.encoded(20)))
    for name, raw, values in [("everything", SCHEMA, everything(50, rng)), *corpora]:
        schema = parse_schema(json.dumps(raw))
        oracle, columnar = FastavroDecoder(schema), ColumnarDecoder(schema)
        bad = records = 0
        assert_same(oracle.decode(values), columnar.decode(values))
        assert not columnar.decode(values).bad
        for _ in range(rounds if len(values[0]) > 10_000 else 20 * rounds):
            batch = [damage(rng.choice(values), rng.choice(values), rng) for _ in range(15)] + [rng.choice(values)]
            expected, found = oracle.decode(batch), columnar.decode(batch)
            found.rows.validate(full=True)
            assert_same(expected, found)
            bad, records = bad + len(found.bad), records + len(batch)
        assert 0 < bad < records
        print(f"{name}: {bad} of {records} are bad, bounds checking {os.environ.get('NUMBA_BOUNDSCHECK', '0')}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
