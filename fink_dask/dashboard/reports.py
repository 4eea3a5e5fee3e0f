"""What a transfer reports to the scheduler about once a second: bounded, whatever the size of the topic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

#: Partitions, running ranges and topics that a report names one by one; of the rest it has the number.
MOST_PARTITIONS = 1000
MOST_RUNNING = 200
MOST_TOPICS = 50
#: Seconds between two reports, and the most between two that say the same.
REPORT_S = 1.0
SAME_REPORT_S = 5.0


@dataclass(frozen=True)
class PartitionReport:
    """How far a partition is.

    Parameters
    ----------
    partition : int
        The partition.
    offsets : int
        What there is of it: planned, or in the topic where that is followed.
    committed, reading : int
        Offsets of these that are committed, and that running ranges have read.
    """

    partition: int
    offsets: int
    committed: int
    reading: int

    @property
    def lag(self) -> int:
        """Offsets that are not committed."""
        return max(0, self.offsets - self.committed)


@dataclass(frozen=True)
class RunningReport:
    """How far a range is that a worker has.

    Parameters
    ----------
    partition, start, end : int
        The range.
    position : int
        Its next offset to read.
    rows : int
        Its alerts so far.
    worker : str
        Address of the worker.
    seconds : float
        Since this attempt at it was first heard of.
    """

    partition: int
    start: int
    end: int
    position: int
    rows: int
    worker: str
    seconds: float


@dataclass(frozen=True)
class TopicReport:
    """How far a topic is.

    Parameters
    ----------
    topic : str
        Its name.
    is_followed : bool
        Whether more may come.
    offsets, committed, lag : int
        What there is, what of it is committed, and what is not; earlier runs count.
    ranges, ranges_committed : int
        Ranges of the plan, and how many of them are committed; earlier runs count.
    ranges_run, alerts, raw_bytes : int
        What this run has committed.
    alerts_read, bytes_read : int
        What this run has read, a range that failed and was read again twice; these never become less.
    filtered, quarantined, lost, retries : int
        Alerts of this run that the condition is not true of, records that are in quarantine, offsets that it declared
        lost, attempts after the first one.
    newest_ms : int or None
        Newest timestamp of what is committed, in milliseconds since 1970-01-01 UTC.
    alerts_per_second, bytes_per_second : float
        What was read lately.
    seconds_left : float or None
        About how long it will take; None where nobody knows.
    stage_seconds : mapping of str to float
        Seconds of each stage of the ranges that this run has committed.
    partitions : tuple of PartitionReport
        The partitions, `MOST_PARTITIONS` at most.
    more_partitions : int
        How many there are besides.
    running : tuple of RunningReport
        The ranges on their way, `MOST_RUNNING` at most.
    more_running : int
        How many there are besides.
    """

    topic: str
    is_followed: bool
    offsets: int
    committed: int
    lag: int
    ranges: int
    ranges_committed: int
    ranges_run: int
    alerts: int
    raw_bytes: int
    alerts_read: int
    bytes_read: int
    filtered: int
    quarantined: int
    lost: int
    retries: int
    newest_ms: int | None
    alerts_per_second: float
    bytes_per_second: float
    seconds_left: float | None
    stage_seconds: Mapping[str, float]
    partitions: tuple[PartitionReport, ...]
    more_partitions: int
    running: tuple[RunningReport, ...]
    more_running: int


@dataclass(frozen=True)
class TransferReport:
    """How far a transfer is.

    Parameters
    ----------
    transfer : str
        Its id.
    client : str
        Dask's id of its client.
    began_at : float
        When it began, in seconds since 1970-01-01 UTC.
    seconds : float
        How long it has run.
    state : {"running", "done", "failed", "stopped"}
        How it is.
    words : str
        Why it failed.
    topics : tuple of TopicReport
        Its topics, `MOST_TOPICS` at most.
    """

    transfer: str
    client: str
    began_at: float
    seconds: float
    state: str
    words: str
    topics: tuple[TopicReport, ...]

    def to_message(self) -> dict[str, Any]:
        """Return what can be sent."""
        return asdict(self)

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Self:
        """Take what was sent.

        Raises
        ------
        TypeError, KeyError
            If it comes from another version of this program.
        """
        topics = tuple(
            TopicReport(
                **{
                    **topic,
                    "partitions": tuple(PartitionReport(**item) for item in topic["partitions"]),
                    "running": tuple(RunningReport(**item) for item in topic["running"]),
                }
            )
            for topic in message["topics"]
        )
        return cls(**{**message, "topics": topics})
