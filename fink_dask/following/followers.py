"""Follow topics together: plan what arrives in each, take in topics that appear, and know when it is enough."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from fink_dask.errors import BrokerError, BrokerUnavailableError, StorageError
from fink_dask.following.follow import Amount, Ending, Follower
from fink_dask.kafka.confluent import Debounce
from fink_dask.kafka.inspect import Inspector
from fink_dask.planning.prepare import make_work
from fink_dask.planning.several import Finder, Snapshot, Topics
from fink_dask.progress.events import Note, Observer
from fink_dask.ranges.memory import MemoryShare
from fink_dask.ranges.work import Work
from fink_dask.settings import FollowSettings

#: Seconds between two looks: by so much the end of a run may be late, besides the work that is left, or by `_MOST_S`
#: on a slow line.
LOOK_S = 0.5
#: It rests for so many times as long as a look took, and at most so many seconds.
_RESTS, _MOST_S = 4, 10.0
#: Seconds that a look may take to end of which nobody wants to know any more.
_END_S = 1.0


class ReconnectPolicy:
    """Waits for Kafka."""

    def __init__(self, limit_s: float, observe: Observer, excuse: Callable[[float], None]) -> None:
        # Seconds that it may be away.
        self._limit_s = limit_s
        self._observe = observe
        # Is told the seconds of an absence, once it is over.
        self._excuse = excuse
        self._away_since: float | None = None
        self._heard: float | None = None

    def wait(self, error: BrokerUnavailableError, now: float) -> None:
        """Note that Kafka is away.

        Raises BrokerUnavailableError if it has been away for too long.
        """
        if self._away_since is None:
            # Since it last answered: the question itself took some seconds to fail.
            self._away_since = now if self._heard is None else self._heard
            self._observe(Note(f"{error}; waiting for it, up to {self._limit_s:g} s", warning=True))
        elif now - self._away_since > self._limit_s:
            raise BrokerUnavailableError(
                f"Kafka was away for {self._limit_s:g} s ({error.message}); what is committed is safe, and the same "
                "command goes on from there",
                error.topic,
            )

    def end(self, now: float) -> None:
        """Note that Kafka answers."""
        self._heard = now
        if self._away_since is not None:
            away_s, self._away_since = now - self._away_since, None
            self._excuse(away_s)
            self._observe(Note(f"Kafka answers again, after {away_s:.0f} s"))


@dataclass(frozen=True)
class Round:
    """One look at all topics."""

    #: What was seen of each.
    looks: Mapping[str, Snapshot] = field(default_factory=dict)
    #: Why nothing was seen of any of them.
    error: Exception | None = None


class Watch:
    """Looks at topics in a thread of its own, so that an absent broker holds nobody up; a context manager."""

    def __init__(self, inspector: Inspector, finder: Finder) -> None:
        # Asks the broker; nobody else may use it meanwhile.
        self._inspector = inspector
        # Knows which topics are meant; nobody else may use it either, except to take what it has found.
        self._finder = finder
        self._over = threading.Event()
        self._ended: Future[None] | None = None
        self._latest: Round | None = None
        self._suspicion = Debounce()

    def __enter__(self) -> Self:
        self._ended = self._inspector.begin(self._run)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        assert self._ended is not None
        # A question to a Kafka that is away takes its time, and who has pressed Ctrl+C is told how far the run came.
        wait([self._ended], timeout=None if kind is None else _END_S)

    @property
    def latest(self) -> Round | None:
        """The last round; None before the first one."""
        return self._latest

    def _run(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            self._latest = self._look()
            # A look brings the list of all topics: on a slow line it must not take what the alerts need.
            took = time.monotonic() - began
            self._over.wait(min(_MOST_S, max(LOOK_S, _RESTS * took)))

    def _look(self) -> Round:
        try:
            looks = self._finder.look(self._inspector)
        except BrokerUnavailableError as error:
            return Round(error=error)
        except BrokerError as error:
            if self._suspicion.confirms("refused"):
                return Round(error=error)
            return Round(error=BrokerUnavailableError(error.message, error.topic))
        except Exception as error:  # whatever it is, the run has to know, or it would wait for ever
            return Round(error=error)
        self._suspicion.clear()
        return Round(looks)


class Followers:
    """Plans what arrives in the topics of a run, and decides when the end has come."""

    def __init__(
        self,
        topics: Topics,
        follow: FollowSettings,
        watch: Watch,
        finder: Finder,
        memory: MemoryShare,
        nconsumers: int,
    ) -> None:
        # The topics; those that have begun are followed, and so are those that are found later.
        self._topics = topics
        # When ranges are closed, and when the end comes.
        self._follow = follow
        # Looks at the topics.
        self._watch = watch
        # Knows what has been found meanwhile.
        self._finder = finder
        # What a range may hold.
        self._memory = memory
        # Ranges that are consumed at once.
        self._nconsumers = nconsumers
        self._limit_s = topics.settings.kafka.reconnect_timeout_s
        self._ending = Ending(follow, time.monotonic())
        self._patience = ReconnectPolicy(self._limit_s, topics.progress, self._ending.excuse)
        self._followers = {transfer.topic: Follower(transfer, follow) for transfer in topics.open}
        self._seen: Round | None = None
        self._looked = time.monotonic()
        self._is_final = False

    def more(self, waiting: int, running: int) -> list[Work] | None:
        """Plan what is due, and freeze the plans.

        `waiting, running`: ranges that wait for a consumer, and ranges that have one.
        Returns: what was planned, and what topics that were just found had left open; None when the end has come.
        Raises FinkDaskError if Kafka was away for too long, or the file system refuses; or a topic fails, and no other
        was asked for.
        """
        round_ = self._watch.latest
        if self._is_final or self._ending.is_enough(self._accounted):
            return None  # whatever the state of Kafka
        if round_ is None or round_ is self._seen:
            return []
        self._seen = round_
        now = time.monotonic()
        since_s, self._looked = now - self._looked, now
        work = self._join()
        if not self._answers(round_, now):
            # Nobody can tell what the topics hold by then.
            return work or (None if self._ending.is_late() else [])
        seen = [follower for follower in self._open() if self._look(follower, round_, now)]
        if len(seen) < len(self._open()):
            self._ending.excuse(since_s)  # nobody can tell whether the others have grown
        for follower in seen:
            self._ending.look(follower.transfer.topic, follower.stables, now)
        amount = self._amount(waiting, running, now)
        if amount is None:
            return work or None
        for follower in seen:
            # A full disk is full for all of them.
            with self._topics.alone(follower.transfer, StorageError):
                work += self._plan(follower, amount, now)
        for follower in seen:
            follower.report(self._ending, now)
        return work

    @property
    def _accounted(self) -> int:
        return sum(follower.accounted for follower in self._followers.values())

    def _open(self) -> list[Follower]:
        return [follower for follower in self._followers.values() if follower.transfer.is_open]

    def _join(self) -> list[Work]:
        """Take in the topics that were found meanwhile."""
        work: list[Work] = []
        for transfer in self._finder.take():
            if self._topics.begin(transfer):
                transfer.observe(Note("it has appeared, and is now followed as well"))
                with self._topics.alone(transfer):
                    self._followers[transfer.topic] = Follower(transfer, self._follow)
                    work += transfer.begin_work(self._memory, None)
        return work

    def _answers(self, round_: Round, now: float) -> bool:
        """Tell whether Kafka answers; if it does not, wait for it as long as is allowed."""
        error = round_.error
        if error is None:
            errors = [look.error for look in round_.looks.values()]
            # One topic alone that can't be seen is in doubt, and no reason to hold up the others.
            if errors and all(isinstance(each, BrokerUnavailableError) for each in errors):
                error = errors[0]
        if error is None:
            self._patience.end(now)
            return True
        if not isinstance(error, BrokerUnavailableError):
            raise error
        self._patience.wait(error, now)
        return False

    def _look(self, follower: Follower, round_: Round, now: float) -> bool:
        """Let a follower look; False where nothing is known about its topic."""
        look, limit_s = round_.looks.get(follower.transfer.topic), self._limit_s
        with self._topics.alone(follower.transfer):
            if look is None or isinstance(look.error, BrokerUnavailableError):
                if look is not None and now - follower.seen_at > limit_s:
                    raise BrokerError(
                        f"nothing was seen of it for {limit_s:g} s: {look.error}", follower.transfer.topic
                    )
                return False
            if look.error is not None:
                raise look.error
            assert look.description is not None
            return follower.look(look.description, now)
        return False

    def _amount(self, waiting: int, running: int, now: float) -> Amount | None:
        """Decide how much to plan; None when the end has come."""
        followers = self._followers.values()
        is_late, is_idle = self._ending.is_late(), self._ending.is_idle(now)
        unplanned = sum(follower.unplanned for follower in self._open())
        nothing_left = not waiting and not running
        if is_idle and not unplanned and nothing_left:
            return None
        if not self._open() and not self._topics.choice.patterns:
            return None  # all have failed, and no other can appear
        coming = sum(follower.coming if follower.transfer.is_open else follower.accounted for follower in followers)
        if is_late or is_idle or self._ending.is_enough(coming):
            self._is_final = is_late
            return Amount.ALL
        # While consumers have enough to do, what arrives adds up to larger ranges, and fewer files. More of them may
        # have come than there were at first.
        return Amount.NOTHING if waiting > max(self._nconsumers, running) else Amount.DUE

    def _plan(self, follower: Follower, amount: Amount, now: float) -> list[Work]:
        transfer, opened = follower.transfer, follower.plan(amount, now)
        return make_work(transfer.settings, transfer.target, transfer.ledger, opened, self._memory)


def look_first(topics: Topics, finder: Finder, inspector: Inspector) -> None:
    """Snapshot for the topics; wait for an absent broker from the start, as a follower may be restarted automatically.

    Raises FinkDaskError if Kafka was away for too long, or refuses.
    """
    patience = ReconnectPolicy(topics.settings.kafka.reconnect_timeout_s, topics.progress, lambda _: None)
    while True:
        try:
            finder.look(inspector)
        except BrokerUnavailableError as error:
            patience.wait(error, time.monotonic())
            time.sleep(LOOK_S)
        else:
            patience.end(time.monotonic())
            return


def wait_for_first(
    topics: Topics,
    follow: FollowSettings,
    finder: Finder,
    inspector: Inspector,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Wait until there is a topic that holds something; False where the end comes first.

    Raises FinkDaskError if Kafka was away for too long; or a topic can't be transferred, and no other was asked for.
    """
    ending = Ending(follow, time.monotonic())
    patience = ReconnectPolicy(topics.settings.kafka.reconnect_timeout_s, topics.progress, ending.excuse)
    while not (ending.is_idle(time.monotonic()) or ending.is_late()):
        sleep(LOOK_S)
        now = time.monotonic()
        try:
            finder.look(inspector)
        except BrokerUnavailableError as error:
            patience.wait(error, now)
            continue
        patience.end(now)
        for transfer in finder.take():
            topics.begin(transfer)
        if topics.open:
            return True
    return False
