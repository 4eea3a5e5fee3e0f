"""What a reader believes of what librdkafka says, and what it takes for Kafka's silence."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from types import SimpleNamespace
from typing import Any

import pytest

from fink_dask.errors import BrokerError, BrokerUnavailableError, CrowdedLineError, InterruptedTransferError
from fink_dask.kafka.confluent import Errors, KafkaError
from fink_dask.kafka.connection import Arrived, open_connection
from fink_dask.kafka.line import Line
from fink_dask.kafka.offsets import OffsetRange, Watermarks
from fink_dask.kafka.reader import RangeReader
from fink_dask.kafka.records import RecordAccumulator
from fink_dask.settings import KafkaSettings
from tests.harness.oracle import wait_for
from tests.harness.producer import produce
from tests.harness.topics import create_topic, delete_topic


@dataclass
class Said:
    """A message of librdkafka's, as far as a reader looks at it."""

    offset_: int | None
    topic_: str | None = "topic"
    partition_: int = 3
    error_: KafkaError | None = None

    def offset(self) -> int | None:
        return self.offset_

    def topic(self) -> str | None:
        return self.topic_

    def partition(self) -> int:
        return self.partition_

    def error(self) -> KafkaError | None:
        return self.error_

    def value(self) -> bytes:
        return b"alert"

    def key(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 1, 0


def reader(line: Line | None = None) -> RangeReader:
    connection: Any = SimpleNamespace(
        arrived=Arrived(), taken=0, taken_bytes=0, settings=KafkaSettings("127.0.0.1:1"), expansion=1.0, admin=None
    )
    return RangeReader(connection, "topic", OffsetRange(3, 100, 200), lambda: False, line=line)


END = KafkaError(KafkaError._PARTITION_EOF)


@pytest.mark.parametrize(("topic", "partition"), [("topic", 2), ("another", 3)])
def test_the_end_of_another_partition_makes_no_hole_here(topic: str, partition: int) -> None:
    ranges = reader()
    assert ranges._account([Said(9999, topic, partition, END)]) == []
    assert (ranges.position, ranges.holes) == (100, [])


def test_the_end_of_this_partition_makes_a_hole_of_what_is_left() -> None:
    ranges = reader()
    assert ranges._account([Said(100), Said(9999, error_=END)]) != []
    assert (ranges.position, ranges.holes) == (200, [(101, 200)])


@pytest.mark.parametrize(
    ("offsets", "taken"),
    [
        ([100, 101, 102], [100, 101, 102]),
        ([100, 100, 102], [100, 102]),
        ([99, 100, 101], [100, 101]),
        ([100, 103, 104], [100, 103, 104]),
        ([198, 199, 200, 201], [198, 199]),
    ],
)
def test_each_offset_is_taken_once_and_gaps_are_holes(offsets: list[int], taken: list[int]) -> None:
    ranges = reader()
    records = ranges._account([Said(offset) for offset in offsets])
    assert [record.offset() for record in records] == taken
    held = sum(end - start for start, end in ranges.holes)
    assert held + len(taken) == ranges.position - 100


@pytest.mark.parametrize("place", [0, 1])
def test_an_event_without_an_offset_disturbs_no_record(place: int) -> None:
    ranges, said = reader(), [Said(100), Said(101)]
    said.insert(place, Said(None, None, -1, KafkaError(KafkaError._TRANSPORT)))
    assert [record.offset() for record in ranges._account(said)] == [100, 101]


@pytest.mark.parametrize(("asleep_s", "is_given_up"), [(600.0, False), (0.2, True)])
def test_a_laptop_that_slept_for_longer_than_kafka_may_be_silent_reads_on(
    monkeypatch: pytest.MonkeyPatch, asleep_s: float, is_given_up: bool
) -> None:
    now = 1000.0

    def consume(num_messages: int, timeout: float) -> list[Any]:
        nonlocal now
        now += asleep_s if timeout else 0
        return []

    monkeypatch.setattr("fink_dask.kafka.reader.time.monotonic", lambda: now)
    ranges = reader()
    ranges._connection.consumer = SimpleNamespace(consume=consume)
    ranges._connection.errors = Errors()
    for _ in range(1505):  # at a fifth of a second, longer than the time-out of five minutes
        ranges._consume(RecordAccumulator(10, 2**20, 0, 10), 100)
        if asleep_s > 1:
            break
    with pytest.raises(BrokerUnavailableError) if is_given_up else nullcontext():
        ranges._check_silence()


@pytest.mark.parametrize(
    ("answers_s", "taken_bytes", "is_crowded"),
    [(None, 0, False), (5.0, 0, False), (45.0, 0, True), (59.0, 1000, False), (119.0, 1000, True)],
)
def test_a_response_that_is_given_up_says_that_the_line_is_crowded_only_where_questions_are_answered(
    monkeypatch: pytest.MonkeyPatch, answers_s: float | None, taken_bytes: int, is_crowded: bool
) -> None:
    """A line that is cut for a minute, or a NAT that forgets, is waited for, and what has arrived is kept."""
    now = 1000.0
    monkeypatch.setattr("fink_dask.kafka.reader.time.monotonic", lambda: now)
    line = Line(4)
    ranges = reader(line)
    if answers_s is not None:
        monkeypatch.setattr(ranges._silence, "_ask", lambda: Watermarks(0, 1000))
        now += 131.0 - answers_s
        wait_for(lambda: ranges._silence.look(100) or ranges._silence.answered_s or ranges._silence._answered, "that")
    now = 1131.0
    ranges._connection.taken_bytes = taken_bytes
    ranges._connection.arrived = Arrived(timeouts=1)
    with pytest.raises(CrowdedLineError) if is_crowded else nullcontext():
        ranges._take_statement()
    assert (line.readers == 1) is is_crowded


@pytest.mark.parametrize(
    ("first", "next_offset", "is_given_up"), [(100, 101, False), (100, 100, True), (0, 1, False), (-1, 1, True)]
)
def test_records_that_are_not_delivered_are_no_silence_and_answers_without_records_are(
    monkeypatch: pytest.MonkeyPatch, first: int, next_offset: int, is_given_up: bool
) -> None:
    now = 1000.0
    monkeypatch.setattr("fink_dask.kafka.reader.time.monotonic", lambda: now)
    ranges = reader()
    ranges._connection.errors = Errors()
    place = "topic", 3
    for wire_bytes, offset in ((10_000, first), (20_000, next_offset)):
        now += 200.0  # five minutes is the time-out
        ranges._connection.arrived = Arrived(wire_bytes=wire_bytes, next_offsets={place: offset})
        ranges._take_statement()
    with pytest.raises(BrokerUnavailableError) if is_given_up else nullcontext():
        ranges._check_silence()


class Asked(Line):
    """A line that remembers who asked for what, and who has left."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []
        self.left: list[object] = []

    def wait(self, reader: object, rate: int | None, look: Callable[[], None], asks_bytes: int = 0) -> None:
        super().wait(reader, rate, look, asks_bytes)
        self.asked.append(asks_bytes)

    def leave(self, reader: object) -> None:
        super().leave(reader)
        self.left.append(reader)


def served(line: Line, size_bytes: int = 0, at_once: int = 100) -> tuple[RangeReader, list[bool]]:
    """Make a reader for which everything is there, in pieces, and what stops it."""
    ranges, stop, there = reader(line), [False], iter(range(100, 200))
    ranges._should_stop, ranges._size_bytes = lambda: stop[0], size_bytes
    ranges._connection.fetch_bytes, ranges._connection.errors = 1000, Errors()
    ranges._connection.assign = lambda *place: None
    ranges._connection.unassign = lambda: None
    ranges._connection.consumer = SimpleNamespace(
        consume=lambda num_messages, timeout: [Said(offset) for offset in islice(there, min(at_once, num_messages))],
    )
    return ranges, stop


@pytest.mark.parametrize(("size_bytes", "asked"), [(0, 1000), (300, 300), (5000, 1000)])
def test_a_reader_takes_no_more_of_the_line_than_its_range_has(size_bytes: int, asked: int) -> None:
    line = Asked()
    ranges, _ = served(line, size_bytes)
    assert sum(len(batch) for batch in ranges.batches(10, 2**20)) == 100
    assert line.asked == [asked]
    assert line.left, "others wait for the room of a range that is read"


def test_a_stop_is_obeyed_between_two_batches_that_are_there() -> None:
    ranges, stop = served(Asked())
    batches = ranges.batches(1, 2**20)
    next(batches)
    stop[0] = True
    with pytest.raises(InterruptedTransferError):
        next(batches)


@pytest.mark.parametrize(
    ("silent_s", "unanswered_s", "is_broken", "is_given_up"),
    [
        (10, 1, False, False),  # what was asked for is on its way
        (80, 1, False, True),  # it is overdue
        (10, 10, False, True),
        (10, 1, True, True),
        (4, 4, True, False),
    ],
)
def test_a_line_that_is_broken_is_given_up_as_told_and_one_that_answers_is_not(
    monkeypatch: pytest.MonkeyPatch, silent_s: float, unanswered_s: float, is_broken: bool, is_given_up: bool
) -> None:
    monkeypatch.setattr("fink_dask.kafka.reader.time.monotonic", lambda: 1000.0)
    ranges = reader()
    ranges._settings = KafkaSettings("127.0.0.1:1", reconnect_timeout_s=5)
    ranges._connection.errors = Errors()
    ranges._connection.errors.last = KafkaError(KafkaError._TRANSPORT) if is_broken else None
    ranges._moved, ranges._silence._heard = 1000.0 - silent_s, 1000.0 - unanswered_s
    with pytest.raises(BrokerUnavailableError) if is_given_up else nullcontext():
        ranges._check_silence()


@pytest.mark.parametrize(("silent_s", "is_given_up"), [(5, False), (9, True)])
def test_credentials_that_are_refused_for_long_are_not_tried_for_as_long_as_a_line(
    monkeypatch: pytest.MonkeyPatch, silent_s: float, is_given_up: bool
) -> None:
    monkeypatch.setattr("fink_dask.kafka.reader.time.monotonic", lambda: 1000.0)
    ranges = reader()
    ranges._connection.errors = Errors()
    ranges._connection.errors.fatal = KafkaError(KafkaError._AUTHENTICATION)
    ranges._moved = ranges._silence._heard = 1000.0 - silent_s
    with pytest.raises(BrokerError) if is_given_up else nullcontext():
        ranges._check_silence()


def test_what_has_arrived_is_what_was_consumed_and_what_waits_to_be() -> None:
    ranges = reader()
    ranges._take_note(7, 700)
    assert (ranges.received, ranges.received_bytes) == (7, 700)
    ranges._connection.arrived = Arrived(records=9, record_bytes=900)
    ranges._take_statement()
    assert (ranges.received, ranges.received_bytes) == (9, 900)


@pytest.mark.parametrize(("connections", "words"), [(0, "a connection"), (1, "a connection"), (3, "3 connections")])
def test_a_line_that_had_to_be_connected_again_is_said(connections: int, words: str) -> None:
    ranges = reader()
    ranges._connection.arrived = Arrived(connections=connections)
    assert words in ranges._what_came()


def test_to_wait_for_a_turn_is_no_silence_of_kafkas(kafka: Any) -> None:
    name = f"turns_{uuid.uuid4().hex}"
    create_topic(kafka.bootstrap_servers, name, partitions=1)
    produce(kafka.bootstrap_servers, name, [b"alert"] * 50)
    waits: list[float] = []

    @contextmanager
    def waiting() -> Iterator[None]:
        yield
        waits.append(time.monotonic())
        time.sleep(1.5)  # others have the turn for longer than Kafka may be silent
        if len(waits) == 3:
            produce(kafka.bootstrap_servers, name, [b"late"] * 10)

    settings = KafkaSettings(kafka.bootstrap_servers, reconnect_timeout_s=1.2)
    with open_connection(settings) as connection:
        ranges = RangeReader(connection, name, OffsetRange(0, 0, 60), lambda: False, waiting=waiting)
        assert sum(len(batch) for batch in ranges.batches(10, 2**20)) == 60
    assert len(waits) >= 3
    delete_topic(kafka.bootstrap_servers, name)
