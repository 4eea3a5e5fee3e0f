"""What a range needs to be transferred, and its result: small, as they travel to the workers and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from fink_dask.dataset.partitioning import Partitioning
from fink_dask.errors import FinkDaskError, SchemaError, TransferError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.records import Identity
from fink_dask.ledger.remainder import Remainder
from fink_dask.progress.events import RangeCommitted
from fink_dask.ranges.memory import FULL_SHARE, MemoryShare
from fink_dask.settings import COMPRESSION, MIN_BATCH_BYTES, ON_BAD_RECORD, ON_LOSS, KafkaSettings
from fink_dask.units import pluralize

_SAFE = "what is committed is safe"
_THEN = "the same command goes on from there once the cause is gone"
GO_ON = f"{_SAFE}, and {_THEN}"


def failure_of(failures: Sequence[FinkDaskError], committed: int | None = None) -> TransferError:
    """Sum up the failures of ranges, of which there is at least one; `committed`: how many alerts are, if known."""
    first, *others = failures
    words = f"{first.line} (other ranges that failed: {len(others)})" if others else first.line
    if isinstance(first, SchemaError):
        go_on = _SAFE  # the record stays bad
    elif committed is None:
        go_on = GO_ON
    elif committed:
        go_on = f"{pluralize(committed, 'alert')} committed and safe, and {_THEN}"
    else:
        go_on = "no range was committed yet, and the same command begins again once the cause is gone"
    error = TransferError(f"{words}; {go_on}")
    error.__cause__ = first
    return error


class TopicFailures(Protocol):
    """Decides, for each of a run's topics, what a failure means."""

    @property
    def committed(self) -> int:
        """Alerts that are committed, of all topics."""

    def failed(self, topic: str, error: FinkDaskError) -> None:
        """Take note of the failure of a range; the ranges of other topics go on."""

    def is_over(self, topic: str) -> bool:
        """Tell whether the waiting ranges of a topic are no longer wanted."""


@dataclass(frozen=True)
class TaskSettings:
    """What the ranges of a plan have in common."""

    ledger: Ledger
    #: How to reach Kafka.
    kafka: KafkaSettings
    #: Topic and form of the dataset.
    identity: Identity
    plan_id: str
    #: What the directories come from.
    partitioning: Partitioning
    #: The most alerts that are decoded at once, unless they have fewer than `min_batch_bytes`.
    batchsize: int
    #: What the range may hold.
    memory: MemoryShare = FULL_SHARE
    #: The fewest raw bytes that are decoded at once, unless the range ends.
    min_batch_bytes: int = MIN_BATCH_BYTES
    #: Codec of the files; see `write_options`.
    compression: str = COMPRESSION
    #: What becomes of a record that can't be decoded.
    on_bad_record: str = ON_BAD_RECORD[0]
    #: Whether the range fails when Kafka has removed some of it.
    on_loss: str = ON_LOSS[0]
    #: About how much Kafka has of a range; 0 where nobody knows.
    range_bytes: int = 0


@dataclass(frozen=True)
class Work:
    """A range to transfer."""

    range: OffsetRange
    #: How, and where to.
    settings: TaskSettings
    #: What is left of a range that is to be repaired.
    remainder: Remainder | None = None

    @property
    def topic(self) -> str:
        """The topic whose range it is."""
        return self.settings.identity.topic


@dataclass(frozen=True)
class RangeResult:
    """What became of a range; the marker says it in full."""

    range: OffsetRange
    #: Alerts written, bytes consumed, records quarantined, offsets lost, alerts filtered.
    rows: int
    raw_bytes: int
    quarantined: int
    lost: int
    filtered: int
    #: Newest timestamp of its records, in milliseconds since 1970-01-01 UTC.
    newest_ms: int | None
    #: What each stage took; empty where an earlier attempt had committed the range.
    seconds: Mapping[str, float]

    def committed(self, topic: str) -> RangeCommitted:
        """Return the event that says so."""
        return RangeCommitted(
            topic,
            self.range,
            self.rows,
            self.raw_bytes,
            self.seconds,
            self.quarantined,
            self.lost,
            self.newest_ms,
            self.filtered,
        )
