"""Deal alerts into buckets, all those of an object into the same one, in files that fit in memory."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fink_dask.catalog.gather import Alerts, Movers, Objects, Rows, is_placed
from fink_dask.catalog.reading import Reader
from fink_dask.lightcurves.points import OBJECT, own_points, told_points

#: About how many alerts a bucket has: some hundred bytes each, and a few copies while they are sorted.
BUCKET_ROWS = 250_000
#: How many points take the memory of an alert.
_POINTS_OF_A_ROW = 4
#: Each bucket is an open file; for more alerts the buckets grow instead.
_MAX_BUCKETS = 1000
#: Bytes of rows that wait to be written, over all buckets of a catalog.
_WAITING_BYTES = 96 * 2**20
#: The golden ratio times 2**64, made odd.
_ODD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Shuffled:
    """What became of the alerts."""

    #: Alerts that were read.
    alerts: int
    #: without_object, without_position: alerts of no object, which have buckets of their own, and alerts in no bucket,
    #: as they have no position.
    without_object: int
    without_position: int


def shuffle(
    readers: Sequence[Reader],
    objects: Objects,
    movers: Movers,
    buckets: Sequence[Buckets],
    advance: Callable[[int], None],
) -> Shuffled:
    """Read datasets once, a few alerts at a time, and write each alert to a bucket.

    `objects, movers`: what the catalogs have of an alert.
    `buckets`: where alerts of objects, and those of none, are written to.
    `advance`: called with the number of alerts that were read.
    """
    alerts = without_object = without_position = 0
    for reader in readers:
        for batch in reader.batches():
            has_object, has_position = is_placed(batch.rows, objects.key)
            has_position &= batch.rows[objects.form.source_id].is_valid().to_numpy() | has_object
            kept, moving = pa.array(has_object & has_position), pa.array(~has_object & has_position)
            without_object += int(moving.true_count)
            without_position += int((~has_position).sum())
            alerts += len(has_object)
            rows, own, told = batch.rows.filter(kept), None, None
            if batch.measured is not None:
                measured = batch.measured.filter(kept)
                own = own_points(measured, batch.fields)
                told = pa.concat_tables([own.slice(0, 0), *told_points(measured, batch.fields)])
            buckets[0].add(Alerts(objects.flatten(rows, own), told))
            buckets[1].add(Alerts(movers.flatten(batch.rows.filter(moving), None)))
            advance(len(has_object))
    return Shuffled(alerts, without_object, without_position)


class Buckets:
    """Files of the alerts of one catalog; a context manager that closes them.

    `alerts, points`: about how many there will be, which decides how many buckets there are.
    """

    def __init__(self, directory: Path, rows: Rows, alerts: int, points: int, notes_ids: bool) -> None:
        directory.mkdir()
        # Whether `ids` will be asked for.
        self._notes_ids = notes_ids
        self._ids: pa.Array | None = None
        # Where to write them; it is made.
        self._directory = directory
        self._count = min(_MAX_BUCKETS, 1 + (alerts + points // _POINTS_OF_A_ROW) // BUCKET_ROWS)
        self._key = rows.key
        self._files = ExitStack()
        self._writers: dict[tuple[int, str], pq.ParquetWriter] = {}
        self._waiting: dict[tuple[int, str], list[pa.Table]] = {}
        self._waiting_bytes = 0

    def __enter__(self) -> Buckets:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def add(self, alerts: Alerts) -> None:
        """Give each alert, and what it tells, to the bucket of its object."""
        if self._notes_ids and alerts.rows.num_rows:
            new = alerts.rows[self._key].combine_chunks()
            self._ids = (new if self._ids is None else pa.concat_arrays([self._ids, new])).unique()
        self._deal("alerts", alerts.rows, self._key)
        if alerts.points is not None:
            self._deal("points", alerts.points, OBJECT)
        if self._waiting_bytes >= _WAITING_BYTES:
            self._write()

    def ids(self) -> pa.Array | None:
        """Return the objects of all alerts that were added; None if there was none."""
        return self._ids

    def close(self) -> None:
        """Write what waits; no more is added."""
        self._write()
        self._files.close()

    def __len__(self) -> int:
        return len(self._numbers())

    def contents(self) -> Iterable[Alerts]:
        """Read the buckets that have alerts, one after the other, and remove each."""
        for number in self._numbers():
            parts = {}
            for what in ("alerts", "points"):
                if (path := self._path(number, what)).exists():
                    parts[what] = pq.read_table(path, partitioning=None)
                    path.unlink()
            yield Alerts(parts["alerts"], parts.get("points"))

    def _numbers(self) -> list[int]:
        return sorted({number for number, what in self._writers if what == "alerts"})

    def _deal(self, what: str, table: pa.Table, key: str) -> None:
        numbers = _bucket_numbers(table[key], self._count)
        dealt = table.take(pa.array(np.argsort(numbers, kind="stable")))
        start = 0
        for number, rows in enumerate(np.bincount(numbers, minlength=self._count).tolist()):
            if rows or (what == "points" and (number, "alerts") in self._waiting):
                self._waiting.setdefault((number, what), []).append(dealt.slice(start, rows))
            start += rows
        self._waiting_bytes += dealt.nbytes

    def _write(self) -> None:
        for (number, what), tables in self._waiting.items():
            table = pa.concat_tables(tables)
            if (number, what) not in self._writers:
                writer = pq.ParquetWriter(self._path(number, what), table.schema, compression="lz4")
                self._writers[number, what] = self._files.enter_context(writer)
            self._writers[number, what].write_table(table)
        self._waiting.clear()
        self._waiting_bytes = 0

    def _path(self, number: int, what: str) -> Path:
        return self._directory / f"{what}-{number:04d}.parquet"


def _bucket_numbers(ids: pa.ChunkedArray, count: int) -> npt.NDArray[np.int64]:
    """Give all rows with the same identifier the same number below `count`."""
    if pa.types.is_integer(ids.type):
        mixed = ids.to_numpy().astype(np.uint64) * _ODD >> np.uint64(32)
        return np.asarray(mixed % np.uint64(count), dtype=np.int64)
    encoded = ids.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    hashes = [zlib.crc32(text.encode()) % count for text in encoded.dictionary.cast(pa.string()).to_pylist()]
    return np.asarray(np.array(hashes, dtype=np.int64)[encoded.indices.to_numpy()])
