"""Consume one range: every offset of it ends up as a record, as a hole that Kafka itself has, or as declared loss."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from fink_dask.config import KafkaSettings
from fink_dask.errors import BrokerError, BrokerUnavailableError, InterruptedTransferError
from fink_dask.kafka.client import (
    Consumer,
    Errors,
    KafkaError,
    Message,
    TopicPartition,
    ask,
    broker_error,
    is_passing,
    one_line,
)
from fink_dask.kafka.offsets import Interval, Range
from fink_dask.kafka.records import RawBatch

log = logging.getLogger(__name__)

#: How long librdkafka may hold the thread before `should_stop` is asked again, in seconds.
_POLL_S = 0.2
#: Records taken from librdkafka at once: enough to make the call cheap, few enough to bound its memory.
_POLL_RECORDS = 1000


@dataclass
class _Pending:
    """Records that wait to become a batch."""

    offsets: list[int] = field(default_factory=list)
    timestamps_ms: list[int] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    size: int = 0

    def append(self, message: Message, size: int) -> None:
        self.offsets.append(message.offset())
        self.timestamps_ms.append(message.timestamp()[1])
        self.values.append(message.value())
        self.keys.append(message.key())
        self.size += size

    def batch(self) -> RawBatch:
        return RawBatch(self.offsets, self.timestamps_ms, self.values, self.keys)


class RangeReader:
    """Reads a range once, batch by batch, and accounts for every offset of it.

    Parameters
    ----------
    consumer, errors
        An open consumer and what it says of its connections.
    settings : KafkaSettings
        Holds the time that the next record may take.
    topic : str
        The topic.
    range_ : Range
        What to read.
    should_stop : callable
        Asked several times a second; True ends the reading.

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
        consumer: Consumer,
        errors: Errors,
        settings: KafkaSettings,
        topic: str,
        range_: Range,
        should_stop: Callable[[], bool],
    ) -> None:
        self._consumer = consumer
        self._errors = errors
        self._settings = settings
        self._topic = topic
        self._range = range_
        self._should_stop = should_stop
        self.position = range_.start
        self.holes: list[Interval] = []
        self.lost: list[Interval] = []
        self._ended_at: int | None = None

    def batches(self, batchsize: int, batch_bytes: int) -> Iterator[RawBatch]:
        """Yield the records in offset order.

        Where a batch ends depends on the records alone, never on how they arrived, so that two attempts at a range
        write the same files.

        Parameters
        ----------
        batchsize : int
            The most records of a batch.
        batch_bytes : int
            The most bytes of a batch's values, unless a single record is larger.

        Raises
        ------
        BrokerError
            If the partition no longer holds what was planned, or Kafka refuses.
        BrokerUnavailableError
            If no record comes in time.
        InterruptedTransferError
            If `should_stop` said so.
        """
        pending = _Pending()
        for message in self._messages():
            size = len(message.value() or b"")
            if pending.offsets and (len(pending.offsets) >= batchsize or pending.size + size > batch_bytes):
                yield pending.batch()
                pending = _Pending()
            pending.append(message, size)
        if pending.offsets:
            yield pending.batch()

    def _messages(self) -> Iterator[Message]:
        """Yield each record of the range once; return when the next offset to read is the range's end."""
        end = self._range.end
        self._assign()
        heard = time.monotonic()
        while self.position < end:
            if self._should_stop():
                raise InterruptedTransferError("stopped", self._topic, self._range.partition, self.position)
            wanted = min(_POLL_RECORDS, end - self.position)
            before = self.position
            for message in self._consumer.consume(num_messages=wanted, timeout=_POLL_S):
                if message.error() is not None:
                    self._on_event(message)
                elif self._advance(message.offset()):
                    yield message
                if self.position >= end:
                    break
            if self.position > before:
                # Whoever takes the records may be slow; that is no silence of Kafka's.
                heard = time.monotonic()
            elif time.monotonic() - heard > self._settings.stall_timeout_s:
                raise self._stalled()
        self._consumer.unassign()

    def _assign(self) -> None:
        self._consumer.assign([TopicPartition(self._topic, self._range.partition, self.position)])

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
            self.holes.append((self.position, reached))
            self.position = reached

    def _on_event(self, message: Message) -> None:
        error: KafkaError = message.error()
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            # An end before the range's is seen while a new leader catches up, or because the topic was truncated.
            self._ended_at = message.offset()
            self._skip_to(message.offset())
        elif code in {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}:
            self._on_out_of_range()
        elif is_passing(error):
            log.info("%s[%d]: %s", self._topic, self._range.partition, error.str())
        else:
            raise broker_error(error, self._topic, self._range.partition, self.position)

    def _on_out_of_range(self) -> None:
        """Find out which side the position fell off: retention took the head, or the topic is not what it was."""
        where = TopicPartition(self._topic, self._range.partition)
        low, high = ask(
            lambda timeout: self._consumer.get_watermark_offsets(where, timeout=timeout, cached=False) or (0, 0),
            self._consumer,
            self._errors,
            self._settings,
            self._topic,
        )
        if low <= self.position:
            raise self._shrunk(high)
        gone = min(low, self._range.end)
        self.lost.append((self.position, gone))
        log.warning(
            "%s[%d]: retention removed offsets %d to %d", self._topic, self._range.partition, self.position, gone - 1
        )
        self.position = gone
        self._assign()

    def _shrunk(self, high: int) -> BrokerError:
        return BrokerError(
            f"the partition ends at {high}, before what was planned: the topic was truncated or made anew",
            self._topic,
            self._range.partition,
            self.position,
        )

    def _stalled(self) -> BrokerError:
        if self._ended_at == self.position:
            return self._shrunk(self._ended_at)
        reason = one_line(self._errors.last.str()) if self._errors.last is not None else "no error was reported"
        return BrokerUnavailableError(
            f"no record came for {self._settings.stall_timeout_s:g} s ({reason})",
            self._topic,
            self._range.partition,
            self.position,
        )
