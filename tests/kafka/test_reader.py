"""Every offset of a range comes out once: as a record equal to what was sent, as a hole, or as declared loss."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psutil
import pytest

from fink_dask.batches import RawBatch
from fink_dask.kafka.connection import open_connection
from fink_dask.kafka.offsets import Interval, OffsetRange, merge, total
from fink_dask.kafka.reader import RangeReader
from fink_dask.settings import BATCH_BYTES, KafkaSettings
from tests.harness.kafka import ExternalKafka, KafkaBroker
from tests.harness.producer import Produced, open_transaction, produce, produce_transaction
from tests.harness.topics import PATIENCE_S, create_topic, delete_topic

Kafka = KafkaBroker | ExternalKafka

pytestmark = pytest.mark.usefixtures("way")


@dataclass(frozen=True)
class Reading:
    """What a reader gave and said."""

    batches: list[RawBatch]
    holes: list[Interval]
    lost: list[Interval]
    position: int

    @property
    def offsets(self) -> list[int]:
        return [offset for batch in self.batches for offset in batch.offsets.tolist()]

    @property
    def values(self) -> list[bytes | None]:
        return [value for batch in self.batches for value in map(batch.value, range(len(batch)))]


def read(
    bootstrap: str, topic: str, offset_range: OffsetRange, batchsize: int = 1000, batch_bytes: int = BATCH_BYTES
) -> Reading:
    settings = KafkaSettings(bootstrap, reconnect_timeout_s=20)
    with open_connection(settings) as connection:
        reader = RangeReader(connection, topic, offset_range, lambda: False)
        batches = list(reader.batches(batchsize, batch_bytes))
    reading = Reading(batches, reader.holes, reader.lost, reader.position)
    # The guarantee itself: nothing twice, nothing missing.
    pieces = [(offset, offset + 1) for offset in reading.offsets] + reading.holes + reading.lost
    assert merge(pieces) == [(offset_range.start, offset_range.end)]
    assert total(pieces) == len(offset_range)
    assert reading.offsets == sorted(reading.offsets)
    assert reading.position == offset_range.end
    return reading


def assert_values(reading: Reading, sent: list[Produced]) -> None:
    digests = {record.offset: record.sha256 for record in sent}
    for offset, value in zip(reading.offsets, reading.values, strict=True):
        assert (None if value is None else hashlib.sha256(value).hexdigest()) == digests[offset]


@pytest.fixture(scope="module")
def mixed(kafka: Kafka) -> Iterator[tuple[str, list[Produced]]]:
    """One partition of plain records, transactions committed and aborted, and at its end one that stays open."""
    name, address = f"mixed_{uuid.uuid4().hex}", kafka.bootstrap_servers
    create_topic(address, name, partitions=1)
    sent = produce(address, name, [b"%d" % i for i in range(50)])  # 0 to 49
    sent += produce_transaction(address, name, [b"committed"] * 10, partitions=1)  # 50 to 59, marker 60
    produce_transaction(address, name, [b"aborted"] * 20, commit=False, partitions=1)  # 61 to 80, marker 81
    sent += produce(address, name, [b"between"] * 10)  # 82 to 91
    produce_transaction(address, name, [b"aborted"] * 5, commit=False, partitions=1)  # 92 to 96, marker 97
    sent += produce_transaction(address, name, [b"last"] * 4, partitions=1)  # 98 to 101, marker 102
    transaction = open_transaction(address, name, [b"open"] * 5)  # 103 to 107
    assert [record.offset for record in transaction.records] == list(range(103, 108))
    yield name, sent
    transaction.abort()
    delete_topic(address, name)


@pytest.mark.parametrize(
    ("start", "end", "offsets", "holes"),
    [
        pytest.param(0, 1, [0], [], id="the first record alone"),
        pytest.param(10, 20, [*range(10, 20)], [], id="in the middle"),
        pytest.param(0, 60, [*range(60)], [], id="from the head"),
        pytest.param(50, 61, [*range(50, 60)], [(60, 61)], id="a marker last"),
        pytest.param(60, 61, [], [(60, 61)], id="a marker alone"),
        pytest.param(61, 82, [], [(61, 82)], id="an aborted transaction alone"),
        pytest.param(65, 70, [], [(65, 70)], id="within aborted records"),
        pytest.param(70, 85, [82, 83, 84], [(70, 82)], id="beginning in a hole"),
        pytest.param(90, 95, [90, 91], [(92, 95)], id="ending in a hole"),
        pytest.param(75, 94, [*range(82, 92)], [(75, 82), (92, 94)], id="beginning and ending in a hole"),
        pytest.param(98, 103, [98, 99, 100, 101], [(102, 103)], id="up to the last stable offset"),
        pytest.param(102, 103, [], [(102, 103)], id="a marker at the last stable offset"),
        pytest.param(
            0, 103, [*range(60), *range(82, 92), *range(98, 102)], [(60, 82), (92, 98), (102, 103)], id="everything"
        ),
    ],
)
def test_no_alert_is_lost_or_invented_around_transactions(
    kafka: Kafka, mixed: tuple[str, list[Produced]], start: int, end: int, offsets: list[int], holes: list[Interval]
) -> None:
    topic, sent = mixed
    reading = read(kafka.bootstrap_servers, topic, OffsetRange(0, start, end))
    assert reading.offsets == offsets
    assert reading.holes == holes
    assert reading.lost == []
    assert_values(reading, sent)


@pytest.mark.parametrize("batchsize", [1, 7, 1000, 1_000_000])
def test_two_attempts_at_a_range_make_the_same_batches(
    kafka: Kafka, mixed: tuple[str, list[Produced]], batchsize: int
) -> None:
    reading = read(kafka.bootstrap_servers, mixed[0], OffsetRange(0, 0, 103), batchsize)
    flat = reading.offsets
    expected = [flat[i : i + batchsize] for i in range(0, len(flat), batchsize)]
    assert [batch.offsets.tolist() for batch in reading.batches] == expected


@pytest.mark.parametrize(
    ("batchsize", "batch_bytes", "counts"),
    [(1000, 30, [3, 2, 1, 1, 2]), (2, 30, [2, 2, 1, 1, 1, 2]), (1000, 1, [1] * 9), (1000, 10_000, [9])],
)
def test_no_batch_takes_more_memory_than_its_cap_unless_one_alert_does(
    kafka: Kafka, topic_name: str, batchsize: int, batch_bytes: int, counts: list[int]
) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, partitions=1)
    values = [bytes(10)] * 3 + [bytes(15)] * 2 + [bytes(31), bytes(25), bytes(20), bytes(10)]
    produce(kafka.bootstrap_servers, topic_name, values)
    reading = read(kafka.bootstrap_servers, topic_name, OffsetRange(0, 0, len(values)), batchsize, batch_bytes)
    assert [len(batch) for batch in reading.batches] == counts
    assert reading.values == values


def test_keys_count_towards_a_batch_for_a_stream_that_carries_its_schema_in_each_key(
    kafka: Kafka, topic_name: str
) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, partitions=1)
    produce(kafka.bootstrap_servers, topic_name, [b"alert"] * 10, keys=[bytes(1000)] * 10)
    reading = read(kafka.bootstrap_servers, topic_name, OffsetRange(0, 0, 10), batch_bytes=3 * 1005)
    assert [len(batch) for batch in reading.batches] == [3, 3, 3, 1]


def test_alerts_larger_than_a_fetch_arrive(kafka: Kafka, topic_name: str) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, partitions=1)
    values = [b"a" * 5_000_000, b"small", b"b" * 5_000_001, b"c" * 12_000_000]
    sent = produce(kafka.bootstrap_servers, topic_name, values)
    reading = read(kafka.bootstrap_servers, topic_name, OffsetRange(0, 0, 4), batch_bytes=6_000_000)
    assert_values(reading, sent)
    assert [len(batch) for batch in reading.batches] == [2, 1, 1]


def test_empty_and_missing_values_and_keys_reach_the_quarantine_untouched(kafka: Kafka, topic_name: str) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, partitions=1)
    values, keys = [None, b"", b"alert", None], [b"key", None, b"", None]
    before_ms = int(time.time() * 1000) - 60_000
    produce(kafka.bootstrap_servers, topic_name, values, keys=keys)
    (batch,) = read(kafka.bootstrap_servers, topic_name, OffsetRange(0, 0, 4)).batches
    assert [batch.value(index) for index in range(4)] == values
    assert batch.keys == keys
    assert batch.raw_bytes == 5
    assert all(stamp > before_ms for stamp in batch.timestamps_ms.tolist())


def test_who_has_waited_long_for_a_turn_does_not_take_that_for_silence_of_kafkas(
    kafka: Kafka, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, partitions=1)
    with open_connection(KafkaSettings(kafka.bootstrap_servers, reconnect_timeout_s=PATIENCE_S)) as connection:
        reader = RangeReader(connection, topic_name, OffsetRange(0, 0, 10), lambda: False)
        reader.prefetch()
        now = time.monotonic
        monkeypatch.setattr(time, "monotonic", lambda: now() + 2 * PATIENCE_S)
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(next, reader.batches(1000, BATCH_BYTES))
            produce(kafka.bootstrap_servers, topic_name, [b"late"] * 10)
            assert len(first.result(PATIENCE_S)) == 10


def test_readers_one_after_the_other_leave_no_threads_and_files_behind(
    kafka: Kafka, mixed: tuple[str, list[Produced]]
) -> None:
    def held() -> tuple[int, int]:
        process = psutil.Process()
        return process.num_threads(), process.num_fds()

    read(kafka.bootstrap_servers, mixed[0], OffsetRange(0, 0, 103))
    threads, files = held()
    for _ in range(10):
        read(kafka.bootstrap_servers, mixed[0], OffsetRange(0, 0, 103))
    deadline = time.monotonic() + 10
    while held()[0] > threads or held()[1] > files:
        assert time.monotonic() < deadline, f"threads and files were {threads, files}, and now are {held()}"
        time.sleep(0.05)


def test_what_librdkafka_says_while_a_rate_has_a_reader_pause_is_not_counted_as_records(
    kafka: Kafka, topic_name: str
) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, partitions=1)
    size, count = 50_000, 8
    # Each is a batch, and so a response of its own.
    produce(kafka.bootstrap_servers, topic_name, [bytes(size)] * count, options={"batch.num.messages": 1})
    # As a transfer makes it where a rate is set: the next response is asked for when this one is taken.
    settings = KafkaSettings(kafka.bootstrap_servers, reconnect_timeout_s=20, limit_rate=16 * size, queue_bytes=1)
    with open_connection(settings, fetch_bytes=2**16, stated_ms=5) as connection:
        reader = RangeReader(connection, topic_name, OffsetRange(0, 0, count), lambda: False)
        said = [(reader.received, reader.received_bytes) for _ in reader.batches(1, 1)]
    assert len(said) == count
    assert all(received * size == received_bytes for received, received_bytes in said)
    assert said[-1] == (count, count * size)
