"""Records that can't be decoded: their raw bytes, where they come from, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from fink_dask.batches import RawBatch
from fink_dask.dataset.formats import KAFKA_FIELDS, reading
from fink_dask.errors import LedgerError
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.records import DataFile
from fink_dask.store.location import store_of

#: Records of a quarantine file that are read at once.
_READ_RECORDS = 64

QUARANTINE_SCHEMA = pa.schema(
    [
        *KAFKA_FIELDS,
        pa.field("kafka_timestamp", pa.timestamp("ms", tz="UTC")),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("value", pa.binary()),
        pa.field("key", pa.binary()),  # some producers keep the writer schema in it
    ]
)


def quarantine_rows(batch: RawBatch, bad: Sequence[tuple[int, str]], partition: int) -> pa.RecordBatch:
    """Gather the bad records of a batch.

    `bad`: position in the batch and reason of each bad record, in order.
    `partition`: the partition that the batch comes from.
    Returns: one row a bad record, with `QUARANTINE_SCHEMA`.
    """
    chosen = [index for index, _ in bad]
    times = [int(batch.timestamps_ms[index]) for index in chosen]
    return pa.RecordBatch.from_arrays(
        [
            pa.array([partition] * len(bad), pa.int32()),
            pa.array(batch.offsets[chosen], pa.int64()),
            pa.array([None if time < 0 else time for time in times], pa.timestamp("ms", tz="UTC")),
            pa.array([reason for _, reason in bad], pa.string()),
            pa.array([batch.value(index) for index in chosen], pa.binary()),
            pa.array([batch.keys[index] for index in chosen], pa.binary()),
        ],
        schema=QUARANTINE_SCHEMA,
    )


def read_quarantine(ledger: Ledger, file: DataFile, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield the records of a quarantine file, some at a time; with all columns, or only these.

    Raises LedgerError if it is missing, or not what was written.
    """
    path = ledger.path / file.path
    with reading(path), pq.ParquetFile(store_of(path).source(path)) as parquet:
        if not parquet.schema_arrow.equals(QUARANTINE_SCHEMA) or parquet.metadata.num_rows != file.rows:
            raise LedgerError(f"{path} is not what was written: fink-dask verify says more")
        # Records are up to some megabytes: a few at a time.
        yield from parquet.iter_batches(batch_size=_READ_RECORDS, columns=columns)
