"""Follow a topic: plan what arrives, generation by generation, and know how far behind the dataset is."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from enum import Enum

from fink_dask.errors import LedgerError, StorageError, parameter
from fink_dask.kafka.confluent import Debounce
from fink_dask.kafka.inspect import TopicDescription, is_other_topic
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.records import Plan
from fink_dask.ledger.summary import Lag, write_lag
from fink_dask.planning.plan import (
    Generations,
    Sizing,
    next_plan,
    planned_ends,
    removed_heads,
    spans_to_plan,
    window_to_plan,
)
from fink_dask.planning.prepare import check_heads, freeze_plan
from fink_dask.planning.topic import TopicTransfer
from fink_dask.progress.events import TopicLooked
from fink_dask.settings import FollowSettings

Spans = Mapping[int, tuple[int, int]]

#: Seconds between two writes of the lag to the ledger.
_KEEP_S = 2.0


class Pace:
    """Decides what part of a topic is due."""

    def __init__(self, roll_interval_s: float) -> None:
        # The most seconds that an alert waits.
        self._roll_interval_s = roll_interval_s
        self._seen: dict[int, float] = {}

    def look(self, spans: Spans, now: float) -> None:
        """Take note of what is not planned yet, of each partition."""
        self._seen = {partition: self._seen.get(partition, now) for partition in spans}

    def due(self, spans: Spans, sizing: Sizing, now: float) -> dict[int, tuple[int, int]]:
        """Choose what to plan now: partitions with a whole range's bytes, or everything once something is overdue.

        Partitions are rolled together, which makes fewer generations than each on its own, and no more files.
        """
        waited = max((now - self._seen.get(partition, now) for partition in spans), default=0.0)
        if waited >= self._roll_interval_s:
            return dict(spans)
        return {
            partition: (start, end)
            for partition, (start, end) in spans.items()
            if (end - start) * sizing.of(partition) >= sizing.range_bytes
        }

    def planned(self, spans: Spans) -> None:
        """Take note that these were planned: what comes next in their partitions begins to wait anew."""
        for partition in spans:
            self._seen.pop(partition, None)


class Ending:
    """Decides when all topics together have been followed for long enough.

    `now`: the time, in seconds, on the same clock as the other times.
    """

    def __init__(self, follow: FollowSettings, now: float) -> None:
        # What the user asked for.
        self._follow = follow
        self._stables: dict[tuple[str, int], int] = {}
        self._grew = now

    def look(self, topic: str, stables: Mapping[int, int], now: float) -> None:
        """Take note of the last stable offset of each partition of a topic."""
        ends = {(topic, partition): stable for partition, stable in stables.items()}
        if self._stables and any(stable > self._stables.get(where, 0) for where, stable in ends.items()):
            self._grew = now
        self._stables |= ends

    def excuse(self, seconds: float) -> None:
        """Leave out of account some time in which nobody could tell whether a topic grew."""
        self._grew += seconds

    def quiet_s(self, now: float) -> float:
        """Return the seconds in which nothing has arrived."""
        return max(0.0, now - self._grew)

    def left_s(self, now: float) -> float | None:
        """Return the seconds after which nothing more is expected; None if it is expected for ever."""
        idle_timeout_s = self._follow.idle_timeout_s
        return None if idle_timeout_s is None else max(0.0, idle_timeout_s - self.quiet_s(now))

    def is_idle(self, now: float) -> bool:
        """Tell whether nothing has arrived for so long that nothing more is expected."""
        return self._follow.idle_timeout_s is not None and self.quiet_s(now) >= self._follow.idle_timeout_s

    def is_late(self) -> bool:
        """Tell whether the time at which to end has come."""
        return self._follow.until is not None and datetime.now(UTC) >= self._follow.until

    def is_enough(self, records: int) -> bool:
        """Tell whether this is as many as were wanted."""
        return self._follow.until_count is not None and records >= self._follow.until_count


class Amount(Enum):
    """How much of what has arrived is to be planned."""

    NOTHING = "nothing, as consumers have enough to do"
    DUE = "what has waited for long enough, or is enough for a range"
    ALL = "all of it, as the end has come"


class Follower:
    """Plans what arrives in one topic."""

    def __init__(self, transfer: TopicTransfer, follow: FollowSettings) -> None:
        # The topic's transfer, which has begun.
        self.transfer = transfer
        self._settings = transfer.settings
        self._pace = Pace(follow.roll_interval_s)
        self._suspicion = Debounce()
        self._description = transfer.target.description
        self._spans: dict[int, tuple[int, int]] = {}
        self._heads: dict[int, tuple[int, int]] = {}
        # Kept, not counted anew at each look: a topic that is followed for days has thousands of generations.
        self._planned = planned_ends(transfer.plans)
        self._offsets: Counter[int] = Counter()
        for plan in transfer.plans:
            for offset_range in plan.ranges:
                self._offsets[offset_range.partition] += len(offset_range)
        self._generations = Generations(transfer.plans)
        held = transfer.begun.summary
        # Records that were in the dataset, in its quarantine, or declared lost.
        self._before = held.transferred + held.filtered + held.quarantined + held.lost + held.duplicates
        self._newest_before = transfer.begun.newest_ms
        #: When the state of the topic was last known, on the clock of `time.monotonic`.
        self.seen_at = time.monotonic()
        self._kept = 0.0

    @property
    def accounted(self) -> int:
        """Records that are in the dataset, in its quarantine, or declared lost."""
        tally = self.transfer.tally
        return self._before + tally.committed_read + tally.quarantined + tally.lost

    @property
    def unplanned(self) -> int:
        """Offsets that have arrived and are in no plan yet."""
        return sum(end - start for start, end in self._spans.values())

    @property
    def coming(self) -> int:
        """About how many records will be accounted for once everything is planned and committed."""
        return self.accounted + sum(map(self._open, self._offsets)) + self.unplanned

    @property
    def stables(self) -> dict[int, int]:
        """The offset after the last one that is wanted of each partition, as it was last seen."""
        return {partition: marks.end for partition, marks in self._description.watermarks.items()}

    def _open(self, partition: int) -> int:
        """Count the offsets of a partition that are planned, and not committed."""
        known = self.transfer.tally.partitions.get((self.transfer.topic, partition))
        return self._offsets[partition] - (0 if known is None else known.committed)

    def look(self, description: TopicDescription, now: float) -> bool:
        """Take note of the topic as it is now.

        Returns False where nothing is known, as a broker may not have recovered yet.
        Raises LedgerError if the topic is no longer the one that was planned.
        """
        if is_other_topic(self.transfer.target.identity.topic_id, description.topic_id):
            raise LedgerError(
                "the topic was deleted and made again while it was followed; what is committed stays as it is, and the "
                f"new topic needs another {parameter('outdir')}",
                self._settings.topic,
            )
        try:
            self._spans = spans_to_plan(description.watermarks, self._planned, self._settings.topic)
        except LedgerError:
            if self._suspicion.confirms("truncated"):
                raise
            return False
        self._suspicion.clear()
        self.seen_at = now
        self._description = description
        self._heads = removed_heads(description.watermarks, self._planned)
        self._pace.look(self._spans, now)
        return True

    def plan(self, amount: Amount, now: float) -> list[tuple[Plan, OffsetRange]]:
        """Plan this much of what has arrived, and freeze the plan.

        Raises FinkDaskError if Kafka has removed something, and the settings call that a failure; or the ledger
        refuses.
        """
        sizing = self._sizing()
        chosen: dict[int, tuple[int, int]] = {}
        if amount is Amount.ALL:
            chosen = self._spans
        elif amount is Amount.DUE:
            chosen = self._pace.due(self._spans, sizing, now)
        earlier, identity = self._generations, self.transfer.target.identity
        window = window_to_plan(identity, not earlier.count, self._description.watermarks, self._settings.until)
        plan = next_plan(earlier.count + 1, identity, chosen, sizing, None, self._heads, window)
        if plan is None:
            return []
        check_heads(self._settings, self._heads, self.transfer.observe)
        plan = freeze_plan(self.transfer.ledger, self.transfer.target, plan, earlier, self.transfer.observe)
        self._pace.planned(chosen)
        self._planned = dict(plan.begins) | self._planned
        self._spans = {partition: span for partition, span in self._spans.items() if partition not in chosen}
        self._heads = {}
        for offset_range in plan.ranges:
            self._planned[offset_range.partition] = max(offset_range.end, self._planned.get(offset_range.partition, 0))
            self._offsets[offset_range.partition] += len(offset_range)
        return [(plan, offset_range) for offset_range in plan.ranges]

    def report(self, ending: Ending, now: float) -> None:
        """Report how far behind the dataset is, and keep it in the ledger."""
        tally = self.transfer.tally
        behind = {
            partition: max(0, marks.end - self._planned.get(partition, marks.start)) + self._open(partition)
            for partition, marks in sorted(self._description.watermarks.items())
        }
        stamps = [stamp for stamp in (self._newest_before, tally.newest_ms) if stamp is not None]
        lag = Lag(
            at=time.time(),
            partitions=behind,
            alerts_per_second=round(tally.alerts_per_second, 1),
            newest_ms=max(stamps, default=None),
        )
        self.transfer.observe(
            TopicLooked(self.transfer.topic, self._offsets.total(), lag, ending.quiet_s(now), ending.left_s(now))
        )
        if now - self._kept >= _KEEP_S:
            self._kept = now
            with suppress(StorageError):  # nothing depends on it, and what does depend on the disk says when it is full
                write_lag(self.transfer.ledger, lag)

    def _sizing(self) -> Sizing:
        tally = self.transfer.tally
        mean_bytes = tally.committed_bytes / tally.committed_read if tally.committed_read else None
        known = {} if mean_bytes is None else dict.fromkeys(self._offsets, mean_bytes)
        return Sizing(self._settings.range_bytes, self._settings.nconsumers, known)
