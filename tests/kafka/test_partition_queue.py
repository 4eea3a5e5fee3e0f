"""Records that are copied from librdkafka's queue are those that it delivers, in the same batches, or are not taken."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fink_dask.batches import RawBatch
from fink_dask.errors import BrokerUnavailableError
from fink_dask.kafka import confluent, copying, partition_queue
from fink_dask.kafka import reader as reader_module
from fink_dask.kafka.connection import open_connection
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.kafka.partition_queue import PartitionQueue, UnfitQueueError, proof, take_queue
from fink_dask.kafka.reader import RangeReader
from fink_dask.settings import KafkaSettings
from tests.harness.producer import produce
from tests.harness.topics import create_topic
from tests.kafka.test_pending import BOUNDS, RECORDS, Bounds, Record, batches_of, contents, records_of


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    """Let no test's time limit be that of a compiler."""
    copying.load()


class Message(ctypes.Structure):
    """What librdkafka's header calls `rd_kafka_message_t`."""

    _fields_ = (
        ("err", ctypes.c_int),
        ("rkt", ctypes.c_void_p),
        ("partition", ctypes.c_int32),
        ("payload", ctypes.c_char_p),
        ("len", ctypes.c_size_t),
        ("key", ctypes.c_char_p),
        ("key_len", ctypes.c_size_t),
        ("offset", ctypes.c_int64),
        ("private", ctypes.c_void_p),
    )


_One = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)
_Two = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
_Nothing = ctypes.CFUNCTYPE(None, ctypes.c_int64)


class Queue:
    """A queue of events in Python, with functions that are called as librdkafka's are."""

    def __init__(self) -> None:
        self.waiting: list[Message] = []
        self.alive: dict[int, Message] = {}
        self.poll, self.message_of = _Two(self._poll), _One(lambda event: event)
        self.timestamp = _Two(lambda message, _: self.alive[message].offset * 10)
        self.destroy = _Nothing(lambda event: self.alive.pop(event) and None)

    def put(self, record: Record, partition: int = 3, error: int = 0) -> None:
        value, key = record.text, record.name
        sizes = len(value or b""), len(key or b"")
        self.waiting.append(Message(error, None, partition, value, sizes[0], key, sizes[1], record.where, None))

    def _poll(self, queue: int, timeout_ms: int) -> int:
        if not self.waiting:
            return 0
        message = self.waiting.pop(0)
        self.alive[ctypes.addressof(message)] = message
        return ctypes.addressof(message)

    def partition_queue(self, client: int, topic: bytes, partition: int) -> int:
        return 1


def taken_of(bounds: Bounds, records: list[Record], cuts: list[int]) -> tuple[list[RawBatch], list[tuple[int, int]]]:
    """Have records arrive in the queue piece by piece, and take every batch as soon as it is there."""
    library = Queue()
    queue = PartitionQueue(library, 0, "topic", 3)  # type: ignore[arg-type]
    pending, batches, holes = bounds.pending(), list[RawBatch](), list[tuple[int, int]]()
    start, end = 100, records[-1].where + 2 if records else 100
    places = [0, *sorted(cut % (len(records) + 1) for cut in cuts), len(records)]
    for first, last in pairwise(places):
        for record in records[first:last]:
            library.put(record)
        while queue.wait(0) is not None:
            taken = queue.take(pending, start, end)
            assert taken.event is None
            start, holes = taken.position, holes + taken.holes
            batches += pending.full()
    assert not library.alive, "what is not destroyed takes memory for ever"
    return [*batches, *pending.rest()], holes


@given(RECORDS, BOUNDS, st.lists(st.integers(0, 80), max_size=12))
@example([(3, 1, 1)] * 9, Bounds(2, 100, 4, 40), [1, 2, 3, 4, 5, 6, 7, 8])
@example([(None, None, 1), (0, 0, 1), (0, None, 1), (None, 0, 1)] * 9, Bounds(5, 100, 4, 5), [1, 6])
@example([(300, 9, 1), (1, 9, 1), (300, 9, 1)], Bounds(2, 50, 0, 40), [1, 2])
def test_records_make_the_same_batches_whichever_way_they_come(
    sizes: list[tuple[int | None, int | None, int]], bounds: Bounds, cuts: list[int]
) -> None:
    records = records_of(sizes)
    batches, holes = taken_of(bounds, records, cuts)
    assert contents(batches) == contents(batches_of(bounds, records, []))
    gaps = [(end + 1, start) for end, start in pairwise([99, *(record.where for record in records)]) if start > end + 1]
    assert holes == gaps


def test_many_keys_and_many_holes_at_once_are_all_there() -> None:
    records = [Record(100 + 3 * number, b"v" * 10, b"%d" % number * 90) for number in range(2500)]
    bounds = Bounds(10**6, 2**30, 0, 10**6)
    batches, holes = taken_of(bounds, records, [])
    assert contents(batches) == contents(batches_of(bounds, records, []))
    assert len(holes) == 2499


@pytest.mark.parametrize(("partition", "error", "size"), [(2, 0, 1), (3, 5, 1), (3, 0, -1)])
def test_what_is_no_record_of_the_partition_is_not_taken_for_one(
    partition: int, error: int, size: int, trust: None
) -> None:
    library = Queue()
    queue, pending = PartitionQueue(library, 0, "topic", 3), Bounds(10, 100, 0, 10).pending()  # type: ignore[arg-type]
    library.put(Record(100, b"x", None), partition, error)
    library.waiting[0].len = size
    with pytest.raises(UnfitQueueError):
        queue.take(pending, 100, 200)
    assert not list(pending.rest())
    assert proof.is_refuted


@pytest.fixture
def trust(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Know of nothing that other tests have found out, and leave nothing behind."""
    monkeypatch.setattr(proof, "is_given", False)
    monkeypatch.setattr(proof, "is_refuted", False)
    monkeypatch.setattr(reader_module, "QUEUE_BYTES", 1)
    partition_queue._library.cache_clear()
    yield
    partition_queue._library.cache_clear()


def read(bootstrap: str, topic: str, size_bytes: int = 1) -> tuple[list[bytes | None], bool]:
    """Read ten records; returns them, and whether they came from a queue."""
    with open_connection(KafkaSettings(bootstrap, reconnect_timeout_s=20)) as connection:
        reader = RangeReader(connection, topic, OffsetRange(0, 0, 10), lambda: False, size_bytes=size_bytes)
        batches = list(reader.batches(1, 1))
        return [batch.value(0) for batch in batches], reader._queue is not None


def test_the_first_range_of_a_process_is_checked_against_what_librdkafka_delivers(
    kafka: Any, topic_name: str, trust: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = [b"alert %d" % number for number in range(10)]
    for name in (topic_name, f"{topic_name}_other"):
        create_topic(kafka.bootstrap_servers, name, partitions=1)
    produce(kafka.bootstrap_servers, topic_name, values)
    produce(kafka.bootstrap_servers, f"{topic_name}_other", values[::-1])

    def other(connection: Any, topic: str, *more: Any) -> RangeReader:
        return RangeReader(connection, f"{topic}_other", *more)

    with monkeypatch.context() as patched:
        patched.setattr(reader_module, "RangeReader", other)
        with pytest.raises(BrokerUnavailableError):
            read(kafka.bootstrap_servers, topic_name)
    assert read(kafka.bootstrap_servers, topic_name) == (values, False)
    proof.is_refuted = False
    assert read(kafka.bootstrap_servers, topic_name) == (values, True)
    assert proof.is_given


@pytest.mark.parametrize("version", ["1.9.2", "3.0.0", "2.99.0"])
def test_another_librdkafka_than_those_that_were_tried_delivers_records_as_ever(
    kafka: Any, topic_name: str, trust: None, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, partitions=1)
    values = [b"alert %d" % number for number in range(10)]
    produce(kafka.bootstrap_servers, topic_name, values)
    monkeypatch.setattr(partition_queue, "librdkafka_version", lambda: version)
    assert read(kafka.bootstrap_servers, topic_name) == (values, False)


def test_a_version_that_is_told_as_a_text_alone_is_the_same(trust: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """confluent-kafka 2.12.0 leaves the number out."""
    said = confluent.librdkafka_version()
    monkeypatch.setattr(confluent, "libversion", lambda: said)
    assert confluent.librdkafka_version() == said
    assert partition_queue._library() is not None


def test_a_library_without_one_of_the_functions_is_not_used(trust: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition_queue, "client_library", lambda: None)  # the program itself
    assert partition_queue._library() is None


class _Changed:
    """An object with something else where the client's address is expected."""

    __slots__ = ("first",)

    def __init__(self, first: object) -> None:
        self.first = first


@pytest.mark.parametrize("consumer", [_Changed(1), _Changed("text"), SimpleNamespace(), object()])
def test_an_object_that_keeps_its_client_elsewhere_is_not_mistaken(consumer: object, trust: None) -> None:
    assert take_queue(consumer, "topic", 0) is None


def test_a_small_range_does_not_load_what_only_a_large_one_gains_from(kafka: Any, topic_name: str, trust: None) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, partitions=1)
    produce(kafka.bootstrap_servers, topic_name, [b"alert"] * 10)
    assert read(kafka.bootstrap_servers, topic_name, 0) == ([b"alert"] * 10, False)


def test_a_connection_that_was_closed_in_the_midst_of_a_range_is_an_error_and_not_the_end_of_the_process(
    kafka: Any, topic_name: str, trust: None
) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, partitions=1)
    produce(kafka.bootstrap_servers, topic_name, [b"alert"] * 10)
    with open_connection(KafkaSettings(kafka.bootstrap_servers, reconnect_timeout_s=20)) as connection:
        reader = RangeReader(connection, topic_name, OffsetRange(0, 0, 10), lambda: False, size_bytes=1)
        batches = reader.batches(1, 1)
        next(batches)
    with pytest.raises(RuntimeError):
        list(batches)
    for use in (connection.unassign, lambda: connection.assign(topic_name, 0, 0, from_queue=True)):
        with pytest.raises(RuntimeError):
            use()
