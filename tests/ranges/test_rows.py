"""Alerts of many batches become the row groups of their key: the same ones, in the same files, in bounded memory."""

from __future__ import annotations

import json
import random
import weakref
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import pyarrow.parquet as pq
import pytest

from fink_dask.avro.decoder import Decoding
from fink_dask.avro.evolution import Versions
from fink_dask.avro.schema import parse_schema
from fink_dask.batches import Memory, RawBatch, join_records
from fink_dask.dataset.formats import Origin
from fink_dask.dataset.partitioning import resolve_partitioning
from fink_dask.dataset.writer import StagedWriter
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.records import DataFile, Identity
from fink_dask.ranges.decode import RangeDecoder
from fink_dask.ranges.rows import RowGroupColumns
from tests.harness.ledgers import begin_attempt

ORIGIN = Origin("topic", "id", OffsetRange(2, 0, 10**6), "0123abcd")
RAW = {
    "type": "record",
    "name": "alert",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "class", "type": ["null", "string"]},
        {"name": "kind", "type": {"type": "enum", "name": "kinds", "symbols": ["SN", "AGN"]}},
        {"name": "is_new", "type": ["boolean", "null"]},
        {"name": "flux", "type": ["null", "float"]},
        {"name": "digest", "type": {"type": "fixed", "name": "digest", "size": 16}},
        {
            "name": "history",
            "type": [
                "null",
                {
                    "type": "array",
                    "items": {
                        "type": "record",
                        "name": "point",
                        "fields": [{"name": "mag", "type": ["null", "double"]}, {"name": "band", "type": "string"}],
                    },
                },
            ],
        },
        {"name": "extra", "type": {"type": "map", "values": ["null", "int"]}},
        {"name": "cutout", "type": ["null", "bytes"]},
    ],
}
SCHEMA, PARSED = parse_schema(json.dumps(RAW)), fastavro.parse_schema(RAW)
IDENTITY = Identity("topic", "id", ("class",), None, SCHEMA.fingerprint, "file")
PARTITIONING = resolve_partitioning(("class",), None, SCHEMA.arrow)
ROWS = 200


def alert(number: int, name: str | None, rng: random.Random) -> dict[str, Any]:
    def sometimes(value: Any) -> Any:
        return value if rng.random() < 0.8 else None

    points = [{"mag": sometimes(rng.random()), "band": "gri"[: rng.randrange(4)]} for _ in range(rng.randrange(6))]
    return {
        "id": number,
        "class": name,
        "kind": rng.choice(["SN", "AGN"]),
        "is_new": sometimes(rng.random() < 0.5),
        "flux": sometimes(0.5 * number),
        "digest": rng.randbytes(16),
        "history": sometimes(points),
        "extra": {f"key {index}": sometimes(index) for index in range(rng.randrange(3))},
        "cutout": sometimes(rng.randbytes(rng.randrange(1000))),
    }


def make_batch(first: int, names: list[str | None]) -> tuple[RawBatch, list[dict[str, Any]]]:
    rng, values, rows = random.Random(first), [], []
    for number, name in enumerate(names, first):
        rows.append(alert(number, name, rng))
        stream = BytesIO()
        fastavro.schemaless_writer(stream, PARSED, rows[-1])
        values.append(stream.getvalue())
    offsets = list(range(first, first + len(names)))
    return join_records(offsets, [-1] * len(names), values, [None] * len(names), Memory()), rows


def dominant_and_rare(number: int) -> list[str | None]:
    """Name the keys of a night whose alerts are nearly all of one kind."""
    return ["rare", f"once {number}" if number % 5 == 0 else None, *["dominant"] * (ROWS - 2)]


def alike(number: int) -> list[str | None]:
    return [f"key {row % 20}" for row in range(ROWS)]


def one_after_the_other(number: int) -> list[str | None]:
    """Name keys as nights are in a topic in order of time: each in one or two batches."""
    return [f"night {(number * ROWS + row) // 150}" for row in range(ROWS)]


def only_one(number: int) -> list[str | None]:
    return ["one"] * ROWS


CUTS = [dominant_and_rare, alike, one_after_the_other, only_one]
Look = Callable[[StagedWriter], None]


def write(
    attempt: Any, batches: list[RawBatch], buffer_bytes: int, look: Look = lambda _: None
) -> tuple[DataFile, ...]:
    decoder = RangeDecoder(Versions((SCHEMA,)), IDENTITY, PARTITIONING, 2)
    with StagedWriter(attempt, decoder.file_schema, ORIGIN, buffer_bytes=buffer_bytes) as writer:
        for batch in batches:
            for directory, part in decoder.decode(batch).parts:
                writer.write(directory, part)
                del part
            look(writer)
        writer.complete()
        return writer.stage()


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("buffer_bytes", [1, 2**17, 2**19, 2**30])
def test_alerts_of_many_batches_are_whole_and_in_order_in_the_file_of_their_key_and_twice_in_the_same_bytes(
    tmp_path: Path, cut: Callable[[int], list[str | None]], buffer_bytes: int
) -> None:
    made = [make_batch(ROWS * number, cut(number)) for number in range(8)]
    batches, rows = [batch for batch, _ in made], [row for _, each in made for row in each]
    attempts = [begin_attempt(tmp_path / "alerts", ORIGIN) for _ in range(2)]
    written = [write(attempt, batches, buffer_bytes) for attempt in attempts]
    assert written[0] == written[1]
    found: list[dict[str, Any]] = []
    for file in written[0]:
        here, there = (attempt.scratch / file.staged for attempt in attempts)
        assert here.read_bytes() == there.read_bytes()
        assert not any(each.name.startswith("tmp") for each in here.parent.iterdir())
        table = pq.ParquetFile(here).read().to_pylist()
        offsets = [row["kafka_offset"] for row in table]
        assert offsets == sorted(offsets), "alerts of a file are not in the order of their offsets"
        name = file.path.partition("=")[2].partition("/")[0].replace("%20", " ")
        found += [{**row, "class": None if "HIVE" in name else name} for row in table]
    found.sort(key=lambda row: row["kafka_offset"])
    for row, expected in zip(found, rows, strict=True):
        assert (row.pop("kafka_offset"), row.pop("kafka_partition")) == (expected["id"], 2)
        assert {**row, "extra": dict(row["extra"])} == expected


def test_alerts_that_are_decoded_one_by_one_fill_row_groups_of_one_chunk(tmp_path: Path) -> None:
    batches = [make_batch(number, ["one"])[0] for number in range(300)]

    def look(writer: StagedWriter) -> None:
        (target,) = writer._targets.values()
        assert len(target.waiting) == 1

    attempt = begin_attempt(tmp_path / "alerts", ORIGIN)
    (file,) = write(attempt, batches, 2**30, look)
    assert pq.read_metadata(attempt.scratch / file.staged).num_row_groups == 1


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("buffered", [0.5, 3, 8])
def test_what_is_held_back_keeps_no_batch_and_takes_no_more_than_twice_its_bound(
    tmp_path: Path, cut: Callable[[int], list[str | None]], buffered: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: weakref.WeakSet[Decoding] = weakref.WeakSet()
    begin = Decoding.__init__

    def noted(self: Decoding, *arguments: Any) -> None:
        alive.add(self)
        begin(self, *arguments)

    monkeypatch.setattr(Decoding, "__init__", noted)
    batches = [make_batch(ROWS * number, cut(number))[0] for number in range(30)]
    bound = int(buffered * batches[0].raw_bytes)

    def look(writer: StagedWriter) -> None:
        assert not alive, "a batch is kept for the sake of a few of its alerts"
        held = [each for target in writer._targets.values() for each in target.waiting]
        assert sum(_touched(each) for each in held) <= 2 * bound + batches[0].raw_bytes

    files = write(begin_attempt(tmp_path / "alerts", ORIGIN), batches, bound, look)
    assert sum(file.rows for file in files) == 30 * ROWS


def _touched(held: Any) -> int:
    assert isinstance(held, RowGroupColumns)
    return len(held.rows._memory)
