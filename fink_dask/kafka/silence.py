"""What a reader believes of its partition while nothing comes: that its head is gone, or that it is another one."""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future

from fink_dask.errors import BrokerError, BrokerUnavailableError
from fink_dask.kafka.admin import in_background
from fink_dask.kafka.confluent import Debounce
from fink_dask.kafka.connection import Connection
from fink_dask.kafka.inspect import ask_watermarks, is_missing
from fink_dask.kafka.offsets import OffsetRange, Watermarks

log = logging.getLogger(__name__)

#: After so many seconds without a record the broker is asked what the partition holds; sooner, where librdkafka has
#: stopped fetching.
_LOOK_S, _STOPPED_LOOK_S = 2.0, 0.2


class Silence:
    """Asks what a partition holds while nothing comes of it, and tells what follows.

    The question goes over a connection of its own, and the reading goes on. What follows from the answer is told in the
    reader's thread, and only if no record has come before it. There is one question at a time.
    """

    def __init__(self, connection: Connection, topic: str, offset_range: OffsetRange) -> None:
        # What is read through; its admin client is asked.
        self._connection = connection
        self._topic = topic
        self._range = offset_range
        #: Whether librdkafka has stopped fetching, as it has found nothing where it was to read.
        self.is_off_the_log = False
        #: Whether the partition has ended before what was planned: it is another one then, even if records come again.
        self.is_before_the_plan = False
        self._suspicion = Debounce()
        self._question: Future[Watermarks | BrokerError] | None = None
        self._is_stale = False
        self._looked = time.monotonic()
        self._answered: float | None = None
        #: When Kafka was last known to be there.
        self._heard = time.monotonic()

    @property
    def answered_s(self) -> float:
        """Seconds for which questions have been answered while no records came."""
        return 0.0 if self._answered is None else time.monotonic() - self._answered

    @property
    def unanswered_s(self) -> float:
        """Seconds since records have come, or a question was answered."""
        return time.monotonic() - self._heard

    def rest(self, seconds: float) -> None:
        """Leave out some time in which nothing could come."""
        self._looked, self._heard = self._looked + seconds, self._heard + seconds

    def hear(self) -> None:
        """Take note that records have come, wanted or not."""
        self._answered, self._heard = None, time.monotonic()
        if not self.is_before_the_plan:
            self._looked = time.monotonic()
            self._suspicion.clear()
            self._is_stale = True

    def look(self, position: int) -> int | None:
        """Ask, where nothing has come for a while, or look at the answer.

        Returns: where the reading has to begin anew: at `position`, or further on, where retention has removed what
        lies between. None where it goes on.
        Raises BrokerError if the partition no longer holds what was planned.
        """
        now = time.monotonic()
        if self._question is None:
            if now - self._looked > (_STOPPED_LOOK_S if self.is_off_the_log else _LOOK_S):
                self._question, self._is_stale = in_background(self._ask), False
            return None
        if not self._question.done():
            return None
        answer, self._question, self._looked = self._question.result(), None, now
        if self._is_stale:
            return None
        if isinstance(answer, BrokerError):
            if not answer.transient:
                self._suspect("missing", "the topic or the partition is no longer there", position)
            return None
        self._heard = now
        if self._answered is None:
            self._answered = now
        return self._compare(answer, position)

    def _ask(self) -> Watermarks | BrokerError:
        """Ask what the partition holds; return an error that is not transient only where it is not there."""
        admin, topic, partition = self._connection.admin, self._topic, self._range.partition
        try:
            found = ask_watermarks(admin, {topic: [partition]})()[topic]
            if not isinstance(found, BrokerError):
                return found[partition]
            if not found.transient and is_missing(admin, topic, partition):
                return found
        except BrokerError as error:
            found = error
        log.info("%s[%d]: %s", topic, partition, found)
        return BrokerUnavailableError(found.message)

    def _compare(self, marks: Watermarks, position: int) -> int | None:
        """Compare what the partition holds with what is to be read."""
        if marks.low > position:
            # What was sent before retention came is still on its way, and librdkafka says when it asks in vain.
            return min(marks.low, self._range.end) if self.is_off_the_log else None
        if marks.last_stable_offset < self._range.end:
            # The last stable offset was at the end of the plan or beyond it, and it never goes back.
            words = f"the partition ends at {marks.last_stable_offset}, before what was planned"
            self._suspect("truncated", f"{words}: truncated, or made anew", position)
            return None
        self.is_before_the_plan = False
        self._suspicion.clear()
        return position if self.is_off_the_log else None

    def _suspect(self, finding: str, words: str, position: int) -> None:
        if self._suspicion.confirms(finding):
            raise BrokerError(words, self._topic, self._range.partition, position)
