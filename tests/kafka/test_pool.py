"""Connections are used again, not by two at once, not after a failure, and nothing of an earlier range comes out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import psutil
import pytest
from confluent_kafka import KafkaError, Producer

from fink_dask.kafka import connection as connection_module
from fink_dask.kafka import copying
from fink_dask.kafka.connection import Connection, ConnectionPool
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.kafka.reader import RangeReader
from fink_dask.settings import KafkaSettings
from tests.harness.kafka_settings import free_ports
from tests.harness.oracle import wait_for
from tests.harness.producer import produce
from tests.harness.topics import PATIENCE_S, create_topic, delete_topic

LONG_S = 600.0


@pytest.fixture
def settings() -> KafkaSettings:
    """Nobody answers there, which a connection that is not used does not mind."""
    return KafkaSettings(f"127.0.0.1:{free_ports(1)[0]}")


@pytest.fixture
def make_pool() -> Iterator[Callable[[float], ConnectionPool]]:
    pools: list[ConnectionPool] = []

    def make(idle_s: float) -> ConnectionPool:
        pools.append(ConnectionPool(idle_s))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def is_closed(connection: Connection) -> bool:
    try:
        connection.consumer.assignment()
    except RuntimeError:
        return True
    return False


def used(pool: ConnectionPool, settings: KafkaSettings) -> Connection:
    with pool.connect(settings) as connection:
        assert not is_closed(connection)
        return connection


def test_the_next_range_gets_the_same_connection_and_other_settings_another(
    make_pool: Callable[[float], ConnectionPool], settings: KafkaSettings
) -> None:
    pool, other = make_pool(LONG_S), KafkaSettings(settings.bootstrap_servers, queue_bytes=2**20)
    first = used(pool, settings)
    assert used(pool, settings) is first
    assert used(pool, other) is not first
    assert used(pool, settings) is first


def test_a_run_without_a_limit_does_not_get_the_connection_of_one_that_had_a_limit_and_fetches_nothing_ahead(
    make_pool: Callable[[float], ConnectionPool], settings: KafkaSettings
) -> None:
    pool, limited = make_pool(LONG_S), replace(settings, limit_rate=10**9)
    slow = used(pool, limited)
    fast = used(pool, settings)
    assert fast is not slow
    assert used(pool, limited) is slow
    assert used(pool, settings) is fast


def test_a_connection_that_asks_for_so_little_that_much_comes_in_vain_is_not_used_again(
    make_pool: Callable[[float], ConnectionPool], settings: KafkaSettings
) -> None:
    pool = make_pool(LONG_S)
    small = used(pool, settings)
    pool.line.fetched(small.fetch_bytes, 4.0, 0.7, settings.queue_bytes)
    large = used(pool, settings)
    assert large.fetch_bytes == 2 * small.fetch_bytes
    assert used(pool, settings) is large


def test_what_a_plan_knows_of_its_records_decides_what_the_first_fetch_asks_for(
    make_pool: Callable[[float], ConnectionPool], settings: KafkaSettings
) -> None:
    pool = make_pool(LONG_S)
    assert used(pool, replace(settings, record_bytes=200_000)).fetch_bytes == 16 * 200_000
    assert used(pool, replace(settings, record_bytes=1_000)).fetch_bytes == pool.line.fetch_bytes
    assert used(pool, replace(settings, expansion=200.0)).fetch_bytes == settings.queue_bytes // 400


def test_the_threads_of_librdkafka_do_not_grow_with_the_number_of_ranges(
    make_pool: Callable[[float], ConnectionPool], settings: KafkaSettings
) -> None:
    pool = make_pool(LONG_S)
    used(pool, settings)
    process = psutil.Process()
    before = process.num_threads()
    for _ in range(20):
        used(pool, settings)
    # Timers that were cancelled may not have ended yet; a new connection each time would have three or more threads.
    assert process.num_threads() <= before + 10


def test_what_one_range_heard_of_the_broker_is_not_held_against_the_next(
    make_pool: Callable[[float], ConnectionPool], settings: KafkaSettings
) -> None:
    pool = make_pool(LONG_S)
    with pool.connect(settings) as connection:
        connection.errors.last = connection.errors.fatal = KafkaError(KafkaError._SSL)
    with pool.connect(settings) as again:
        assert again is connection
        assert (again.errors.last, again.errors.fatal) == (None, None)


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_connection_that_failed_is_closed_and_never_lent_again(
    make_pool: Callable[[float], ConnectionPool], settings: KafkaSettings, failure: type[BaseException]
) -> None:
    pool = make_pool(LONG_S)
    first = used(pool, settings)

    def fail() -> None:
        with pool.connect(settings):
            raise failure("the cause")

    with pytest.raises(failure, match="the cause"):
        fail()
    assert is_closed(first)
    assert used(pool, settings) is not first


def test_a_connection_that_nobody_uses_is_closed_after_a_while_and_one_in_use_is_not(
    make_pool: Callable[[float], ConnectionPool], settings: KafkaSettings
) -> None:
    pool = make_pool(0.05)
    with pool.connect(settings) as held:
        idle = used(pool, settings)
        assert idle is not held
        wait_for(lambda: is_closed(idle), "an idle connection to be closed")
        assert not is_closed(held)
    wait_for(lambda: is_closed(held), "an idle connection to be closed")
    assert used(pool, settings) not in {held, idle}


def test_connections_that_are_closed_while_others_ask_for_them_are_never_lent(
    make_pool: Callable[[float], ConnectionPool], settings: KafkaSettings
) -> None:
    pool = make_pool(0.001)
    with ThreadPoolExecutor(4) as threads:
        # `used` fails where a closed one is lent.
        connections = list(threads.map(lambda _: used(pool, settings), range(60)))
    wait_for(lambda: all(map(is_closed, connections)), "all connections to be closed")


def test_two_threads_never_share_a_connection(
    make_pool: Callable[[float], ConnectionPool], settings: KafkaSettings
) -> None:
    pool, meet = make_pool(LONG_S), threading.Barrier(2, timeout=PATIENCE_S)

    def use(_: int) -> Connection:
        with pool.connect(settings) as connection:
            meet.wait()
            return connection

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(use, range(2))
        again = set(threads.map(use, range(2)))
    assert first is not second
    assert again == {first, second}
    pool.close()
    assert is_closed(first)
    assert is_closed(second)


def test_closing_spares_what_is_in_use_and_can_be_repeated(
    make_pool: Callable[[float], ConnectionPool], settings: KafkaSettings
) -> None:
    pool = make_pool(LONG_S)
    with pool.connect(settings) as connection:
        pool.close()
        assert not is_closed(connection)
    pool.close()
    pool.close()
    assert is_closed(connection)


@pytest.fixture
def two_topics(kafka: Any, topic_name: str) -> Iterator[tuple[str, str]]:
    """Fill two topics of two partitions with values that say where they are."""
    other = f"{topic_name}_other"
    for topic in (topic_name, other):
        create_topic(kafka.bootstrap_servers, topic, 2)
        for partition in range(2):
            values = [b"%s-%d-%d-%s" % (topic.encode(), partition, offset, b"x" * 500) for offset in range(3000)]
            _fill(kafka.bootstrap_servers, topic, partition, values)
    yield topic_name, other
    delete_topic(kafka.bootstrap_servers, other, missing_ok=True)


def _fill(bootstrap: str, topic: str, partition: int, values: list[bytes]) -> None:
    # Idempotent: a batch that has to be sent again keeps its place.
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, "enable.idempotence": True})
    for value in values:
        producer.produce(topic, value, partition=partition)
    assert producer.flush(30) == 0


def read(connection: Connection, topic: str, offset_range: OffsetRange) -> None:
    """Read a range to its end, and see that each record is the one of its place."""
    reader = RangeReader(connection, topic, offset_range, lambda: False)
    reader.prefetch()
    found = [
        (int(batch.offsets[index]), batch.value(index))
        for batch in reader.batches(100, 2**20)
        for index in range(len(batch))
    ]
    assert [offset for offset, _ in found] == list(range(offset_range.start, offset_range.end))
    assert not reader.holes
    assert not reader.lost
    for offset, value in found:
        assert value is not None
        assert value.startswith(b"%s-%d-%d-" % (topic.encode(), offset_range.partition, offset))


@pytest.mark.usefixtures("way")
def test_nothing_of_an_earlier_range_comes_through_a_connection_that_is_used_again(
    kafka: Any, two_topics: tuple[str, str], make_pool: Callable[[float], ConnectionPool]
) -> None:
    pool, reached = make_pool(LONG_S), KafkaSettings(kafka.bootstrap_servers, reconnect_timeout_s=20)
    first, second = two_topics
    with pool.connect(reached) as one:
        # Half of a range: librdkafka has fetched the records that follow.
        batches = RangeReader(one, first, OffsetRange(0, 0, 3000), lambda: False).batches(100, 2**20)
        next(batches)
        batches.close()
    ranges = [
        (second, OffsetRange(0, 100, 900)),  # the same partition and offsets of another topic
        (second, OffsetRange(1, 100, 900)),  # another partition
        (second, OffsetRange(1, 0, 50)),  # back
        (first, OffsetRange(0, 50, 2000)),  # where the first one was left
        (first, OffsetRange(0, 2900, 3000)),
        (first, OffsetRange(1, 0, 3000)),
    ]
    for topic, offset_range in ranges:
        with pool.connect(reached) as again:
            assert again is one
            read(again, topic, offset_range)


def test_a_record_of_another_topic_or_partition_is_not_taken_for_one_of_the_range(
    kafka: Any, two_topics: tuple[str, str], make_pool: Callable[[float], ConnectionPool]
) -> None:
    first, second = two_topics
    with make_pool(LONG_S).connect(KafkaSettings(kafka.bootstrap_servers, reconnect_timeout_s=20)) as connection:
        RangeReader(connection, second, OffsetRange(0, 0, 3000), lambda: False).prefetch()
        stale: list[Any] = []
        wait_for(lambda: bool(stale.extend(connection.consumer.consume(200, 0.2)) or stale), "records")
        # Should librdkafka ever hand them out after another assignment, they have the offsets that are waited for.
        for topic, partition, taken in ((first, 0, 0), (second, 1, 0), (second, 0, len(stale))):
            reader = RangeReader(connection, topic, OffsetRange(partition, 0, 3000), lambda: False)
            assert len(reader._account(stale)) == reader.position == taken


def test_a_consumer_that_librdkafka_does_not_end_is_left_to_itself(
    kafka: Any, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "_CLOSE_S", 0.1)
    create_topic(kafka.bootstrap_servers, topic, partitions=1)
    produce(kafka.bootstrap_servers, topic, [b"one"])
    connection = Connection(KafkaSettings(kafka.bootstrap_servers))
    queue = connection.assign(topic, 0, 0, from_queue=True)
    assert queue is not None
    wait_for(lambda: queue.wait(0.1), "a record")
    # Whoever holds a record holds the partition that it is of.
    state, library = queue._state, queue._library
    record, state[copying.HELD] = int(state[copying.HELD]), 0
    before = {*threading.enumerate()}
    connection.close()
    (closing,) = {*threading.enumerate()} - before
    library.destroy(record)
    closing.join()
    assert is_closed(connection)
