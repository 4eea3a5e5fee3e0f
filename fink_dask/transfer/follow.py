"""Follow a topic: plan what comes to it, generation by generation, until it has been enough."""

from __future__ import annotations

import time
from collections import Counter, deque
from contextlib import suppress

from fink_dask.config import FollowSettings, TransferSettings
from fink_dask.dataset.lag import Lag, write_lag
from fink_dask.dataset.ledger import Ledger
from fink_dask.dataset.records import Plan
from fink_dask.errors import BrokerUnavailableError, LedgerError, StorageError
from fink_dask.kafka.describe import TopicDescription
from fink_dask.kafka.identity import is_other_topic
from fink_dask.kafka.offsets import Range, total
from fink_dask.kafka.suspicion import Suspicion
from fink_dask.transfer.events import Event, Note, Observer, RangeCommitted, TopicLooked
from fink_dask.transfer.inspect import Target
from fink_dask.transfer.pace import Pace
from fink_dask.transfer.plan import Sizing, next_plan, planned_ends, removed_heads, spans_to_plan
from fink_dask.transfer.prepare import check_heads, freeze_plan, open_ranges
from fink_dask.transfer.watch import Look, Watch

#: Seconds over which the speed is measured.
_SPEED_S = 60.0
#: Seconds between two times that the ledger is told the lag.
_KEEP_S = 2.0


class Follower:
    """Plans what has come, and says when it is enough.

    Parameters
    ----------
    settings : TransferSettings
        What is asked for.
    follow : FollowSettings
        When ranges are closed, and when the end comes.
    target : Target
        The topic.
    ledger : Ledger
        Where generations are frozen.
    plans : list of Plan
        All generations; those that are made here are added.
    watch : Watch
        Looks at the topic.
    observe : callable
        Takes the events.
    """

    def __init__(
        self,
        settings: TransferSettings,
        follow: FollowSettings,
        target: Target,
        ledger: Ledger,
        plans: list[Plan],
        watch: Watch,
        observe: Observer,
    ) -> None:
        self._settings = settings
        self._follow = follow
        self._target = target
        self._ledger = ledger
        self._plans = plans
        self._watch = watch
        self._observe = observe
        self._pace = Pace(follow, time.monotonic())
        self._suspicion = Suspicion()
        self._seen: Look | None = None
        self._away_since: float | None = None
        self._is_final = False
        markers = list(ledger.markers(plans))
        self._accounted = sum(marker.rows + marker.quarantined + total(marker.lost) for marker in markers)
        stamps = (marker.newest_ms for marker in markers if marker.newest_ms is not None)
        self._newest_ms: int | None = max(stamps, default=None)
        self._open: Counter[int] = Counter()
        self._note_open(open_ranges(plans, markers))
        self._bytes = self._records = 0
        self._commits: deque[tuple[float, int]] = deque()
        self._kept = 0.0

    def observe(self, event: Event) -> None:
        """Count what is committed, and pass the event on."""
        if isinstance(event, RangeCommitted):
            self._accounted += event.rows + event.aside
            self._records += event.rows
            self._bytes += event.raw_bytes
            self._open[event.range.partition] -= len(event.range)
            self._commits.append((time.monotonic(), event.rows))
            if event.newest_ms is not None:
                self._newest_ms = max(event.newest_ms, self._newest_ms or 0)
        self._observe(event)

    def more(self, waiting: int, running: int) -> list[tuple[Plan, Range]] | None:
        """Plan what is due, and freeze the plan.

        Parameters
        ----------
        waiting, running : int
            Ranges that wait for a consumer, and ranges that have one.

        Returns
        -------
        list of (Plan, Range) or None
            What was planned; None when it is the end.

        Raises
        ------
        FinkDaskError
            If Kafka was away for too long, or the topic is no longer what was planned.
        """
        look = self._watch.latest
        if self._is_final:
            return None
        if look is None or look is self._seen:
            return []
        self._seen = look
        now = time.monotonic()
        description = self._described(look, now)
        found = None if description is None else self._unplanned(description)
        if description is None or found is None:
            return []
        spans, heads = found
        stables = {partition: marks.stable for partition, marks in description.watermarks.items()}
        self._pace.look(stables, spans, now)
        more = self._decide(spans, heads, waiting, running, now)
        self._report(description, now)
        return more

    def _decide(
        self,
        spans: dict[int, tuple[int, int]],
        heads: dict[int, tuple[int, int]],
        waiting: int,
        running: int,
        now: float,
    ) -> list[tuple[Plan, Range]] | None:
        wanted = self._follow.until_count
        if wanted is not None and self._accounted >= wanted:
            return None
        is_late = self._pace.is_late()
        is_idle = self._pace.is_idle(now)
        if is_idle and not spans and not waiting and not running:
            return None
        coming = self._accounted + self._open.total() + sum(end - start for start, end in spans.values())
        sizing = self._sizing()
        if is_late or is_idle or (wanted is not None and coming >= wanted):
            chosen = spans
            self._is_final = is_late
        elif waiting > self._settings.nconsumers:
            # Consumers have enough to do: what comes meanwhile makes larger ranges, and fewer files.
            chosen = {}
        else:
            chosen = self._pace.due(spans, sizing, now)
        return self._plan(chosen, heads, sizing)

    def _plan(
        self, chosen: dict[int, tuple[int, int]], heads: dict[int, tuple[int, int]], sizing: Sizing
    ) -> list[tuple[Plan, Range]]:
        plan = next_plan(len(self._plans) + 1, self._target.identity, chosen, sizing, None, heads)
        if plan is None:
            return []
        check_heads(self._settings, heads, self._observe)
        plan = freeze_plan(self._ledger, self._target, plan, self._plans, self._observe)
        self._pace.planned(chosen)
        opened = [(plan, range_) for range_ in plan.ranges]
        self._note_open(opened)
        return opened

    def _note_open(self, opened: list[tuple[Plan, Range]]) -> None:
        for _, range_ in opened:
            self._open[range_.partition] += len(range_)

    def _sizing(self) -> Sizing:
        known = dict.fromkeys(self._open, self._bytes / self._records) if self._records else {}
        return Sizing(self._settings.range_bytes, self._settings.nconsumers, known)

    def _described(self, look: Look, now: float) -> TopicDescription | None:
        """Return what was seen; None while Kafka is away."""
        if look.error is None:
            if self._away_since is not None:
                away_s, self._away_since = now - self._away_since, None
                self._pace.excuse(away_s)
                self._observe(Note(f"Kafka answers again, after {away_s:.0f} s"))
            return look.description
        if not isinstance(look.error, BrokerUnavailableError):
            raise look.error
        if self._away_since is None:
            self._away_since = now
            patience = f"it is waited for, {self._follow.reconnect_timeout_s:g} s at most"
            self._observe(Note(f"{look.error}; {patience}", warning=True))
        elif now - self._away_since > self._follow.reconnect_timeout_s:
            raise BrokerUnavailableError(
                f"Kafka was away for {self._follow.reconnect_timeout_s:g} s ({look.error}); what is committed is safe, "
                "and the same command goes on from there",
                self._settings.topic,
            )
        return None

    def _unplanned(
        self, description: TopicDescription
    ) -> tuple[dict[int, tuple[int, int]], dict[int, tuple[int, int]]] | None:
        """Find what is not planned, and what is gone of it; None where a broker may just not have come to itself."""
        if is_other_topic(self._target.identity.topic_id, description.topic_id):
            raise LedgerError(
                "the topic was deleted and made again while it was followed; what is committed stays as it is, and the "
                "new topic needs another --outdir",
                self._settings.topic,
            )
        try:
            spans = spans_to_plan(description.watermarks, self._plans, self._settings.topic)
        except LedgerError:
            if self._suspicion.confirms("truncated"):
                raise
            return None
        self._suspicion.clear()
        return spans, removed_heads(description.watermarks, self._plans)

    def _report(self, description: TopicDescription, now: float) -> None:
        while self._commits and now - self._commits[0][0] > _SPEED_S:
            self._commits.popleft()
        planned = planned_ends(self._plans)
        behind = {
            partition: max(0, marks.stable - planned.get(partition, marks.low)) + self._open[partition]
            for partition, marks in sorted(description.watermarks.items())
        }
        seconds = min(_SPEED_S, now - self._commits[0][0]) if self._commits else 0.0
        lag = Lag(
            at=time.time(),
            partitions=behind,
            alerts_per_second=round(sum(rows for _, rows in self._commits) / max(seconds, 1.0), 1),
            newest_ms=self._newest_ms,
        )
        self._observe(
            TopicLooked(
                sum(len(range_) for plan in self._plans for range_ in plan.ranges), lag, self._pace.quiet_s(now)
            )
        )
        if now - self._kept >= _KEEP_S:
            self._kept = now
            with suppress(StorageError):  # nothing depends on it, and a full disk is said by what does
                write_lag(self._ledger, lag)
