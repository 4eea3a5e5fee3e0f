"""Measure the line to Kafka: how long a question takes, and how fast records come, with a few seconds of reading."""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from fink_dask.errors import BrokerError
from fink_dask.kafka.admin import Admin, in_background
from fink_dask.kafka.confluent import AdminClient, OffsetSpec, TopicPartition, is_transient
from fink_dask.kafka.connection import Connection, open_connection
from fink_dask.kafka.inspect import Sample
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.units import rate_words

#: What is read at most, beside what has been asked for by then, and for how long.
PROBE_BYTES = 6 * 2**20
PROBE_S = 3.0
#: Questions whose round trip is measured; fewer where they take longer than this together.
_QUESTIONS, _QUESTIONS_S = 5, 1.5
#: What is asked for at once: little, as a slow line has to bring a whole response in time; and more as long as most of
#: the time that a response takes is distance. Beside it, how many responses to wait for.
_FETCHES = ((2**16, 4), (2**19, 4), (2**21, 4))
#: The part of a response's time that may be distance, if its bytes are to tell the rate.
_DISTANCE = 0.5
#: A first response is waited for longer, as without it nothing is known. It has the connection's round trips in it, so
#: it tells something only where it took much longer than those.
_FIRST_S, _FIRST_TRIPS, _FIRST_TELLS_S = 10.0, 6, 0.2
#: It is one batch at least, and Kafka takes no larger one unless it is told to.
_BATCH_BYTES = 2**20
#: What took less time may have waited for this program.
_TELLS_S = 0.2
#: More records than a response has.
_MANY = 100_000
#: How long a statement of what has arrived is waited for.
_STATED_S = 1.0
_POLL_S = 0.02
#: A look at a few records tells something of the line where it took so many seconds: librdkafka counts bytes twice a
#: second, and connecting takes some round trips.
_SAMPLE_TELLS_S = 2.0
#: A line that carries more than this is no reason to wait: 100 Mbit/s.
_FAST_BYTES_PER_S = 12.5e6


@dataclass(frozen=True)
class LineSpeed:
    """What is known of the line to Kafka."""

    #: How long a small question takes.
    round_trip_s: float | None = None
    #: What comes over one connection, as it comes: compressed where the topic is.
    bytes_per_s: float | None = None
    #: Whether it may carry more than that: distance, and not bytes, was what took the time.
    is_least: bool = False
    #: Bytes of records for a byte on the line; 1 where they are not compressed, or that is not known.
    expansion: float = 1.0
    #: Less than this comes, where nothing has come in time.
    slower_than: float | None = None
    #: Whether it was not measured now, but in an earlier run.
    is_of_before: bool = False

    @property
    def words(self) -> str:
        """Say it: "round trip 42 ms, 8.1 Mbit/s"."""
        said = []
        if self.round_trip_s is not None:
            trip_ms = 1000 * self.round_trip_s
            said.append(f"round trip {trip_ms:.{0 if trip_ms >= 10 else 1}f} ms")
        if self.bytes_per_s is not None:
            # What distance alone has bounded is no figure of a line: at most, that it is no slow one.
            is_fast = self.is_least and self.bytes_per_s > _FAST_BYTES_PER_S
            said.append("fast" if is_fast else f"{'at least ' * self.is_least}{rate_words(self.bytes_per_s)}")
        elif self.slower_than is not None:
            said.append(f"slower than {rate_words(self.slower_than)}")
        return ", ".join(said) or "not known, as nothing came in time"


UNKNOWN_LINE = LineSpeed()


def measure_line(admin: Admin, topic: str | None = None, offset_range: OffsetRange | None = None) -> LineSpeed:
    """Ask a few small questions, and read some of a range, over one connection.

    `range_`: what to read of it: up to `PROBE_BYTES`, for about `PROBE_S` seconds.
    Returns: what is known then; a broker that does not answer makes it unknown.
    """
    try:
        trip_s = _round_trip(admin, topic)
    except BrokerError:
        return UNKNOWN_LINE
    known = LineSpeed(trip_s)
    if topic is None or offset_range is None:
        return known
    left, position, deadline = PROBE_BYTES, offset_range.start, time.monotonic() + PROBE_S
    if admin.settings.limit_rate is not None:
        left = min(left, int(PROBE_S * admin.settings.limit_rate))
    for fetch_bytes, responses in _FETCHES:
        # A queue that fills up would be waited for; what is in it at the end is thrown away.
        settings = replace(admin.settings, queue_bytes=4 * fetch_bytes)
        with open_connection(settings, fetch_bytes=fetch_bytes, admin=admin) as connection:
            reading = _Reading(connection, topic, replace(offset_range, start=position))
            reading.read(min(left, responses * fetch_bytes), deadline)
            known = reading.tell(known)
            left, position = left - reading.read_bytes, reading.position
            is_known = known.bytes_per_s is not None and not known.is_least and reading.seconds > _TELLS_S
            is_over = left <= 0 or position >= offset_range.end or time.monotonic() > deadline
            if is_known or is_over or fetch_bytes == _FETCHES[-1][0]:
                return reading.settle(known)
    return known


def line_of(sample: Sample) -> LineSpeed:
    """Say what a look at a few records tells of the line: something only where it took long for its bytes.

    The time has connecting in it, and a busy machine, and the bytes are counted late: the line carries at least that.
    """
    if sample.seconds < _SAMPLE_TELLS_S or not sample.wire_bytes:
        return UNKNOWN_LINE
    return LineSpeed(bytes_per_s=sample.wire_bytes / sample.seconds, is_least=True)


def _round_trip(admin: Admin, topic: str | None) -> float:
    """Return the median time of some small questions, after one that may have to connect."""
    timeout_s = admin.settings.request_timeout_s

    def ask(client: AdminClient) -> Future[Any]:
        if topic is None:
            return in_background(lambda: client.list_topics(timeout=timeout_s))
        # Not the list of this topic, which would make some brokers create it if it was deleted a moment before.
        place = TopicPartition(topic, 0)
        answer: Future[Any] = client.list_offsets({place: OffsetSpec.latest()}, request_timeout=timeout_s)[place]
        return answer

    def question() -> float:
        began = time.monotonic()
        admin.ask(ask, topic)
        return time.monotonic() - began

    question()
    took: list[float] = []
    while len(took) < _QUESTIONS and sum(took) < _QUESTIONS_S:
        took.append(question())
    return median(took)


class _Reading:
    """Reads a range over a connection that is made for it, and remembers when what arrived."""

    def __init__(self, connection: Connection, topic: str, offset_range: OffsetRange) -> None:
        self._connection = connection
        self._consumer = connection.consumer
        self._topic = topic
        self._range = offset_range
        self._began = time.monotonic()
        self._first_s = self._rest_s = 0.0
        #: Those of the first response, and of the others, which come at once each.
        self._first_bytes = self._rest_bytes = self._responses = 0
        self.position = offset_range.start

    @property
    def seconds(self) -> float:
        """How long it took, without connecting where that could be told apart."""
        return self._rest_s or self._first_s

    @property
    def read_bytes(self) -> int:
        """Bytes of all records that were read."""
        return self._first_bytes + self._rest_bytes

    def read(self, most_bytes: int, deadline: float) -> None:
        """Read until so much has come, the time is over, or nothing is left."""
        self._consumer.assign([TopicPartition(self._topic, self._range.partition, self.position)])
        # A single response may be larger than all that was asked for, and tells little.
        while (self.read_bytes < most_bytes or not self._rest_bytes) and self.position < self._range.end:
            if time.monotonic() > (deadline if self._first_bytes else self._began + _FIRST_S):
                break
            came = self._take(_POLL_S)
            took_s = time.monotonic() - self._began
            if came and not self._first_bytes:
                self._first_bytes, self._first_s = came, took_s
            elif came:
                self._rest_bytes, self._rest_s = self._rest_bytes + came, took_s - self._first_s
                self._responses += 1

    def tell(self, before: LineSpeed) -> LineSpeed:
        """Say what is known of the line now."""
        if not self._first_bytes:
            is_late = self.position < self._range.end and time.monotonic() > self._began + _FIRST_S
            return replace(before, slower_than=_BATCH_BYTES / _FIRST_S) if is_late else before
        trip_s = before.round_trip_s or 0.0
        if not self._rest_bytes:
            took_s = self._first_s - _FIRST_TRIPS * trip_s
            if took_s < _FIRST_TELLS_S:
                return before
            return replace(before, bytes_per_s=self._first_bytes / took_s)
        response_s = self._rest_s / self._responses
        is_least = trip_s > _DISTANCE * response_s
        seconds = self._rest_s * (1 if is_least else 1 - trip_s / response_s)
        return replace(before, bytes_per_s=self._rest_bytes / max(seconds, 1e-6), is_least=is_least)

    def _take(self, timeout_s: float) -> int:
        """Take what is there; return the bytes of its records."""
        came = 0
        first = self._consumer.poll(timeout_s)  # which returns at once with what comes, unlike a wait for many
        found = [] if first is None else [first, *self._consumer.consume(num_messages=_MANY, timeout=0)]
        for message in found:
            error = message.error()
            if error is None:
                came += len(message.value() or b"") + len(message.key() or b"")
                self.position = message.offset() + 1
            elif not is_transient(error):
                self.position = self._range.end  # the partition's end, or the offset is gone
        return came

    def settle(self, known: LineSpeed) -> LineSpeed:
        """Stop reading, and find out from what librdkafka then says how many bytes have come over the line."""
        self._consumer.unassign()
        stated = self._connection.arrived
        until = (now := time.monotonic()) + _STATED_S
        while now < until:
            self._consumer.poll(_POLL_S)
            now = time.monotonic()
            if self._connection.arrived is not stated:
                stated = self._connection.arrived
                if now > until - _STATED_S / 2:  # and not what was said before the last response came
                    break
        expansion = self.read_bytes / stated.wire_bytes if stated.wire_bytes else 1.0
        # Less than 1 is what was asked for in vain: a response may end within a batch, which then comes again.
        if known.bytes_per_s is None or expansion < 1:
            return known
        return replace(known, bytes_per_s=known.bytes_per_s / expansion, expansion=expansion)
