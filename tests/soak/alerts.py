"""Alerts whose rows can be encoded again, byte for byte: what says that millions of them arrived as they were sent."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import pyarrow.parquet as pq

from tests.harness.oracle import Place

SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "alert",
    "fields": [
        {"name": "objectId", "type": "string"},
        {"name": "candid", "type": "long"},
        {"name": "jd", "type": "double"},
        {"name": "magpsf", "type": ["float", "null"]},
        {
            "name": "candidate",
            "type": {
                "type": "record",
                "name": "candidate",
                "fields": [{"name": "ra", "type": "double"}, {"name": "rb", "type": ["null", "double"]}],
            },
        },
        {"name": "history", "type": {"type": "array", "items": "double"}},
        {"name": "cutout", "type": ["bytes", "null"]},
    ],
}
_PARSED = fastavro.parse_schema(SCHEMA)
_DIGEST_BYTES = 12


def encode(row: dict[str, Any]) -> bytes:
    """Write one alert as Fink's server does."""
    stream = BytesIO()
    fastavro.schemaless_writer(stream, _PARSED, row)
    return stream.getvalue()


def digest(value: bytes) -> bytes:
    """Hash a value, briefly: millions are kept."""
    return hashlib.blake2b(value, digest_size=_DIGEST_BYTES).digest()


def make_alerts(chance: random.Random, first_id: int, count: int) -> Iterator[bytes]:
    """Make alerts of five nights."""
    for number in range(first_id, first_id + count):
        yield encode(
            {
                "objectId": f"ZTF{number:010d}",
                "candid": 2**60 + number,
                "jd": 2461095.5 + chance.random() * 5,
                "magpsf": None if chance.random() < 0.1 else float(number % 1024) / 64,
                "candidate": {"ra": chance.random() * 360, "rb": chance.choice([None, chance.random()])},
                "history": [chance.random() for _ in range(chance.randrange(6))],
                "cutout": chance.choice([None, chance.randbytes(chance.randrange(60))]),
            }
        )


def digests_below(outdir: Path) -> Iterator[tuple[Place, bytes]]:
    """Yield partition, offset and digest of every row of a dataset."""
    with ProcessPoolExecutor(2) as pool:
        for found in pool.map(_digests_of, sorted(outdir.rglob("*.parquet"))):
            yield from found


def _digests_of(path: Path) -> list[tuple[Place, bytes]]:
    found = []
    with pq.ParquetFile(path) as parquet:
        for batch in parquet.iter_batches(batch_size=5000):
            for row in batch.to_pylist():
                place = (row.pop("kafka_partition"), row.pop("kafka_offset"))
                found.append((place, digest(encode(row))))
    return found
