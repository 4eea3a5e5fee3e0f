"""What waits to be written keeps no more alive than itself, and footers say nothing that helps no reader."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fink_dask.dataset.formats import KAFKA_FIELDS, Origin
from fink_dask.dataset.writer import StagedWriter
from fink_dask.kafka.offsets import OffsetRange
from tests.harness.ledgers import begin_attempt

RANGE = OffsetRange(2, 0, 100_000)
ORIGIN = Origin("topic", "id", RANGE, "0123abcd")
ROWS = 200
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("flux", pa.float32()),
        pa.field("is_new", pa.bool_()),
        pa.field("stamp", pa.struct([pa.field("name", pa.string()), pa.field("data", pa.binary(), nullable=False)])),
        pa.field("history", pa.list_(pa.struct([pa.field("mag", pa.float64()), pa.field("band", pa.string())]))),
        pa.field("extra", pa.map_(pa.string(), pa.int32())),
        pa.field("digest", pa.binary(16)),
        pa.field("when", pa.timestamp("us", tz="UTC")),
        pa.field("price", pa.decimal256(60, 4)),
        pa.field("nothing", pa.null()),
        *KAFKA_FIELDS,
    ]
)


class Batches:
    """Makes batches that lie in one piece of memory each, as decoded ones do, and knows which pieces are left."""

    def __init__(self) -> None:
        self.alive: dict[int, int] = {}
        self.size = 0

    def make(self, number: int) -> pa.RecordBatch:
        start, random = number * ROWS, np.random.default_rng(number)
        rows = [
            {
                "id": f"ZTF{start + row}",
                "flux": random.random() if row % 5 else None,
                "is_new": row % 2 == 0 if row % 7 else None,
                "stamp": {"name": "x", "data": random.bytes(500)} if row % 3 else None,
                "history": [{"mag": 1.0 * row, "band": "g"}] * (row % 9) if row % 4 else None,
                "extra": [("a", row), ("b", None)] if row % 2 else None,
                "digest": random.bytes(16),
                "when": row,
                "price": None,
                "nothing": None,
                "kafka_partition": RANGE.partition,
                "kafka_offset": start + row,
            }
            for row in range(ROWS)
        ]
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, SCHEMA) as stream:
            stream.write_batch(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
        piece = np.frombuffer(sink.getvalue(), np.uint8).copy()
        self.alive[number] = self.size = len(piece)
        weakref.finalize(piece, self.alive.pop, number)
        return pa.ipc.open_stream(pa.py_buffer(piece)).read_next_batch()


def dominant_and_rare(number: int, batch: pa.RecordBatch) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Cut a batch as a night does whose alerts are nearly all of one kind."""
    yield "key=rare", batch.slice(0, 1)
    if number % 5 == 0:
        yield f"key=once-{number}", batch.slice(1, 1)
    elif number % 7 == 0:
        yield "key=now-and-then", batch.slice(1, 1)
    else:
        yield "key=dominant", batch.slice(1, 1)
    yield "key=dominant", batch.slice(2)


def alike(number: int, batch: pa.RecordBatch) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Cut a batch into equal parts."""
    for key in range(20):
        yield f"key={key}", batch.slice(key * ROWS // 20, ROWS // 20)


@pytest.mark.parametrize("cut", [dominant_and_rare, alike])
@pytest.mark.parametrize("buffered", [0.5, 3, 8])
def test_a_rare_key_does_not_keep_the_memory_of_batches_that_are_written(
    tmp_path: Path, cut: Callable[[int, pa.RecordBatch], Iterator[tuple[str, pa.RecordBatch]]], buffered: float
) -> None:
    batches = Batches()
    batches.make(10**6)
    buffer_bytes, most = int(buffered * batches.size), 0
    with StagedWriter(begin_attempt(tmp_path / "alerts", ORIGIN), SCHEMA, ORIGIN, buffer_bytes=buffer_bytes) as writer:
        base = pa.total_allocated_bytes()
        copied = 0
        for number in range(40):
            for directory, part in cut(number, batches.make(number)):
                writer.write(directory, part)
                del part
            most = max(most, sum(batches.alive.values()))
            copied = max(copied, pa.total_allocated_bytes() - base)
        # A batch that a part of is written late is held until then.
        assert most <= buffer_bytes + batches.size
        assert copied <= 2 * buffer_bytes + 4 * batches.size
        writer.complete()
        assert not batches.alive
        files = writer.stage()
    assert sum(file.rows for file in files) == 40 * ROWS
