"""Records that can't be decoded: their raw bytes, where they come from, and why."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from fink_dask.dataset.writer import KAFKA_FIELDS
from fink_dask.kafka.records import RawBatch

#: The directory below the ledger that holds quarantine files.
QUARANTINE_DIRECTORY = "quarantine"

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

    Parameters
    ----------
    batch : RawBatch
        The batch.
    bad : sequence of (int, str)
        Position in the batch and reason of each bad record, in order.
    partition : int
        The partition that the batch comes from.

    Returns
    -------
    pyarrow.RecordBatch
        One row a bad record, with `QUARANTINE_SCHEMA`.
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
