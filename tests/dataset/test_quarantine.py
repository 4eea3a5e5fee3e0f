"""A record that can't be decoded is kept whole: what it was, where it comes from, and why it is there."""

from __future__ import annotations

from datetime import UTC, datetime

from fink_dask.batches import Memory, join_records
from fink_dask.dataset.quarantine import QUARANTINE_SCHEMA, quarantine_rows


def test_bad_records_are_kept_with_their_key_and_value() -> None:
    batch = join_records(
        offsets=[5, 6, 8, 9],
        timestamps_ms=[0, -1, 1000, 2000],
        values=[b"good", b"\xff", None, b""],
        keys=[b"k", b'{"type": "record"}', None, b""],
        memory=Memory(),
    )
    rows = quarantine_rows(batch, [(1, "torn"), (2, "no value"), (3, "empty")], partition=4)
    assert rows.schema == QUARANTINE_SCHEMA
    assert rows.schema.names[-2:] == ["value", "key"]
    names = ("kafka_partition", "kafka_offset", "kafka_timestamp", "reason", "value", "key")
    assert [tuple(row[name] for name in names) for row in rows.to_pylist()] == [
        (4, 6, None, "torn", b"\xff", b'{"type": "record"}'),
        (4, 8, datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), "no value", None, None),
        (4, 9, datetime(1970, 1, 1, 0, 0, 2, tzinfo=UTC), "empty", b"", b""),
    ]
