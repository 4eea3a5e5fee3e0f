"""Follow topics together: plan what arrives in each, take in topics that appear, and know when it is enough."""

from __future__ import annotations

import time
from collections.abc import Callable

from fink_dask.config import FollowSettings
from fink_dask.errors import BrokerError, BrokerUnavailableError, StorageError
from fink_dask.following.follow import Amount, Follower
from fink_dask.following.pace import Ending
from fink_dask.following.patience import Patience
from fink_dask.following.watch import LOOK_S, Round, Watch
from fink_dask.kafka.inspect import Inspector
from fink_dask.transfers.events import Event, Note, Observer, RangeCommitted
from fink_dask.transfers.find import Finder
from fink_dask.transfers.memory import MemoryShare
from fink_dask.transfers.prepare import make_work
from fink_dask.transfers.topics import Topics
from fink_dask.transfers.work import Work


class Followers:
    """Plans what arrives in the topics of a run, and decides when the end has come.

    Parameters
    ----------
    topics : Topics
        The topics; those that have begun are followed, and so are those that are found later.
    follow : FollowSettings
        When ranges are closed, and when the end comes.
    watch : Watch
        Looks at the topics.
    finder : Finder
        Knows what has been found meanwhile.
    memory : MemoryShare
        What a range may hold.
    nconsumers : int
        Ranges that are consumed at once.
    observe : callable
        Takes the events.
    """

    def __init__(
        self,
        topics: Topics,
        follow: FollowSettings,
        watch: Watch,
        finder: Finder,
        memory: MemoryShare,
        nconsumers: int,
        observe: Observer,
    ) -> None:
        self._topics = topics
        self._follow = follow
        self._watch = watch
        self._finder = finder
        self._memory = memory
        self._nconsumers = nconsumers
        self._limit_s = topics.settings.kafka.reconnect_timeout_s
        self._ending = Ending(follow, time.monotonic())
        self._patience = Patience(self._limit_s, observe, self._ending.excuse)
        self._followers = {transfer.topic: Follower(transfer, follow) for transfer in topics.open}
        self._seen: Round | None = None
        self._looked = time.monotonic()
        self._is_final = False

    def observe(self, event: Event) -> None:
        """Count what is committed, and pass the event on."""
        if isinstance(event, RangeCommitted):
            self._followers[event.topic].commit(event)
        self._topics.observe(event)

    def more(self, waiting: int, running: int) -> list[Work] | None:
        """Plan what is due, and freeze the plans.

        Parameters
        ----------
        waiting, running : int
            Ranges that wait for a consumer, and ranges that have one.

        Returns
        -------
        list of Work or None
            What was planned, and what topics that were just found had left open; None when the end has come.

        Raises
        ------
        FinkDaskError
            If Kafka was away for too long, or the file system refuses; or a topic fails, and no other was asked for.
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
            follower.report(self._ending.quiet_s(now), now)
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
        # While consumers have enough to do, what arrives adds up to larger ranges, and fewer files.
        return Amount.NOTHING if waiting > self._nconsumers else Amount.DUE

    def _plan(self, follower: Follower, amount: Amount, now: float) -> list[Work]:
        transfer, opened = follower.transfer, follower.plan(amount, now)
        return make_work(transfer.settings, transfer.target, transfer.ledger, opened, self._memory)


def look_first(topics: Topics, finder: Finder, inspector: Inspector) -> None:
    """Look for the topics; wait for an absent broker from the start, as a follower may be restarted automatically.

    Raises
    ------
    FinkDaskError
        If Kafka was away for too long, or refuses.
    """
    patience = Patience(topics.settings.kafka.reconnect_timeout_s, topics.observe, lambda _: None)
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

    Raises
    ------
    FinkDaskError
        If Kafka was away for too long; or a topic can't be transferred, and no other was asked for.
    """
    ending = Ending(follow, time.monotonic())
    patience = Patience(topics.settings.kafka.reconnect_timeout_s, topics.observe, ending.excuse)
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
