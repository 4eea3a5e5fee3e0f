"""The oracle: what the producer knows of every acknowledged alert, held against a dataset."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from fink_dask.dataset.formats import format_of
from tests.alerts.made_up import AlertKind, avro_schema, encoder
from tests.harness.alerts_once import alerts_once
from tests.harness.producer import Produced, produce, publish_schema
from tests.harness.topics import PATIENCE_S, create_topic

Place = tuple[int, int]


@dataclass
class Oracle:
    """A topic as its producer knows it."""

    schema: dict[str, Any]
    #: The bytes of each acknowledged alert, by partition and offset.
    values: dict[Place, bytes]

    def alert(self, place: Place) -> dict[str, Any]:
        """Decode one alert with fastavro."""
        found = fastavro.schemaless_reader(BytesIO(self.values[place]), fastavro.parse_schema(self.schema), None)
        assert isinstance(found, dict)
        return found


def make_topic(bootstrap: str, topic: str, kind: AlertKind, partitions: int = 10) -> dict[str, Any]:
    """Make an empty topic, and its schema topic; returns the schema."""
    create_topic(bootstrap, topic, partitions)
    schema = avro_schema(kind)
    publish_schema(bootstrap, topic, json.dumps(schema))
    return schema


def fill_topic(
    bootstrap: str,
    topic: str,
    kind: AlertKind,
    count: int,
    *,
    partitions: int = 10,
    seed: int = 0,
    first_id: int = 0,
    options: Mapping[str, Any] | None = None,
) -> Oracle:
    """Make a topic of made-up alerts, its schema topic too, and keep what was acknowledged."""
    oracle = Oracle(make_topic(bootstrap, topic, kind, partitions), {})
    add_alerts(bootstrap, topic, oracle, kind, count, seed=seed, first_id=first_id, options=options)
    return oracle


def fill_with(bootstrap: str, topic: str, kind: AlertKind, alerts: Iterable[Any], partitions: int = 10) -> Oracle:
    """Make a topic of these alerts, its schema topic too, and keep what was acknowledged."""
    oracle = Oracle(make_topic(bootstrap, topic, kind, partitions), {})
    values = list(map(encoder(oracle.schema), alerts))
    note(oracle, produce(bootstrap, topic, values), values)
    return oracle


def add_alerts(
    bootstrap: str,
    topic: str,
    oracle: Oracle,
    kind: AlertKind,
    count: int,
    *,
    seed: int = 0,
    first_id: int = 0,
    at_ms: int = 0,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Publish more alerts to a topic and note them."""
    values = alerts_once(kind, count, seed, first_id)
    note(oracle, produce(bootstrap, topic, values, seed=seed, at_ms=at_ms, options=options), values)


def note(oracle: Oracle, produced: Iterable[Produced], values: list[bytes]) -> None:
    """Keep acknowledged records."""
    for record in produced:
        oracle.values[record.partition, record.offset] = values[record.index]


def places(outdir: Path) -> Counter[Place]:
    """Count the rows of each partition and offset that a reader of the directory sees, or the records of Avro files."""
    if not any(outdir.rglob("*.parquet")):
        found: Counter[Place] = Counter()
        for path in outdir.rglob("*.avro"):
            partitions, offsets = format_of(path).read_places(path)
            found.update(zip(partitions.tolist(), offsets.tolist(), strict=True))
        return found
    table = ds.dataset(outdir, partitioning="hive").to_table(columns=["kafka_partition", "kafka_offset"])
    return Counter(zip(table["kafka_partition"].to_pylist(), table["kafka_offset"].to_pylist(), strict=True))


def shared_schema(path: Path) -> pa.Schema:
    """Read the schema of a file of a dataset, without what the file says of itself alone."""
    schema = pq.read_schema(path)
    metadata = (schema.metadata or {}).items()
    return schema.with_metadata({name: text for name, text in metadata if not name.startswith(b"fink_dask.")})


def assert_exactly_once(outdir: Path, expected: Iterable[Place]) -> None:
    """Fail unless each expected alert is in the dataset once, and nothing else is."""
    found, wanted = places(outdir), Counter(set(expected))
    missing, extra = wanted - found, found - wanted
    assert not missing, f"{missing.total()} alerts are missing, such as {next(iter(missing))}"
    assert not extra, f"{extra.total()} alerts are repeated or foreign, such as {next(iter(extra))}"


def assert_values_equal(table: pa.Table, oracle: Oracle, replaced: tuple[str, ...] = (), every: int = 1) -> None:
    """Fail unless each `every`-th row is what fastavro reads from the bytes that were published."""
    partitions, offsets = table["kafka_partition"].to_pylist(), table["kafka_offset"].to_pylist()
    for row in range(0, table.num_rows, every):
        expected = oracle.alert((partitions[row], offsets[row]))
        found = table.slice(row, 1).to_pylist()[0]
        for name, value in expected.items():
            if name not in replaced:
                assert same(found[name], value), f"row {row}: {name} is {found[name]!r}, but {value!r} was published"


def same(found: Any, expected: Any) -> bool:
    """Compare values; NaN equals NaN, and a map is a list of entries, as Arrow gives it."""
    if isinstance(expected, float) and isinstance(found, float):
        return found == expected or (math.isnan(found) and math.isnan(expected))
    if isinstance(expected, dict) and isinstance(found, list):
        return len(found) == len(expected) and all(key in expected and same(v, expected[key]) for key, v in found)
    if isinstance(expected, dict) and isinstance(found, dict):
        return expected.keys() == found.keys() and all(same(found[key], expected[key]) for key in expected)
    if isinstance(expected, list) and isinstance(found, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    return bool(type(found) is type(expected) and found == expected)


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = PATIENCE_S) -> None:
    """Wait until a condition holds, or fail."""
    import time

    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s for {what}"
        time.sleep(0.02)
