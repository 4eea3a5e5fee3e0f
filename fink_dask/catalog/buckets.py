"""Deal the alerts of a dataset into buckets, all those of an object into the same one, in files that fit in memory."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from fink_dask.catalog.lightcurves import LightCurveForm, is_placed

#: About how many alerts a bucket has: some hundred bytes each, and a few copies while they are sorted.
BUCKET_ROWS = 250_000
#: Each bucket is an open file; for more alerts the buckets grow instead.
_MAX_BUCKETS = 1000
#: Bytes of rows that wait to be written, over all buckets.
_WAITING_BYTES = 192 * 2**20
_BATCH_ROWS = 65_536
#: The golden ratio times 2**64, made odd.
_ODD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Dealt:
    """What became of the alerts.

    Parameters
    ----------
    paths : list of pathlib.Path
        A file for each bucket that has alerts.
    alerts : int
        Alerts that were read.
    without_object, without_position : int
        Alerts in no bucket, because they have no object, or an object but no position.
    """

    paths: list[Path]
    alerts: int
    without_object: int
    without_position: int


def deal(
    dataset: ds.Dataset,
    form: LightCurveForm,
    directory: Path,
    rows: int,
    advance: Callable[[int], None],
) -> Dealt:
    """Read a dataset once, a few batches at a time, and write each alert to the bucket of its object.

    Parameters
    ----------
    dataset : pyarrow.dataset.Dataset
        The dataset.
    form : LightCurveForm
        The columns that are taken.
    directory : pathlib.Path
        Where to write the buckets.
    rows : int
        Alerts of the dataset, which decide the number of buckets.
    advance : callable
        Called with the number of alerts that were read.
    """
    count = min(_MAX_BUCKETS, 1 + rows // BUCKET_ROWS)
    without_object = without_position = alerts = 0
    with _Buckets(directory, count) as buckets:
        # A file has few row groups; reading further ahead would only fill memory.
        batches = dataset.to_batches(
            columns=form.expressions(), batch_size=_BATCH_ROWS, batch_readahead=2, fragment_readahead=2
        )
        for batch in batches:
            table = pa.Table.from_batches([batch])
            has_object, has_position = is_placed(table, form)
            without_object += int((~has_object).sum())
            without_position += int((has_object & ~has_position).sum())
            buckets.add(table.filter(pa.array(has_object & has_position)), form)
            alerts += batch.num_rows
            advance(batch.num_rows)
    return Dealt(buckets.paths, alerts, without_object, without_position)


class _Buckets:
    """The files; a context manager that writes what waits, and closes them."""

    def __init__(self, directory: Path, count: int) -> None:
        self._directory = directory
        self._count = count
        self._writers: dict[int, pq.ParquetWriter] = {}
        self._waiting: dict[int, list[pa.Table]] = {}
        self._waiting_bytes = 0

    def __enter__(self) -> _Buckets:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._write()
        finally:
            for writer in self._writers.values():
                writer.close()

    @property
    def paths(self) -> list[Path]:
        """The files that were written."""
        return [self._path(number) for number in sorted(self._writers)]

    def add(self, table: pa.Table, form: LightCurveForm) -> None:
        """Give each row to its bucket."""
        numbers = _bucket_numbers(table[form.object_id], self._count)
        dealt = table.take(pa.array(np.argsort(numbers, kind="stable")))
        start = 0
        for number, rows in enumerate(np.bincount(numbers, minlength=self._count).tolist()):
            if rows:
                self._waiting.setdefault(number, []).append(dealt.slice(start, rows))
            start += rows
        self._waiting_bytes += dealt.nbytes
        if self._waiting_bytes >= _WAITING_BYTES:
            self._write()

    def _write(self) -> None:
        for number, tables in self._waiting.items():
            table = pa.concat_tables(tables)
            if number not in self._writers:
                self._writers[number] = pq.ParquetWriter(self._path(number), table.schema, compression="lz4")
            self._writers[number].write_table(table)
        self._waiting.clear()
        self._waiting_bytes = 0

    def _path(self, number: int) -> Path:
        return self._directory / f"bucket-{number:04d}.parquet"


def _bucket_numbers(ids: pa.ChunkedArray, count: int) -> npt.NDArray[np.int64]:
    """Give all rows with the same identifier the same number below `count`."""
    if pa.types.is_integer(ids.type):
        mixed = ids.to_numpy().astype(np.uint64) * _ODD >> np.uint64(32)
        return np.asarray(mixed % np.uint64(count), dtype=np.int64)
    encoded = ids.combine_chunks().dictionary_encode()
    hashes = [zlib.crc32(text.encode()) % count for text in encoded.dictionary.cast(pa.string()).to_pylist()]
    return np.asarray(np.array(hashes, dtype=np.int64)[encoded.indices.to_numpy()])
