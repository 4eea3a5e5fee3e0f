"""Topics whose records have their schema in the key, and what each record is in a dataset of several schemas."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.dataset as ds

from fink_dask.avro.schema import parse_schema
from tests.harness.oracle import Place, same
from tests.harness.producer import produce

Schema = dict[str, Any]


def record(name: str, **fields: Any) -> Schema:
    """Spell an Avro record."""
    return {"type": "record", "name": name, "fields": [{"name": key, "type": kind} for key, kind in fields.items()]}


def nullable(kind: Any) -> list[Any]:
    """Spell a type that may be null as Spark does."""
    return [kind, "null"]


_PREVIOUS = record("previous", jd="double", magpsf="float")
#: What the livestream is taken to begin with.
V1 = record(
    "alert",
    objectId="string",
    candid="long",
    candidate=record("candidate", jd="double", fid="int"),
    prv_candidates=nullable({"type": "array", "items": _PREVIOUS}),
    tags={"type": "map", "values": "string"},
    cutout="bytes",
)
#: The same with added nullable columns, also in a struct and in a list of structs, and a field that may be null now.
V2 = record(
    "alert",
    objectId="string",
    finkclass=nullable("string"),
    candid="long",
    candidate=record("candidate", drb=nullable("float"), jd="double", fid=nullable("int")),
    prv_candidates=nullable(
        {"type": "array", "items": record("previous", jd="double", magpsf="float", diffmaglim=nullable("double"))}
    ),
    tags={"type": "map", "values": "string"},
    cutout="bytes",
    origin=nullable(record("origin", site="string", number="long")),
)
#: Another one in another order, without the column that the first two have.
V3 = record(
    "alert",
    tags={"type": "map", "values": "string"},
    candidate=record("candidate", jd="double", fid="int"),
    candid="long",
    objectId="string",
    cutout="bytes",
    score=nullable("double"),
)
#: A type has changed: it fits none of them.
OTHER = record("alert", objectId="string", candid="string", candidate=record("candidate", jd="double", fid="int"))


def key_of(schema: Schema) -> bytes:
    """Spell a schema as a record's key has it."""
    return json.dumps(schema).encode()


def with_more(schema: Schema, number: int) -> Schema:
    """Add a nullable column of its own to a schema."""
    more = copy.deepcopy(schema)
    more["fields"].append({"name": f"more_{number}", "type": nullable("int")})
    return more


def make_alert(schema: Schema, number: int) -> dict[str, Any]:
    """Make a record of a schema: every value follows from its number, and some are null."""
    found = _value(schema, number, "")
    assert isinstance(found, dict)
    return found


def _value(kind: Any, number: int, name: str) -> Any:
    if isinstance(kind, list):
        return None if (number + len(name)) % 3 == 0 else _value(kind[0], number, name)
    if isinstance(kind, dict) and kind["type"] == "record":
        return {field["name"]: _value(field["type"], number, field["name"]) for field in kind["fields"]}
    if isinstance(kind, dict) and kind["type"] == "array":
        return [_value(kind["items"], number + item, name) for item in range(number % 4)]
    if isinstance(kind, dict):
        return {f"key {item}": f"{name} {number}" for item in range(number % 3)}
    if name == "jd":
        return 2461095.5 + number % 3
    return {
        "string": f"{name} {number % 7}",
        "bytes": b"%d" % number * 5,
        "long": 10**17 + number,
        "int": number % 4,
        "float": number / 4,
        "double": number / 3,
    }[kind]


def encode(schema: Schema, alert: dict[str, Any]) -> bytes:
    """Encode a record as Fink does."""
    stream = BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), alert)
    return stream.getvalue()


def decode(schema: Schema, value: bytes) -> dict[str, Any]:
    """Decode a record with fastavro."""
    found = fastavro.schemaless_reader(BytesIO(value), fastavro.parse_schema(schema), None)
    assert isinstance(found, dict)
    return found


class Livestream:
    """A topic whose records have their schema in the key, as its producer knows it."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        #: Schema and value of each acknowledged record, by partition and offset.
        self.sent: dict[Place, tuple[Schema, bytes]] = {}

    def add(self, schemas: Sequence[Schema], partitions: int | None = None, seed: int = 0) -> None:
        """Publish one record of each of these schemas, in this order, over the partitions by chance."""
        first = len(self.sent)
        values = [encode(schema, make_alert(schema, first + at)) for at, schema in enumerate(schemas)]
        keys = [key_of(schema) for schema in schemas]
        for record in produce(
            self._bootstrap, self._topic, values, keys=keys, partitions=partitions, seed=seed + first
        ):
            self.sent[record.partition, record.offset] = (schemas[record.index], values[record.index])

    def places(self, *schemas: Schema) -> set[Place]:
        """List where the records of some schemas are."""
        return {place for place, (schema, _) in self.sent.items() if schema in schemas}


def read(outdir: Path, *names: str) -> pa.Table:
    """Read a dataset with the columns of all its files."""
    paths = sorted(map(str, outdir.rglob("*.parquet")))
    schema = pa.unify_schemas([ds.dataset(path).schema for path in paths])
    return ds.dataset(paths, schema=schema).to_table(columns=list(names) or None)


def assert_rows(table: pa.Table, stream: Livestream, places: Iterable[Place], replaced: Sequence[str] = ()) -> None:
    """Fail unless the rows are what fastavro reads of each record by its own schema, and null for what that lacks."""
    rows = {(row.pop("kafka_partition"), row.pop("kafka_offset")): row for row in table.to_pylist()}
    assert len(rows) == table.num_rows
    assert set(rows) == set(places)
    for place, row in rows.items():
        schema, value = stream.sent[place]
        alert = decode(schema, value)
        for name in alert.keys() - row.keys() - set(replaced):
            raise AssertionError(f"{place}: {name} is in no column")
        for name, found in row.items():
            expected = _with_nulls(found, alert.get(name))
            assert same(found, expected), f"{place}: {name} is {found!r}, but {expected!r} was published"


def _with_nulls(found: Any, expected: Any) -> Any:
    """Give a record that was published the fields that the dataset's has more, as nulls."""
    if isinstance(found, dict) and isinstance(expected, dict):
        assert expected.keys() <= found.keys()
        return {name: _with_nulls(value, expected.get(name)) for name, value in found.items()}
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        return [_with_nulls(one, other) for one, other in zip(found, expected, strict=True)]
    return expected


def fingerprint(schema: Schema) -> str:
    """Name a schema as the ledger and the quarantine do."""
    return parse_schema(key_of(schema)).fingerprint
