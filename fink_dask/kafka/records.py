"""The records of a batch, as they come from Kafka and before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RawBatch:
    """Records of one partition, in offset order.

    Parameters
    ----------
    offsets : list of int
        Offset of each record.
    timestamps_ms : list of int
        Kafka timestamp of each record in milliseconds since 1970-01-01 UTC, -1 where the broker has none.
    values : list of bytes or None
        The untouched value of each record; None is Kafka's tombstone.
    keys : list of bytes or None
        The untouched key of each record.
    """

    offsets: list[int]
    timestamps_ms: list[int]
    values: list[bytes | None]
    keys: list[bytes | None]

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def raw_bytes(self) -> int:
        """Bytes of all values."""
        return sum(len(value) for value in self.values if value is not None)
