"""Run ranges as Dask tasks: submit the largest first, collect results as they come, retry failures that may pass."""

from __future__ import annotations

import logging
import math
import queue
import time
import uuid
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from distributed import Future, span

from fink_dask.cluster.local import Cluster
from fink_dask.cluster.readiness import BACKLOG, LOOK_S, TRIES, LostTaskError, WorkerPool
from fink_dask.cluster.worker import (
    RESULTS_OF,
    Shares,
    bootstrapped,
    report_interval_s,
    take_share,
    transfer_on_worker,
)
from fink_dask.dashboard.reports import progress_prefix
from fink_dask.errors import (
    BrokerUnavailableError,
    CrowdedLineError,
    FinkDaskError,
    SettingsError,
    StorageError,
    TransferError,
    words_of,
)
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.planning.plan import GUESSED_BYTES
from fink_dask.progress.events import Note, Observer, RangeFailed, RangeProgress
from fink_dask.ranges.work import RangeResult, TopicFailures, Work, failure_of
from fink_dask.settings import RECONNECT_TIMEOUT_S
from fink_dask.units import pluralize

#: Seconds before a range is tried again; doubled each time.
_PAUSE_S = 1.0
#: Seconds for which what has arrived is fresh: of few ranges, each reports once a second.
_FRESH_S = 2.0

#: Seconds for which a range waits before that is worth a word.
_LONG_S = 5.0

#: The most small ranges that one task takes, one after the other, their most bytes, and the fewest tasks that are to be
#: left for each consumer nevertheless: a task costs Dask some milliseconds, whatever it does.
_TOGETHER, _TOGETHER_BYTES, _TASKS = 16, 4 * 2**20, 4

log = logging.getLogger(__name__)

#: Seconds that running ranges have to end when following stops; after a signal there are eight in all.
_DRAIN_S = 6.0

#: Is asked for more ranges, given how many wait and how many are consumed; None when there will be no more.
More = Callable[[int, int], Sequence[Work] | None]


class RetryPolicy:
    """Counts the tries at each range of each topic."""

    def __init__(self, excused_s: float = 0.0) -> None:
        # Seconds after a range's first excused failure in which such tries do not count, if nothing has come for it
        # since.
        self._excused_s = excused_s
        self._excused_since: dict[tuple[str, OffsetRange], float] = {}
        self._tries: Counter[tuple[str, OffsetRange]] = Counter()
        self._ready_at: dict[tuple[str, OffsetRange], float] = {}

    def is_first(self, item: Work) -> bool:
        """Tell whether it was not tried yet."""
        return _key(item) not in self._tries

    def is_ready(self, item: Work) -> bool:
        """Tell whether the pause after the last try is over."""
        return self._ready_at.get(_key(item), 0.0) <= time.monotonic()

    def begin(self, item: Work) -> None:
        """Count a try."""
        self._tries[_key(item)] += 1

    def allow(self, item: Work) -> bool:
        """Tell whether there may be another try, which then has to wait a little."""
        tries = self._tries[_key(item)]
        if tries >= TRIES:
            return False
        self._ready_at[_key(item)] = time.monotonic() + _PAUSE_S * 2**tries
        return True

    def see(self, progress: RangeProgress) -> None:
        """Take a report: once something has come for a range, its next failure is the first of its kind."""
        if _is_sign_of_life(progress):
            self._excused_since.pop((progress.topic, progress.range), None)

    def end(self, item: Work) -> None:
        """Forget a range that is done: a topic may be followed for months."""
        for known in (self._tries, self._excused_since, self._ready_at):
            known.pop(_key(item), None)

    def forgive(self, item: Work) -> None:
        """Do not count the last try."""
        self._tries[_key(item)] -= 1

    def excuse(self, item: Work) -> bool:
        """Do not count the last try, unless this has gone on for too long; the next one has to wait a little."""
        now = time.monotonic()
        if now - self._excused_since.setdefault(_key(item), now) >= self._excused_s:
            return False
        self.forgive(item)
        self._ready_at[_key(item)] = now + _PAUSE_S
        return True


class BrokerOutage:
    """Tells a Kafka that is gone from one that sends nothing of one partition, or for a moment."""

    def __init__(self, gone_s: float) -> None:
        # Seconds of silence after which Kafka is taken to be gone.
        self._gone_s = gone_s
        self._ranges = 0
        self._since = time.monotonic()

    def see(self, progress: RangeProgress) -> None:
        """Take a report: one of something that has just arrived is a sign of life."""
        if _is_sign_of_life(progress):
            self.end()

    def end(self) -> None:
        """Take a sign of life."""
        self._ranges, self._since = 0, time.monotonic()

    def is_final(self, is_last: bool) -> bool:
        """Count a range that gave up; True once the silence has lasted, if it was not the only one that could be read.

        `is_last`: whether no other range is left that might be read.
        """
        self._ranges += 1
        return (self._ranges > 1 or is_last) and time.monotonic() - self._since >= self._gone_s - _FRESH_S


def _is_sign_of_life(progress: RangeProgress) -> bool:
    return bool(progress.received) and progress.quiet_s < _FRESH_S


def _key(item: Work) -> tuple[str, OffsetRange]:
    return item.topic, item.range


def _bytes_of(item: Work) -> float:
    """Return about how much a range holds."""
    return len(item.range) * (item.settings.kafka.record_bytes or GUESSED_BYTES)


class Remarks:
    """Remembers what was said."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, OffsetRange], float] = {}
        self._reading: set[tuple[str, OffsetRange]] = set()
        self._is_full = self._is_throttled = False

    def of(self, progress: RangeProgress, is_limited: bool = False) -> Iterator[Note]:
        """Return what there is to say, now that a range has reported; the user may have set a limit to the rate."""
        now, key = time.monotonic(), (progress.topic, progress.range)
        if progress.waits:
            since = self._waiting.setdefault(key, now)
            # Where nothing has arrived, it may be that Kafka is not reached; and a limit may be what is waited for.
            if self._reading and not is_limited and not self._is_full and now - since > _LONG_S:
                self._is_full = True
                yield Note(
                    f"the line is full: {pluralize(len(self._reading), 'range')} at once take all that it carries, and "
                    f"{len(self._waiting)} more wait for room; more --nconsumers would not be faster"
                )
        else:
            self._waiting.pop(key, None)
            if progress.received:
                self._reading.add(key)
        if progress.throttled_s > 0 and not self._is_throttled:
            self._is_throttled = True
            yield Note("Kafka holds this transfer back by a quota of its own: it is slow, and goes on", warning=True)

    def forget(self, topic: str, offset_range: OffsetRange) -> None:
        """Forget a range that has ended."""
        self._waiting.pop((topic, offset_range), None)
        self._reading.discard((topic, offset_range))


def run_ranges(
    cluster: Cluster,
    work: Sequence[Work],
    nconsumers: int,
    observe: Observer,
    check: Callable[[], None],
    more: More | None = None,
    topics: TopicFailures | None = None,
    reconnect_timeout_s: float = RECONNECT_TIMEOUT_S,
) -> None:
    """Transfer ranges on a Dask cluster, `nconsumers` at a time.

    `cluster`: where they run. Where workers may join that were not checked, each checks itself whether it has what a
    range needs, and is left out with a warning where it has not; where all threads are used, a few ranges wait for one.
    `check`: called several times a second; what it raises ends the job.
    `more`: called several times a second; returns ranges that have turned up meanwhile. As long as it may return some,
    running ranges are completed when a signal says stop, and it is `more` that deals with an absent broker.
    `topics`: is told what failed; then only failures that concern all topics are raised.
    `reconnect_timeout_s`: seconds after which a Kafka that sends nothing is taken to be gone; as long as `more` may
    return some, a range is tried again for as long.
    Raises TransferError if ranges failed; all others were transferred first, unless the failure concerns them all.
    """
    run = _Run(cluster, work, nconsumers, observe, more, topics, reconnect_timeout_s)
    cluster.client.subscribe_topic(run.topic, _without_holding(run.on_progress))
    try:
        # One on somebody else's scheduler, which keeps all that there ever were: without, each roll would be another.
        with span("fink-dask"):
            while run.unfinished():
                run.extend()
                run.submit()
                run.collect()
                run.divide()
                run.check_cluster()
                check()
    except KeyboardInterrupt:
        run.drain()
        raise
    finally:
        run.cancel()
    run.raise_failures()


def _without_holding(method: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return a handler that does not keep its object alive: a client never forgets those of its topics."""
    reference = weakref.WeakMethod(method)

    def handle(event: Any) -> None:
        if (found := reference()) is not None:
            found(event)

    return handle


class _Run:
    """What is waiting, running and done."""

    def __init__(
        self,
        cluster: Cluster,
        work: Sequence[Work],
        nconsumers: int,
        observe: Observer,
        more: More | None,
        topics: TopicFailures | None,
        reconnect_timeout_s: float,
    ) -> None:
        self._client = cluster.client
        self._pool = WorkerPool(cluster.client, observe, cluster.patience_s)
        self._others_join = cluster.others_join
        self._all_threads = cluster.all_threads
        self._asked = nconsumers
        #: The most ranges that run at once, where nothing came in time of more; and how many may now.
        self._most: float = math.inf
        self._at_once: float = math.inf
        ahead = cluster.lookahead
        self._lookahead = replace(ahead, ranges=ahead.ranges + BACKLOG) if cluster.all_threads else ahead
        self._observe = observe
        # The largest first: a long range that starts last would keep one worker busy while the others idle.
        self._waiting = deque(_largest_first(work))
        self._more = more
        self._topics = topics
        #: The ranges of each task: one, or a few small ones; and all of them.
        self._running: dict[Future, list[Work]] = {}
        self._out: set[tuple[str, OffsetRange]] = set()
        self._tries = RetryPolicy(reconnect_timeout_s)
        self._failures: list[FinkDaskError] = []
        self._progress: queue.SimpleQueue[RangeProgress] = queue.SimpleQueue()
        #: Results that have come with the reports, by the key of their task.
        self._results: dict[str, list[RangeResult]] = {}
        self._stopped = self._is_gone = False
        self._silence = BrokerOutage(reconnect_timeout_s)
        #: Running ranges of which all has arrived.
        self._whole: set[tuple[str, OffsetRange]] = set()
        self._remarks = Remarks()
        self._shares = Shares()
        #: Another job on the same scheduler reports under another name.
        self.topic = f"{progress_prefix(cluster.client.id)}{uuid.uuid4().hex}"

    @property
    def _nconsumers(self) -> int:
        return max(1, self._pool.threads) if self._all_threads else self._asked

    def unfinished(self) -> bool:
        if self._is_gone:  # whoever began later would wait for Kafka as long once more
            return bool(self._whole & self._out)
        return bool(self._running or ((self._waiting or self._more is not None) and not self._stopped))

    def extend(self) -> None:
        """Take further ranges; what came first is consumed first, so that no partition waits for others."""
        if self._more is None or self._stopped:
            return
        more = self._more(len(self._waiting), len(self._running))
        if more is None or self._failures:
            self._more = None
        self._waiting.extend(_largest_first(more or ()))

    def drain(self) -> None:
        """Say that it stops; and complete the running ranges, where a topic is followed: those are small."""
        if self._more is None or not self._running:
            self._observe(Note("stopping: what is committed is safe; a second signal stops at once"))
            return
        self._observe(
            Note(f"stopping: {pluralize(len(self._running), 'range')} to complete first; a second signal stops at once")
        )
        self._stopped = True
        deadline = time.monotonic() + _DRAIN_S
        while self._running and time.monotonic() < deadline and self._client.status == "running":
            self.collect()

    def divide(self, coming: int = 0) -> None:
        """Divide the rate of the line, where one is set, among the workers that have ranges or are about to."""
        if self._is_limited() and (workers := self._shares.divide(self._pool.count(), coming)):
            self._pool.tell(workers, take_share, self.topic, self._shares.share)

    def submit(self) -> None:
        # Before more workers read, those that do have to know.
        self.divide(min(len(self._waiting), max(0, self._nconsumers + self._lookahead.ranges - len(self._running))))
        for _ in range(len(self._waiting)):
            # None of the last ranges is handed out ahead: it might wait behind another while a worker is idle.
            ahead = self._lookahead.ranges if len(self._waiting) > self._nconsumers else 0
            most = min(self._nconsumers + ahead, self._at_once)
            if len(self._running) >= most or self._stopped or not self._pool.has_room():
                return
            item = self._waiting.popleft()
            if self._topics is not None and self._topics.is_over(item.topic):
                continue
            if not self._tries.is_ready(item):
                self._waiting.append(item)
                continue
            items = self._with_others(item)
            call: tuple[Any, ...] = (
                transfer_on_worker,
                [each.range for each in items],
                item.settings,
                self.topic,
                self._lookahead.turns,
                item.remainder,
                self._others_join,
                self._shares.share if item.settings.kafka.limit_rate is not None else None,
                report_interval_s(most),
            )
            if self._others_join:
                call = bootstrapped(*call)
            self._begin(self._pool.submit(*call, name=f"transfer_range-{item.range.name}"), items)

    def _with_others(self, first: Work) -> list[Work]:
        """Take from the queue what one task does together with this range: others as small, where many wait.

        What has failed is tried on its own, so that it is known whose failure it is.
        """
        items, size = [first], _bytes_of(first)
        most = min(_TOGETHER, len(self._waiting) // (_TASKS * self._nconsumers))
        if not self._goes_together(first):
            return items
        while len(items) < most and self._waiting:
            item = self._waiting[0]
            size += _bytes_of(item)
            if item.settings is not first.settings or not self._goes_together(item) or size > _TOGETHER_BYTES:
                break
            items.append(self._waiting.popleft())
        return items

    def _goes_together(self, item: Work) -> bool:
        # The rate is divided by what runs where, which is known of each task's first range.
        return item.remainder is None and item.settings.kafka.limit_rate is None and self._tries.is_first(item)

    def _begin(self, future: Future, items: list[Work]) -> None:
        """Take note of a task."""
        self._running[future] = items
        for item in items:
            self._out.add(_key(item))
            self._tries.begin(item)
            self._shares.begin(_key(item))

    def _end(self, future: Future) -> list[Work]:
        """Forget a task; returns its ranges."""
        items = self._running.pop(future, [])
        for item in items:
            self._out.discard(_key(item))
            self._whole.discard(_key(item))
            self._shares.end(_key(item))
            self._remarks.forget(item.topic, item.range)
        return items

    def collect(self, timeout_s: float = LOOK_S) -> None:
        """Wait for a result, then take all that have come."""
        for future in self._pool.finished(timeout_s):
            self._take(future)
        while not self._progress.empty():
            progress = self._progress.get()
            self._silence.see(progress)
            self._tries.see(progress)
            if progress.arrived >= len(progress.range):
                self._whole |= {(progress.topic, progress.range)} & self._out
            self._pool.accept(progress.worker)
            self._shares.see((progress.topic, progress.range), progress.worker)
            self._observe(progress)
            for note in self._remarks.of(progress, self._is_limited()):
                self._observe(note)

    def on_progress(self, event: tuple[float, Any]) -> None:
        """Take a worker's report, or a result; it is only put aside, as this runs on the client's event loop."""
        message = dict(event[1])  # to which Dask has added the worker
        if RESULTS_OF in message:
            self._results[message[RESULTS_OF]] = [
                RangeResult(**said | {"range": OffsetRange(**said["range"])}) for said in message["results"]
            ]
            return
        message["range"] = OffsetRange(**message["range"])
        self._progress.put(RangeProgress(**message))

    def check_cluster(self) -> None:
        """Raise a TransferError when the scheduler is gone, or has had no workers for a while."""
        self._pool.look()
        for future in self._pool.take_back():
            self._give_back(self._end(future))
            self._results.pop(future.key, None)

    def cancel(self) -> None:
        """Cancel the running tasks, if there is still a scheduler to tell."""
        if self._client.status == "running":
            self._client.unsubscribe_topic(self.topic)
        self._pool.cancel(self._running)

    def raise_failures(self) -> None:
        if self._failures:
            raise failure_of(self._failures, None if self._topics is None else self._topics.committed)

    def _is_limited(self) -> bool:
        work = next(iter(self._running.values()), [*self._waiting][:1])
        return bool(work) and work[0].settings.kafka.limit_rate is not None

    def _take(self, future: Future) -> None:
        items = self._end(future)
        if not items:
            return
        item = items[0]
        try:
            # They come before Dask says that they are there, unless a connection broke on the way.
            results = self._results.pop(future.key, None) or self._pool.result(future)
        except LostTaskError as error:
            self._failed(items, TransferError(error.message, *_where(item)), error.transient)
        except FinkDaskError as error:
            self._failed(items, error, error.transient)
        except Exception as error:  # a bug, or an error of Dask's: reported in one line, with the traceback in the log
            log.exception("range %s failed", item.range.name)
            self._failed(items, TransferError(words_of(error), *_where(item)), passing=False)
        else:
            self._take_results(items, results)
        finally:
            self._pool.release(future)

    def _take_results(self, items: Sequence[Work], results: list[RangeResult] | None) -> None:
        if results is None:
            self._give_back(items)
            return
        self._silence.end()
        self._at_once = min(self._most, self._at_once + 1)
        for item, result in zip(items, results, strict=True):
            self._tries.end(item)
            self._observe(result.committed(item.topic))

    def _give_back(self, items: Sequence[Work]) -> None:
        """Put the ranges of a task back, as if they had not been tried."""
        for item in items:
            self._tries.forgive(item)
        self._waiting.extendleft(reversed(items))

    def _thin_out(self) -> None:
        """Run one range after the other, as of so many at once nothing has come in time, and more as they complete."""
        if self._at_once == 1:  # the others that were begun together with the one that said so
            return
        together = len(self._running) + 1
        self._at_once, self._most = 1, max(1, together // 2)
        self._observe(
            Note(f"the line brings nothing in time to {together} ranges at once: going on with one", warning=True)
        )

    def _failed(self, items: Sequence[Work], error: FinkDaskError, passing: bool) -> None:
        item = items[0]
        for each in items:
            self._observe(RangeFailed(each.topic, each.range))
        is_away, is_crowded = isinstance(error, BrokerUnavailableError), isinstance(error, CrowdedLineError)
        if is_crowded:
            self._thin_out()
        if is_away and self._more is not None and not self._stopped and all([*map(self._tries.excuse, items)]):
            self._waiting.extendleft(reversed(items))
            return
        if is_away and self._silence.is_final(not (self._waiting or self._running)):
            self._stopped = self._is_gone = True
        if is_crowded and not self._stopped:
            self._give_back(items)
            return
        if len(items) > 1 and not self._stopped:
            self._waiting.extend(items)  # one after the other, as each was tried
            return
        if passing and not self._stopped and self._tries.allow(item):
            self._observe(Note(f"{error}; trying again", warning=True))
            self._waiting.append(item)
            return
        # A full disk concerns all ranges, a column with too many values all of a topic's; other failures only one.
        if isinstance(error, StorageError) or (isinstance(error, SettingsError) and self._topics is None):
            self._stopped = True
        if self._topics is not None and not self._stopped:
            self._topics.failed(item.topic, error)
        else:
            self._failures.append(error)


def _largest_first(work: Sequence[Work]) -> list[Work]:
    return sorted(work, key=lambda item: len(item.range), reverse=True)


def _where(item: Work) -> tuple[str, int, int]:
    return item.settings.identity.topic, item.range.partition, item.range.start
