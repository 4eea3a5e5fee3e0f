"""What a transfer reports to the scheduler about once a second: bounded, however large the topic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from fink_dask.ledger.records import check_types

#: The most partitions, running ranges and topics that a report lists; of further ones it has only the number.
MAX_PARTITIONS = 1000
MAX_RUNNING = 200
MAX_TOPICS = 50
#: Seconds between two reports, and between two that say the same.
REPORT_S = 1.0
SAME_REPORT_S = 5.0


@dataclass(frozen=True)
class PartitionReport:
    """How far a partition is."""

    partition: int
    #: Its offsets: those planned, or those in the topic if it is followed.
    offsets: int
    #: committed, received: how many of these are committed, and how many besides have arrived for ranges that run.
    committed: int
    received: int

    @property
    def lag(self) -> int:
        """Offsets that are not committed."""
        return max(0, self.offsets - self.committed)


@dataclass(frozen=True)
class RunningReport:
    """How far a range is that a worker is consuming."""

    #: partition, start, end: the range.
    partition: int
    start: int
    end: int
    #: position, received: its next offset to read, and how many of its offsets have arrived.
    position: int
    received: int
    #: Its alerts so far.
    rows: int
    #: Address of the worker.
    worker: str
    #: Since the first progress of this attempt.
    seconds: float
    #: Since Kafka last sent something for it; None where nothing is expected.
    quiet_s: float | None
    #: Whether it waits until the line has room for it.
    waits: bool


@dataclass(frozen=True)
class TopicReport:
    """How far a topic is."""

    topic: str
    #: Whether more may come.
    is_followed: bool
    #: What goes on, in words: one of `Phase`.
    phase: str
    #: offsets, committed, lag: all offsets, those committed, and those not committed; earlier runs count.
    offsets: int
    committed: int
    lag: int
    #: Offsets that have arrived for ranges that run.
    received: int
    #: ranges, ranges_committed: ranges of the plan, and how many of them are committed; earlier runs count.
    ranges: int
    ranges_committed: int
    #: ranges_run, alerts, raw_bytes: what this run has committed.
    ranges_run: int
    alerts: int
    raw_bytes: int
    #: alerts_read, bytes_read: what this run has read, counting a range that failed and was read again twice; these
    #: never decrease.
    alerts_read: int
    bytes_read: int
    #: Bytes that have arrived for what is committed or runs.
    received_bytes: int
    #: bytes_received, bytes_wasted: all bytes that have arrived, and those of them that came in vain; these never
    #: decrease.
    bytes_received: int
    bytes_wasted: int
    #: filtered, quarantined, lost, retries: of this run: alerts for which the condition is not true, records in
    #: quarantine, offsets declared lost, and attempts after the first one.
    filtered: int
    quarantined: int
    lost: int
    retries: int
    #: Newest timestamp of what is committed, in milliseconds since 1970-01-01 UTC.
    newest_ms: int | None
    #: alerts_per_second, bytes_per_second: alerts that were read lately, and bytes that have arrived.
    alerts_per_second: float
    bytes_per_second: float
    #: About how long the rest will take to arrive; None if unknown.
    seconds_left: float | None
    #: Seconds since Kafka last sent something; None where nothing is expected of it.
    quiet_s: float | None
    #: Seconds since a topic that is followed was last looked at: since the lag was that.
    looked_s: float | None
    #: Whether that is longer than a slow line explains.
    is_cut: bool
    #: How long nothing may come before that is an error.
    reconnect_timeout_s: float | None
    #: Seconds of each stage of the ranges that this run has committed.
    stage_seconds: Mapping[str, float]
    #: The partitions, `MAX_PARTITIONS` at most.
    partitions: tuple[PartitionReport, ...]
    #: How many more there are.
    more_partitions: int
    #: The running ranges, `MAX_RUNNING` at most.
    running: tuple[RunningReport, ...]
    #: How many more there are.
    more_running: int


@dataclass(frozen=True)
class TransferReport:
    """How far a transfer is."""

    transfer: str
    #: Dask's id of its client.
    client: str
    #: When it began, in seconds since 1970-01-01 UTC.
    began_at: float
    #: How long it has run.
    seconds: float
    state: str
    words: str
    #: Its topics, `MAX_TOPICS` at most.
    topics: tuple[TopicReport, ...]

    def to_message(self) -> dict[str, Any]:
        """Return the message to send."""
        return asdict(self)

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Self:
        """Read a message; whoever may send one may send anything, and a page shows it.

        Raises TypeError, KeyError, ValueError if it is another one, or comes from another version of this program.
        """
        topics = []
        for topic in message["topics"]:
            partitions = tuple(PartitionReport(**item) for item in topic["partitions"])
            running = tuple(RunningReport(**item) for item in topic["running"])
            topics.append(TopicReport(**{**topic, "partitions": partitions, "running": running}))
            for each in (*partitions, *running, topics[-1]):
                check_types(each)
        report = cls(**{**message, "topics": tuple(topics)})
        check_types(report)
        return report


def progress_prefix(client: str) -> str:
    """Return how the names of all Dask topics begin to which the ranges of a client report."""
    return f"fink-dask-progress-{client}-"
