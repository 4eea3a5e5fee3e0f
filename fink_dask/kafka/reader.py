"""Consume one range: every offset of it ends up as a record, as a hole that Kafka itself has, or as declared loss."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

from fink_dask.errors import BrokerError, BrokerUnavailableError, InterruptedTransferError
from fink_dask.kafka.client import (
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
    broker_error,
    is_passing,
    one_line,
)
from fink_dask.kafka.connection import Connection
from fink_dask.kafka.inspect import UNKNOWN_ID, ask_topic_id
from fink_dask.kafka.offsets import Interval, Range
from fink_dask.kafka.pending import MAX_BATCH_RECORDS, Pending
from fink_dask.kafka.records import RawBatch
from fink_dask.kafka.suspicion import Suspicion

log = logging.getLogger(__name__)

#: How long librdkafka may hold the thread before `should_stop` is asked again, in seconds.
_POLL_S = 0.2
#: Records taken from librdkafka at once: enough to make the call cheap, and no more bytes than it has queued anyway.
_POLL_RECORDS = 1000
_POLL_BYTES = 8 * 2**20
#: After so much silence the broker is asked what the partition holds, in seconds.
_LOOK_S = 2.0

_OFF_THE_LOG = {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}
_NO_TOPIC = {KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_OR_PART}


class RangeReader:
    """Reads a range once, batch by batch, and accounts for every offset of it.

    Parameters
    ----------
    connection : Connection
        What to read through; its settings hold the time that the next record may take.
    topic : str
        The topic.
    range_ : Range
        What to read.
    should_stop : callable
        Asked several times a second; True ends the reading.
    topic_id : str, optional
        The topic's id in the plan. librdkafka reads on where a topic was deleted and made again with as many records,
        and delivers the other topic's; with an id, the reading fails at its end when the topic is another one.
    waiting : callable, optional
        Returns a context manager that is entered while nothing is there and Kafka is waited for.

    Attributes
    ----------
    position : int
        The next offset to account for.
    holes : list of (int, int)
        Intervals that hold no record for a reader: transaction markers, aborted records, what compaction took.
    lost : list of (int, int)
        Intervals that retention removed before they could be read.
    """

    def __init__(
        self,
        connection: Connection,
        topic: str,
        range_: Range,
        should_stop: Callable[[], bool],
        topic_id: str = UNKNOWN_ID,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._connection = connection
        self._consumer = connection.consumer
        self._errors = connection.errors
        self._settings = connection.settings
        self._topic = topic
        self._range = range_
        self._should_stop = should_stop
        self._topic_id = topic_id
        self._waiting = waiting
        self.position = range_.start
        self.holes: list[Interval] = []
        self.lost: list[Interval] = []
        self._is_off_the_log = False
        self._is_fetching = False
        self._suspicion = Suspicion()

    def prefetch(self) -> None:
        """Let librdkafka fetch the first records ahead, as many as its queue takes."""
        self._assign()

    def batches(
        self, batchsize: int, batch_bytes: int, min_bytes: int = 0, max_records: int = MAX_BATCH_RECORDS
    ) -> Iterator[RawBatch]:
        """Yield the records in offset order.

        Where a batch ends depends on the records alone, never on how they arrived, so that two attempts at a range
        write the same files.

        Parameters
        ----------
        batchsize, batch_bytes, min_bytes, max_records : int
            Bounds of a batch; see `Pending`.

        Raises
        ------
        BrokerError
            If the partition no longer holds what was planned, or Kafka refuses.
        BrokerUnavailableError
            If no record comes in time.
        InterruptedTransferError
            If `should_stop` said so.
        """
        max_bytes = min(_POLL_BYTES, batch_bytes)
        pending = self._pending = Pending(batchsize, batch_bytes, min_bytes, max_records)
        end = self._range.end
        if not self._is_fetching:
            self._assign()
        heard = looked = time.monotonic()
        looked_at = -1
        wanted = _POLL_RECORDS // 100  # until their size is known
        while self.position < end:
            self._check_stop()
            before = self.position
            messages = self._consumer.consume(num_messages=min(wanted, end - before), timeout=0)
            if not messages:
                with self._waiting():
                    messages = self._consumer.consume(num_messages=min(wanted, end - before), timeout=_POLL_S)
                    polled = time.monotonic()
                # The time that this thread waits for its turn is no silence of Kafka's.
                kept = time.monotonic() - polled
                heard, looked = heard + kept, looked + kept
            records = self._account(messages)
            if records:
                size = pending.extend(records)
                wanted = max(1, min(_POLL_RECORDS, max_bytes * len(records) // max(1, size)))
                del messages, records  # or they would stay in memory while the batch is used
                for batch in pending.full():
                    yield batch
                    self._check_stop()  # a batch can take seconds to use
            # The time that it takes to use the records is no silence of Kafka's: so the clock is read only now.
            now = time.monotonic()
            if self.position == before and (
                now - looked > _LOOK_S or (self._is_off_the_log and looked_at != self.position)
            ):
                looked_at = self.position
                with self._waiting():
                    self._look()
                looked = time.monotonic()
            if self.position > before:
                heard = looked = time.monotonic()
                self._suspicion.clear()
                self._errors.fatal = None
            else:
                self._check_silence(now - heard)
        self._consumer.unassign()
        with self._waiting():
            self._check_topic_id()
        yield from pending.rest()

    @property
    def join_seconds(self) -> float:
        """Seconds spent on joining values, of those that the batches took."""
        return self._pending.join_seconds

    def _account(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Move past what came; return the records that are of this range and were not seen before."""
        count = len(messages)
        # The common case: they follow each other, and nothing is left over from what the connection read before.
        if (
            all(message.error() is None for message in messages)
            and self.position + count <= self._range.end
            and [message.offset() for message in messages] == [*range(self.position, self.position + count)]
            and [message.partition() for message in messages].count(self._range.partition) == count
            and [message.topic() for message in messages].count(self._topic) == count
        ):
            self.position += count
            return messages
        records = []
        for message in messages:
            if self.position >= self._range.end:
                break
            if not self._concerns(message):
                continue
            if message.error() is not None:
                self._on_event(message.error(), message.offset())
            elif self._advance(message.offset()):
                records.append(message)
        return records

    def _concerns(self, message: Message) -> bool:
        """Tell whether a record or an event is of this partition, or of the whole topic, or of the connection."""
        # librdkafka drops what an assignment left over; an old end-of-partition event would make the rest a hole.
        if message.error() is not None and message.topic() is None:
            return True
        partitions = {self._range.partition} if message.error() is None else {self._range.partition, -1}
        return message.topic() == self._topic and message.partition() in partitions

    def _check_stop(self) -> None:
        if self._should_stop():
            raise InterruptedTransferError("stopped", self._topic, self._range.partition, self.position)

    def _assign(self) -> None:
        self._consumer.assign([TopicPartition(self._topic, self._range.partition, self.position)])
        self._is_fetching = True
        self._is_off_the_log = False

    def _advance(self, offset: int) -> bool:
        """Move past a record; False for one that is not of this range or was seen before."""
        if offset < self.position:
            return False  # left over from before an assignment
        self._skip_to(offset)
        if offset >= self._range.end:
            return False
        self.position = offset + 1
        return True

    def _skip_to(self, offset: int) -> None:
        """Note that nothing was delivered before `offset`: Kafka has a hole there."""
        reached = min(offset, self._range.end)
        if reached > self.position:
            if self.holes and self.holes[-1][1] == self.position:
                self.holes[-1] = (self.holes[-1][0], reached)
            else:
                self.holes.append((self.position, reached))
            self.position = reached

    def _on_event(self, error: KafkaError, offset: int) -> None:
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            # The event says it; position() is one too far after it, from librdkafka 2.2 to 2.12:
            # https://github.com/confluentinc/librdkafka/issues/4844
            self._skip_to(offset)
        elif code in _OFF_THE_LOG:
            self._is_off_the_log = True
        elif code == KafkaError._LOG_TRUNCATION:
            raise self._failed("truncated by an unclean leader election: use another --outdir, or --restart")
        elif is_passing(error) or code in _NO_TOPIC:  # a topic that is gone is looked for before it is believed
            log.info("%s[%d]: %s", self._topic, self._range.partition, error.str())
        else:
            raise broker_error(error, self._topic, self._range.partition, self.position)

    def _look(self) -> None:
        """Ask once what the partition holds: retention may have taken its head, or the topic is not what it was."""
        where = TopicPartition(self._topic, self._range.partition)
        try:
            low, stable = self._consumer.get_watermark_offsets(where, timeout=_POLL_S * 2, cached=False)
        except KafkaException as exception:
            if exception.args[0].code() in _NO_TOPIC and self._connection.lacks(self._topic, self._range.partition):
                self._suspect("the topic or the partition is no longer there")
            return
        if low > self.position:
            self._lose_until(min(low, self._range.end))
        elif stable < self._range.end:
            # The last stable offset was at the end of the plan or beyond it, and it never goes back.
            self._suspect(f"the partition ends at {stable}, before what was planned: truncated, or made anew")
        else:
            self._suspicion.clear()
            if self._is_off_the_log:  # librdkafka has stopped fetching
                self._assign()

    def _suspect(self, finding: str) -> None:
        if self._suspicion.confirms(finding):
            raise self._failed(finding)

    def _lose_until(self, offset: int) -> None:
        self.lost.append((self.position, offset))
        log.warning(
            "%s[%d]: retention removed offsets %d to %d", self._topic, self._range.partition, self.position, offset - 1
        )
        self.position = offset
        self._assign()

    def _check_silence(self, silence_s: float) -> None:
        """Fail after too much silence, and earlier where the broker has said that it is final."""
        if self._errors.fatal is not None and silence_s > self._settings.request_timeout_s:
            raise broker_error(self._errors.fatal, self._topic, self._range.partition, self.position)
        if silence_s > self._settings.reconnect_timeout_s:
            reason = one_line(self._errors.last.str()) if self._errors.last is not None else "no error was reported"
            raise BrokerUnavailableError(
                f"no record came for {self._settings.reconnect_timeout_s:g} s ({reason})",
                self._topic,
                self._range.partition,
                self.position,
            )

    def _check_topic_id(self) -> None:
        """Make sure at the end that it was the same topic all along: an id never comes back."""
        if self._topic_id != UNKNOWN_ID and ask_topic_id(self._connection.admin, self._topic) != self._topic_id:
            raise self._failed("the topic was deleted and made again while it was read")

    def _failed(self, message: str) -> BrokerError:
        return BrokerError(message, self._topic, self._range.partition, self.position)
