"""What a running transfer tells whoever watches: small frozen events. Bars and logs only listen, to any thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.summary import Lag
from fink_dask.units import duration_words, lasting, rate_words

#: What takes the time.
Bound = Literal["cores", "line", "limit"]
#: Bytes a second of the line that is the example where nothing is known of the own one: 8 Mbit/s.
_SLOW_LINE = 1e6
#: Over a slow line, a topic that is followed is looked at every ten seconds.
_SEEN_S = 12.0


@dataclass(frozen=True)
class Forecast:
    """Estimates of what a run has to do."""

    #: Alerts to read, at most.
    alerts: int
    #: Their bytes in Kafka; None where no alert came in time to tell.
    raw_bytes: int | None
    #: Bytes of the files that they become; None where that is not known.
    written_bytes: int | None
    #: How long this takes: what the slowest of line, limit and cores needs, as far as they are known. None where the
    #: bytes are not known.
    seconds: float | None
    #: Free bytes where the files will be; None where that is not known.
    free_bytes: int | None
    #: What comes over the line for them: keys and what frames the records as well, compressed where it is known how
    #: much. None where that is not known.
    wire_bytes: int | None = None
    #: round_trip_s, line_bytes_per_s: what is known of the line; see `fink_dask.kafka.probe.LineSpeed`.
    round_trip_s: float | None = None
    line_bytes_per_s: float | None = None
    #: What takes the time; None where the line is not known, so that Kafka and the network have to keep up.
    bound_by: Bound | None = None
    #: The rate of the line, or the limit, where that takes the time.
    bound_bytes_per_s: float | None = None
    #: Whether it may well take less: the line takes the time, and may carry more than that.
    is_most: bool = False
    #: Whether the line takes the time, at the rate of an earlier run.
    is_of_before: bool = False
    #: Whether it takes more: the line is slower than that.
    is_least: bool = False
    #: What of the time goes by before the first alert comes, and after the last one.
    start_seconds: float = 0.0
    #: After how many seconds Kafka may remove the first alerts, where that is before the end.
    removal_s: float | None = None

    @property
    def took(self) -> str:
        """Say how long it takes, and why: "12 s, most of it to start"; where the seconds are known."""
        seconds = max(1.0, self.seconds or 0.0)
        words = duration_words(seconds)
        if self.bound_by is not None and self.start_seconds > seconds / 2:
            return f"{words}, most of it to start"
        return f"{words}, {self.reason}"

    @property
    def warning(self) -> str:
        """Say what is lost if nothing is done; empty where nothing is."""
        if self.removal_s is None:
            return ""
        when = "now" if self.removal_s < 1 else f"in {lasting(self.removal_s)}"
        return f"Kafka may remove the first alerts {when}, before this ends"

    @property
    def reason(self) -> str:
        """Say what takes the time, or what is not known of it: "bound by the line at 8.1 Mbit/s"."""
        if self.bound_by is None:
            slow = self.wire_bytes / _SLOW_LINE if self.wire_bytes else 0.0
            example = f": {duration_words(slow)} at {rate_words(_SLOW_LINE)}" if slow > (self.seconds or 0) else ""
            return f"longer if the line is slow{example}"
        if self.bound_bytes_per_s is None:
            return f"bound by the {self.bound_by}"
        rate = rate_words(self.bound_bytes_per_s)
        if self.is_least:
            return f"or more: the line is slower than {rate}"
        if self.is_of_before:
            return f"if the line carries {rate}, as in the last run"
        return (
            f"less if the line carries more than {rate}" if self.is_most else f"bound by the {self.bound_by} at {rate}"
        )


@dataclass(frozen=True)
class RangeProgress:
    """How far an attempt at a range has got; the numbers are absolute."""

    topic: str
    range: OffsetRange
    #: The attempt; a later one starts from zero.
    attempt: str
    #: The next offset to read.
    position: int
    #: rows, raw_bytes, quarantined: alerts, bytes and bad records so far.
    rows: int
    raw_bytes: int
    quarantined: int
    #: The Dask worker that has the range; empty where there is none.
    worker: str = ""
    #: Alerts so far that were filtered.
    filtered: int = 0
    #: received, received_bytes: records so far that have arrived on this side of the line, decoded or not, and the
    #: bytes of their keys and values. Some of them may lie beyond the end of the range.
    received: int = 0
    received_bytes: int = 0
    #: Seconds since Kafka last sent something for this range.
    quiet_s: float = 0.0
    #: Whether it waits until the line has room for it: it has asked Kafka for nothing yet.
    waits: bool = False
    #: Seconds for which a quota of Kafka's has made it wait.
    throttled_s: float = 0.0
    #: Bytes of records for a byte on the line.
    expansion: float = 1.0

    @property
    def read(self) -> int:
        """Alerts so far, whether they are wanted or not."""
        return self.rows + self.filtered

    @property
    def arrived(self) -> int:
        """Offsets of the range that have arrived; what lies beyond its end does not count."""
        return min(max(self.received, self.position - self.range.start), len(self.range))

    @property
    def arrived_bytes(self) -> int:
        """The bytes of these."""
        of_range = min(1.0, len(self.range) / self.received) if self.received else 0.0
        return max(round(self.received_bytes * of_range), self.raw_bytes)


@dataclass(frozen=True)
class Note:
    """Something a user should read now."""

    text: str
    #: Whether it is more than information.
    warning: bool = False


@dataclass(frozen=True)
class Doing:
    """What a run does now, before there is progress to show."""

    #: Such as "connecting to Kafka".
    words: str


@dataclass(frozen=True)
class TransferStarted:
    """The plan of a topic is made, and the work begins."""

    topic: str
    #: ranges, ranges_committed: ranges of the plan, and how many of them are committed already.
    ranges: int
    ranges_committed: int
    #: offsets, offsets_committed: the same in offsets.
    offsets: int
    offsets_committed: int
    #: Address of the dashboard.
    dashboard: str | None
    #: Planned offsets of each partition, and how many of them are committed.
    partitions: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    #: An estimate of the work; None where none was made.
    forecast: Forecast | None = None
    #: How long Kafka may send nothing before that is an error.
    reconnect_timeout_s: float | None = None
    #: The most bytes a second that may come over the line; None for no limit.
    limit_rate: int | None = None


@dataclass(frozen=True)
class RangeCommitted:
    """A range is part of the dataset."""

    topic: str
    range: OffsetRange
    #: rows, raw_bytes: its alerts and the bytes they had in Kafka.
    rows: int
    raw_bytes: int
    #: What each stage of it took.
    seconds: Mapping[str, float]
    #: quarantined, lost: its records that are in quarantine, and its offsets that are declared lost.
    quarantined: int = 0
    lost: int = 0
    #: Newest timestamp of its records, in milliseconds since 1970-01-01 UTC.
    newest_ms: int | None = None
    #: Its alerts that were filtered.
    filtered: int = 0

    @property
    def read(self) -> int:
        """Its alerts, whether they are wanted or not."""
        return self.rows + self.filtered

    @property
    def aside(self) -> int:
        """Records and offsets that did not become alerts."""
        return self.quarantined + self.lost


@dataclass(frozen=True)
class TopicLooked:
    """How a topic that is followed looks now."""

    topic: str
    #: Its planned offsets, committed or not.
    offsets: int
    #: How far behind it the dataset is.
    lag: Lag
    #: Seconds in which nothing has arrived in it, or in any other topic that is followed with it.
    quiet_s: float
    #: Seconds after which it is followed no more if nothing arrives; None if it is followed until then as well.
    left_s: float | None = None


def seen_words(seen_s: float) -> str:
    """Say how long ago a topic was last looked at, if that is worth mentioning: over a cut line it can't be."""
    return f", seen {lasting(seen_s)} ago" if seen_s > _SEEN_S else ""


@dataclass(frozen=True)
class RangeFailed:
    """An attempt at a range failed; what it had read no longer counts."""

    topic: str
    range: OffsetRange


Event = Note | Doing | RangeFailed | TransferStarted | RangeProgress | RangeCommitted | TopicLooked

Observer = Callable[[Event], None]
