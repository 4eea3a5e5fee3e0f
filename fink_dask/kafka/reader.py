"""Consume one range: every offset of it ends up as a record, as a hole that Kafka itself has, or as declared loss."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

from fink_dask.batches import RawBatch
from fink_dask.errors import BrokerError, BrokerUnavailableError, CrowdedLineError, InterruptedTransferError, parameter
from fink_dask.kafka.admin import in_background
from fink_dask.kafka.confluent import (
    KafkaError,
    Message,
    broker_error,
    in_words,
    is_of_groups,
    is_transient,
)
from fink_dask.kafka.connection import Connection, open_glimpse
from fink_dask.kafka.inspect import UNKNOWN_ID, ask_topic_id
from fink_dask.kafka.line import Line
from fink_dask.kafka.offsets import Interval, OffsetRange
from fink_dask.kafka.partition_queue import PartitionQueue, UnfitQueueError, proof
from fink_dask.kafka.records import MAX_BATCH_RECORDS, RecordAccumulator
from fink_dask.kafka.silence import Silence

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

#: How long librdkafka may hold the thread before `should_stop` is asked again, in seconds.
_POLL_S = 0.2
#: Records taken from librdkafka at once: enough to make the call cheap, and no more bytes than it has queued anyway.
_POLL_RECORDS = 1000
_POLL_BYTES = 8 * 2**20
#: The records of a smaller range come as messages: to connect once more, for the check of what a queue gives, and to
#: load the loop that copies from it, takes as long as it gains there.
QUEUE_BYTES = 16 * 2**20
#: What is taken at once of what comes beside a partition's own queue.
_EVENTS = 100
#: Who comes back from a wait by so many seconds late was asleep.
_ASLEEP_S = 5.0
#: A response of fewer bytes brings no records.
_EMPTY_BYTES = 512
#: A response may take up to librdkafka's minute, however little patience there is: as long as questions are answered,
#: and nothing says that the line is broken, it is on its way. They are asked every few seconds.
_OVERDUE_S, _ASKED_S = 75.0, 8.0
#: Seconds after which credentials that were refused are not tried again.
_REFUSED_S = 8.0
#: A response that librdkafka has given up after its minute did not come because the line is full, and not because it is
#: cut, where questions have been answered for so many seconds meanwhile. Where the connection has brought records
#: before, a NAT may have forgotten it, and the next one brings them: then it is the second response that tells.
_CROWDED_S, _CROWDED_LATER_S = 30.0, 90.0

_OFF_THE_LOG = {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}
#: A batch of records whose checksum is wrong, or that can't be decompressed.
_DAMAGED = {KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION}
_NO_TOPIC = {KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_OR_PART}


class RangeReader:
    """Reads a range once, batch by batch, and accounts for every offset of it."""

    def __init__(
        self,
        connection: Connection,
        topic: str,
        offset_range: OffsetRange,
        should_stop: Callable[[], bool],
        topic_id: str = UNKNOWN_ID,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
        line: Line | None = None,
        on_wait: Callable[[], None] = lambda: None,
        size_bytes: int = 0,
    ) -> None:
        # What to read through; its settings hold the time that the next record may take.
        self._connection = connection
        self._settings = connection.settings
        self._topic = topic
        self._range = offset_range
        # Asked several times a second; True ends the reading.
        self._should_stop = should_stop
        # The topic's id in the plan. librdkafka reads on where a topic was deleted and made again with as many records,
        # and delivers the other topic's; with an id, the reading fails at its end when the topic is another one.
        self._topic_id = topic_id
        # Returns a context manager that is entered while nothing is there and Kafka is waited for.
        self._waiting = waiting
        # What the readers of this process share.
        self._line = line or Line()
        # Called several times a second while nothing is there, to say how things are.
        self._on_wait = on_wait
        # About how much there is to be read; 0 where nobody knows.
        self._size_bytes = size_bytes
        #: The next offset to account for.
        self.position = offset_range.start
        #: Intervals that hold no record for a reader: transaction markers, aborted records, what compaction took.
        self.holes: list[Interval] = []
        #: Intervals that retention removed before they could be read.
        self.lost: list[Interval] = []
        #: Whether it may ask for records; it may not as long as the line is full of what others have asked for.
        self.has_room = False
        self._silence = Silence(connection, topic, offset_range)
        self._taken = self._taken_bytes = 0
        self._before = self._stated = connection.arrived
        #: What the connection had consumed before.
        self._taken_before = (connection.taken, connection.taken_bytes)
        #: When Kafka last sent something, and when something of this partition last came, wanted or not.
        self._heard = self._moved = time.monotonic()
        self._waits_since: float | None = None
        # The queue that records are taken from, where they do not come as messages.
        self._queue: PartitionQueue | None = None
        # Whether a record that came from there is the same when it is consumed, as long as this process does not know.
        self._again: Future[bool | None] | None = None
        self._responses = 0
        self._response_s = 0.0

    def prefetch(self) -> None:
        """Wait until the line has room, and let librdkafka fetch the first records ahead, as many as its queue takes.

        Raises InterruptedTransferError if `should_stop` said so.
        """
        try:
            asks = self._connection.fetch_bytes
            asks = min(asks, self._size_bytes or asks)
            self._line.wait(self, self._settings.limit_rate, self._look_around, asks)
            self._begin()
        except BaseException:
            self.close()
            raise

    def batches(
        self, batchsize: int, batch_bytes: int, min_bytes: int = 0, max_records: int = MAX_BATCH_RECORDS
    ) -> Iterator[RawBatch]:
        """Yield the records in offset order.

        Where a batch ends depends on the records alone, never on how they arrived, so that two attempts at a range
        write the same files.

        Raises BrokerError if the partition no longer holds what was planned, or Kafka refuses.
        Raises BrokerUnavailableError if nothing comes in time.
        Raises InterruptedTransferError if `should_stop` said so.
        """
        pending = self._pending = RecordAccumulator(batchsize, batch_bytes, min_bytes, max_records)
        try:
            yield from self._read(pending, min(_POLL_BYTES, batch_bytes))
        finally:
            self.close()
        with self._waiting():
            self._check_topic_id()
            self._check_again()
        yield from pending.rest()

    def close(self) -> None:
        """Give others the room that it had on the line; repeatable."""
        self._line.leave(self)

    def _read(self, pending: RecordAccumulator, max_bytes: int) -> Iterator[RawBatch]:
        """Read up to the end of the range; yield the batches that are complete."""
        if not self.has_room:
            self.prefetch()
        # The wait for the first turn was no silence of Kafka's.
        self._leave_out(time.monotonic() - self._moved)
        wanted = _POLL_RECORDS // 100  # until their size is known
        while self.position < self._range.end:
            self.check_stop()
            if pause_s := self._line.pause_s(self):
                with self._waiting():
                    self._sleep(pause_s)
                continue
            before = self.position
            count, size = self._take_from(self._queue, pending) if self._queue else self._consume(pending, wanted)
            if count:
                self._take_note(count, size)
                wanted = max(1, min(_POLL_RECORDS, max_bytes * count // max(1, size)))
                for batch in pending.full():
                    if self._queue is not None and self._again is None and not proof.is_given:
                        self._read_again(batch)
                    yield batch
                    del batch  # its memory is that of the next one
                    self.check_stop()  # a batch can take seconds to use
            self._take_statement()
            # The time that it takes to use the records is no silence of Kafka's: so the clock is read only now.
            has_moved = self.position > before
            if has_moved:
                self._moved = self._heard = time.monotonic()
                self._connection.errors.forget()
                self._silence.hear()
            is_in_doubt = self._silence.is_before_the_plan or not has_moved
            if is_in_doubt and (offset := self._silence.look(self.position)) is not None:
                self._begin_again(offset)
            if not has_moved:
                self._look_around()
                self._check_silence()
        self._connection.unassign()
        # Less than a whole fetch says nothing of how long one takes.
        if self._responses and self._taken_bytes >= self._connection.fetch_bytes:
            response_s = self._response_s / self._responses
            self._line.fetched(
                self._connection.fetch_bytes,
                response_s,
                self._connection.expansion,
                self._settings.queue_bytes,
                self._connection.arrived.round_trip_s,
            )

    def _consume(self, pending: RecordAccumulator, wanted: int) -> tuple[int, int]:
        """Take what is there, as messages of confluent-kafka's; returns the number of records and their bytes."""
        messages: Sequence[Message] = ()
        count = min(wanted, self._range.end - self.position)

        def look(timeout_s: float) -> bool | None:
            nonlocal messages
            messages = self._connection.consumer.consume(num_messages=count, timeout=timeout_s)
            return messages[0].error() is None if messages else None

        self._poll(look)
        records = self._account(messages)
        return (len(records), pending.extend(records)) if records else (0, 0)

    def _take_from(self, queue: PartitionQueue, pending: RecordAccumulator) -> tuple[int, int]:
        """Take what is there from the partition's queue; returns the same."""
        # All that callbacks are called for, and errors that are about no partition.
        if self._account(self._connection.consumer.consume(num_messages=_EVENTS, timeout=0)):
            raise BrokerUnavailableError("a record came beside its queue", *self._here)
        if self._poll(queue.wait) is None:
            return 0, 0
        try:
            taken = queue.take(pending, self.position, self._range.end)
        except UnfitQueueError as error:
            raise BrokerUnavailableError(str(error), *self._here) from error
        for start, end in taken.holes:
            self.position = start
            self._skip_to(end)
        self.position = taken.position
        if (event := taken.event) is not None and self.position < self._range.end:
            if event.is_of_topic:
                self._connection.errors(event.error)
            else:
                self._on_event(event.error, event.offset)
        return taken.records, taken.size

    def _poll(self, look: Callable[[float], bool | None]) -> bool | None:
        """Look what is there; where nothing is, wait for a moment.

        `look`: takes the seconds that it may wait; returns whether there is a record, and None where nothing is there.
        """
        found = look(0)
        came = time.monotonic()
        if found is None:
            if self._waits_since is None:
                self._waits_since = came
            with self._waiting():
                asked = time.monotonic()
                found = look(_POLL_S)
                came = time.monotonic()
            # The time that this thread waits for its turn is no silence of Kafka's, nor is the time that the machine
            # has slept.
            slept = came - asked - _POLL_S
            kept = time.monotonic() - came + (slept if slept > _ASLEEP_S else 0)
            self._leave_out(kept)
            if found is None:
                self._waits_since += kept
        if found and self._waits_since is not None:
            self._note_response(came - self._waits_since)
            self._waits_since = None
        return found

    @property
    def join_seconds(self) -> float:
        """Seconds spent on joining values, of those that the batches took."""
        return self._pending.join_seconds

    @property
    def received(self) -> int:
        """Records that have arrived, consumed or not; some may lie beyond the end of the range."""
        # librdkafka takes for a record each statement that nobody has heard yet, two a second while a rate has this
        # reader pause. The bytes that it holds it counts right.
        ahead_bytes = self.received_bytes - self._taken_bytes
        size = self._taken_bytes / self._taken if self._taken else self._settings.record_bytes
        most = int(ahead_bytes / size) if size else ahead_bytes
        return self._taken + max(0, min(most, self._stated.records - self._taken_before[0] - self._taken))

    @property
    def received_bytes(self) -> int:
        """Bytes of the keys and values of these records."""
        return max(self._taken_bytes, self._stated.record_bytes - self._taken_before[1])

    @property
    def quiet_s(self) -> float:
        """Seconds since Kafka last sent something for this range."""
        return time.monotonic() - self._heard

    @property
    def throttled_s(self) -> float:
        """Seconds for which a quota of the brokers' has made it wait."""
        return self._stated.throttled_s - self._before.throttled_s

    @property
    def expansion(self) -> float:
        """How many times as large as on the line records are."""
        return self._connection.expansion

    def _begin(self) -> None:
        self.has_room = True
        self._taken_before = (self._connection.taken, self._connection.taken_bytes)
        self._before = self._stated = self._connection.arrived
        self._heard = self._moved = time.monotonic()
        self._silence = Silence(self._connection, self._topic, self._range)
        self._assign()

    def _note_response(self, waited_s: float) -> None:
        is_first = not self._connection.taken_bytes
        self._line.arrived(waited_s, is_first, self._connection.arrived.round_trip_s, self)
        if not is_first:  # that one was connected for
            self._responses += 1
            self._response_s += waited_s

    def _take_note(self, count: int, size: int) -> None:
        self._taken, self._taken_bytes = self._taken + count, self._taken_bytes + size
        self._connection.taken += count
        self._connection.taken_bytes += size
        # Each byte that came over the line was several of records, where they are compressed.
        self._line.take(self, int(size / max(1.0, self._connection.expansion)))

    def _take_statement(self) -> None:
        """Take what librdkafka has stated since the last time."""
        stated = self._connection.arrived
        if stated is self._stated:
            return
        now, before, self._stated = time.monotonic(), self._stated, stated
        # Smaller ones hold no records: an empty fetch, where the brokers are, what became of a question.
        if stated.wire_bytes - before.wire_bytes >= _EMPTY_BYTES:
            self._heard = now
        # Records of aborted transactions come and are not delivered: what moves is where librdkafka fetches next.
        place = self._topic, self._range.partition
        if 0 <= before.next_offsets.get(place, -1) < stated.next_offsets.get(place, -1):
            self._heard = self._moved = now
            self._silence.hear()
        self._line.settle(self, stated.wire_bytes - self._before.wire_bytes)
        crowded_s = _CROWDED_LATER_S if self._connection.taken_bytes else _CROWDED_S
        if stated.timeouts > before.timeouts and self._silence.answered_s > crowded_s:
            self._line.crowded()
            words = "Kafka answers, but no records came within a minute: too many are asked for at once for this line"
            raise CrowdedLineError(f"{words}; {self._what_came()}", *self._here)

    def _look_around(self) -> None:
        """Do what has to be done several times a second while nothing is there."""
        self.check_stop()
        self._on_wait()

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._look_around()
            time.sleep(min(left, _POLL_S))
        # It is this side that has not asked.
        self._heard = self._moved = time.monotonic()
        self._silence.rest(seconds)

    def _leave_out(self, seconds: float) -> None:
        """Let time in which this side did not look be no silence of Kafka's."""
        self._heard, self._moved = self._heard + seconds, self._moved + seconds
        self._silence.rest(seconds)

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
            return not is_of_groups(message)
        partitions = {self._range.partition} if message.error() is None else {self._range.partition, -1}
        return message.topic() == self._topic and message.partition() in partitions

    def check_stop(self) -> None:
        """Raise an InterruptedTransferError if the range is no longer wanted."""
        if self._should_stop():
            raise InterruptedTransferError("stopped", *self._here)

    def _assign(self) -> None:
        self._queue = self._connection.assign(
            self._topic, self._range.partition, self.position, self._size_bytes >= QUEUE_BYTES
        )
        self._silence.is_off_the_log = False

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
            # When it was planned, the partition went on: it was truncated or made anew, even if records come again.
            self._silence.is_before_the_plan = self.position < self._range.end
        elif code in _OFF_THE_LOG:
            self._silence.is_off_the_log = True
        elif code == KafkaError._LOG_TRUNCATION:
            words = f"use another {parameter('outdir')}, or {parameter('restart', True)}"
            raise BrokerError(f"truncated by an unclean leader election: {words}", *self._here)
        elif code in _DAMAGED:
            words = f"what came was damaged on its way, or is on the broker's disk ({in_words(error)})"
            raise BrokerUnavailableError(words, *self._here)
        elif is_transient(error) or code in _NO_TOPIC:  # a topic that is gone is looked for before it is believed
            log.info("%s[%d]: %s", self._topic, self._range.partition, error.str())
        else:
            raise broker_error(error, *self._here)

    def _begin_again(self, offset: int) -> None:
        """Read from an offset on; what retention has removed before it is lost."""
        if offset > self.position:
            self.lost.append((self.position, offset))
            log.warning("%s[%d] at offset %d: retention removed all before %d", *self._here, offset)
            self.position = offset
        self._assign()

    def _check_silence(self) -> None:
        """Fail after too much silence, and earlier where the broker has said that it is final."""
        errors, silence_s = self._connection.errors, time.monotonic() - self._moved
        if errors.fatal is not None and silence_s > _REFUSED_S:
            raise broker_error(errors.fatal, *self._here)
        limit_s = self._settings.reconnect_timeout_s
        is_coming = errors.last is None and self._silence.unanswered_s < max(limit_s, _ASKED_S)
        if silence_s > (max(limit_s, _OVERDUE_S) if is_coming else limit_s):
            reason = in_words(errors.last) if errors.last is not None else "no error was reported"
            words = f"nothing came for {limit_s:g} s ({reason}); {self._what_came()}"
            raise BrokerUnavailableError(f"{words}; {parameter('reconnect_timeout')} waits for longer", *self._here)

    def _what_came(self) -> str:
        """Say what the line did."""
        stated, before = self._connection.arrived, self._before
        connections = max(1, stated.connections - before.connections)
        came = f"{(stated.wire_bytes - before.wire_bytes) / 1e6:,.1f} MB had arrived on "
        came += "a connection" if connections == 1 else f"{connections:,} connections"
        return f"{came} in {stated.responses - before.responses:,} responses"

    def _check_topic_id(self) -> None:
        """Make sure at the end that it was the same topic all along: an id never comes back.

        Everything has arrived by now, so a Kafka that is away is waited for here as well.
        """
        if self._topic_id == UNKNOWN_ID:
            return
        began = time.monotonic()
        while True:
            try:
                now = self._answer(in_background(lambda: ask_topic_id(self._connection.admin, self._topic)))
                break
            except BrokerUnavailableError:
                if time.monotonic() - began > self._settings.reconnect_timeout_s:
                    raise
                self._look_around()
                time.sleep(_POLL_S)
        if now != self._topic_id:
            raise BrokerError("the topic was deleted and made again while it was read", *self._here)

    def _read_again(self, batch: RawBatch) -> None:
        """Begin to consume the first record of a batch from a queue once more, as a message of confluent-kafka's."""
        offset = int(batch.offsets[0])
        sample = offset, int(batch.timestamps_ms[0]), batch.value(0), batch.keys[0]
        one = OffsetRange(self._range.partition, offset, offset + 1)

        def read() -> bool | None:
            with open_glimpse(self._settings) as connection:
                found = [*RangeReader(connection, self._topic, one, self._should_stop).batches(1, 1)]
            same = [
                sample == (int(each.offsets[0]), int(each.timestamps_ms[0]), each.value(0), each.keys[0])
                for each in found
            ]
            return same[0] if same else None  # Kafka may have removed it meanwhile

        self._again = in_background(read)

    def _check_again(self) -> None:
        """Make sure at the end that records from a queue are what this takes them for."""
        if self._again is None:
            return
        is_same = self._answer(self._again)
        proof.is_given, proof.is_refuted = proof.is_given or bool(is_same), is_same is False
        if proof.is_refuted:
            raise BrokerUnavailableError("records from librdkafka's queue are not those that it delivers", *self._here)

    def _answer(self, asked: Future[Answer]) -> Answer:
        while True:
            try:
                return asked.result(timeout=_POLL_S)
            except TimeoutError:
                self._look_around()

    @property
    def _here(self) -> tuple[str, int, int]:
        return self._topic, self._range.partition, self.position
