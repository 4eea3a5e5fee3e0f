"""A line of any width is filled and not choked: what is asked for at once, by how many, and how fast, fits it."""

from __future__ import annotations

import threading

import pytest

from fink_dask.kafka.line import FIRST_FETCH_BYTES, MAX_FETCH_BYTES, MIN_FETCH_BYTES, Line
from tests.harness.topics import PATIENCE_S

QUEUE_BYTES = 2**24


@pytest.mark.parametrize(
    ("response_s", "expansion", "expected"),
    [
        (0.01, 1.0, MAX_FETCH_BYTES),  # a fast line: round trips must not count
        (0.5, 1.0, 4 * FIRST_FETCH_BYTES),
        (2.0, 1.0, FIRST_FETCH_BYTES),
        (4.0, 1.0, FIRST_FETCH_BYTES // 2),
        (4.0, 0.7, 2 * FIRST_FETCH_BYTES),  # batches are so large that much of a response is half of one
        (60.0, 1.0, MIN_FETCH_BYTES),  # librdkafka would give the next one up
        (0.01, 8.0, QUEUE_BYTES // 16),  # what it becomes after decompression is what has to fit into the memory
        (0.01, 200.0, QUEUE_BYTES // 400),
    ],
)
def test_a_fetch_takes_about_two_seconds_of_the_line_and_fits_into_the_memory(
    response_s: float, expansion: float, expected: int
) -> None:
    line = Line()
    assert line.fetch_bytes == FIRST_FETCH_BYTES
    line.fetched(FIRST_FETCH_BYTES, response_s, expansion, QUEUE_BYTES)
    assert line.fetch_bytes == expected


def test_far_away_a_fetch_is_larger_so_that_the_line_is_not_idle_for_most_of_the_time() -> None:
    line = Line()
    line.fetched(FIRST_FETCH_BYTES, 1.0, 1.0, QUEUE_BYTES, round_trip_s=1.0)
    assert line.fetch_bytes == 5 * FIRST_FETCH_BYTES


def test_readers_are_let_in_as_quick_responses_show_that_there_is_room_and_in_the_order_in_which_they_asked() -> None:
    line, readers = Line(2), [object() for _ in range(5)]
    assert [line.enter(reader) for reader in readers] == [True, True, False, False, False]
    assert not line.enter(readers[4]), "others wait for longer"
    line.arrived(0.1)
    assert [line.enter(reader) for reader in readers[2:]] == [True, False, False]
    line.leave(readers[3])  # it is no longer wanted
    line.leave(readers[0])
    assert line.enter(readers[4])


def test_of_short_ranges_so_many_are_read_at_once_as_ask_for_no_more_than_a_few_long_ones() -> None:
    line, short = Line(2), FIRST_FETCH_BYTES // 4
    readers = [object() for _ in range(9)]
    assert [line.enter(reader, None, short) for reader in readers] == [True] * 8 + [False]
    line.leave(readers[8])  # it is no longer wanted
    for reader in readers[:4]:
        line.leave(reader)
    assert line.enter(object(), None, FIRST_FETCH_BYTES), "four of them have made room for a long one"
    assert not line.enter(object(), None, short)


def test_of_full_packets_a_fetch_asks_for_many_as_each_is_a_batch_and_fewer_are_asked_for_at_once() -> None:
    line, first, second, packet = Line(2), object(), object(), 200_000
    assert line.fetch_for(1000) == FIRST_FETCH_BYTES
    assert line.fetch_for(packet) == 16 * packet
    assert line.enter(first, None, line.fetch_for(packet))
    assert not line.enter(second, None, line.fetch_for(packet)), "as much as two may ask for"
    line.arrived(3.0, reader=first)
    assert line.enter(second, None, line.fetch_for(packet)), "there is room for one more of its kind"
    line.fetched(FIRST_FETCH_BYTES, 60.0, 1.0, QUEUE_BYTES)
    assert line.fetch_for(packet) == 4 * MIN_FETCH_BYTES, "a slow line has to bring it in time"
    line.fetched(FIRST_FETCH_BYTES, 2.0, 4.0, QUEUE_BYTES)
    assert line.fetch_for(packet) == line.fetch_bytes, "of what is compressed, a batch has many"


def test_a_line_that_is_full_lets_fewer_in_and_never_none() -> None:
    line, first, second, third = Line(2), object(), object(), object()
    assert line.enter(first)
    assert line.enter(second)
    for _ in range(5):
        line.arrived(20.0)
    line.leave(first)
    assert not line.enter(third), "one reads, and the line has room for no more"
    line.leave(second)
    assert line.enter(third)


def test_where_nothing_comes_in_time_to_those_who_read_one_goes_on_and_asks_for_little() -> None:
    line, readers = Line(4), [object() for _ in range(6)]
    assert [line.enter(reader) for reader in readers[:4]] == [True] * 4
    line.crowded()
    assert line.fetch_bytes == MIN_FETCH_BYTES
    for reader in readers[:3]:
        line.leave(reader)
    assert not line.enter(readers[4]), "one still reads"
    line.leave(readers[3])
    assert line.enter(readers[4])
    line.arrived(4.0)
    assert line.enter(readers[5]), "what comes in time shows that there is room again"


def test_a_reader_that_waits_is_let_in_when_another_ends_and_one_that_is_stopped_waits_no_longer() -> None:
    line, first, second, third = Line(1), object(), object(), object()
    assert line.enter(first)
    looked = threading.Event()
    thread = threading.Thread(target=line.wait, args=(second, None, looked.set))
    thread.start()
    assert looked.wait(PATIENCE_S)
    line.leave(first)
    thread.join(PATIENCE_S)
    assert not thread.is_alive()

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        line.wait(third, None, stop)
    line.leave(third)
    line.leave(second)
    assert line.enter(first)


@pytest.mark.parametrize("record_bytes", [0, 1000, 200_000, 10**6])
@pytest.mark.parametrize("processes", [1, 2, 3, 4, 8, 16, 32])
def test_the_first_responses_of_many_processes_come_over_a_slow_line_before_librdkafka_gives_them_up(
    processes: int, record_bytes: int
) -> None:
    line = Line()
    line.begin_among(processes)
    fetch_bytes, readers = line.fetch_for(record_bytes), 0
    while line.enter(object(), None, fetch_bytes):
        readers += 1
    assert readers >= 1
    assert fetch_bytes >= MIN_FETCH_BYTES
    assert processes * readers * fetch_bytes / (2e6 / 8) < 60
