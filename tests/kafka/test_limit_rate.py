"""Readers of a process keep to the rate that is set, together, from the beginning, and do not fall far below it."""

from __future__ import annotations

import pytest

from fink_dask.kafka import line as line_module
from fink_dask.kafka.line import Line

MB = 1_000_000
#: The most of a second's bytes that come before they are paid for, for the bounds of these tests.
SLACK = 0.3


class Clock:
    """Time that passes only where it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(line_module, "time", clock)
    return clock


def read(
    line: Line, clock: Clock, reader: object, seconds: float, piece: int, wire: float = 1.0, before: int = 0
) -> int:
    """Read pieces as fast as the line lets a reader; returns the bytes that came over the line, with those before."""
    end, came = clock.now + seconds, before
    while clock.now < end:
        if pause_s := line.pause_s(reader):
            clock.now += pause_s
            continue
        line.take(reader, piece)
        came += int(piece * wire)
        line.settle(reader, came)
        clock.now += 0.001
    return came


@pytest.mark.parametrize("rate", [100_000, 2 * MB, 50 * MB])
@pytest.mark.parametrize("wire", [1.0, 1.4])
def test_what_comes_over_the_line_keeps_to_the_rate(clock: Clock, rate: int, wire: float) -> None:
    line = Line()
    assert line.enter("reader", rate)
    came = read(line, clock, "reader", 20, rate // 20, wire)
    assert 0.85 * 20 * rate < came < 20 * rate


@pytest.mark.parametrize("part", [1.0, 0.5, 0.05])
def test_a_process_keeps_to_its_part_of_the_rate(clock: Clock, part: float) -> None:
    line = Line()
    line.part = part
    assert line.enter("reader", 10 * MB)
    assert 0.85 * 60 * 10 * MB * part < read(line, clock, "reader", 60, MB // 20) < 60 * 10 * MB * part


def test_what_a_process_may_take_grows_while_it_reads(clock: Clock) -> None:
    line = Line()
    line.part = 0.25
    line.enter("reader", 4 * MB)
    before = read(line, clock, "reader", 20, MB // 20)
    assert 0.85 * 20 * MB < before < 20 * MB
    line.part = 1.0
    came = read(line, clock, "reader", 10, MB // 20, before=before) - before
    assert 0.85 * 40 * MB < came < 40 * MB


def test_no_one_else_begins_while_those_who_read_take_all_that_they_may(clock: Clock) -> None:
    line = Line(readers=4)
    assert line.enter("first", MB)
    assert not line.enter("second", MB), "what the first has asked for is not paid for yet"
    clock.now += 10
    line.take("first", 5 * MB)
    assert not line.enter("second", MB)
    line.leave("first")
    clock.now += 10
    assert line.enter("second", MB)
    clock.now += 10
    assert line.enter("third", MB), "the second takes less than it may"


def test_who_has_no_rate_to_keep_to_is_not_held_up(clock: Clock) -> None:
    line = Line(readers=4)
    line.enter("free")
    line.take("free", 100 * MB)
    line.settle("free", 100 * MB)
    assert line.pause_s("free") == 0
    line.leave("free")


def test_a_transfer_without_a_rate_is_not_held_up_by_one_with_a_rate_in_the_same_process(clock: Clock) -> None:
    line = Line(readers=4)
    assert line.enter("slow", MB)
    line.take("slow", 100 * MB)
    assert not line.enter("slow too", MB)
    assert line.enter("free"), "it came later, and has nothing to wait for"
    assert line.pause_s("free") == 0
    assert line.pause_s("slow") > 50
    clock.now += 200
    assert not line.enter("also free"), "now the one that came before it may begin"
    assert line.enter("slow too", MB)
    assert line.enter("also free")


def test_transfers_with_rates_in_one_process_keep_to_theirs_and_together_to_the_highest(clock: Clock) -> None:
    line = Line(readers=4)
    assert line.enter("slow", MB)
    clock.now += 10
    assert line.enter("fast", 4 * MB)
    came, end = {"slow": 0, "fast": 0}, clock.now + 60
    while clock.now < end:
        for reader in came:
            clock.now += line.pause_s(reader)
            line.take(reader, MB // 20)
            came[reader] += MB // 20
    assert 0.8 * 60 < came["slow"] / MB + came["fast"] / (4 * MB) < 60 + 2


def test_time_without_reading_is_made_up_for_only_a_little(clock: Clock) -> None:
    line = Line()
    line.enter("reader", MB)
    clock.now += 600
    came = 0
    while not line.pause_s("reader"):
        line.take("reader", MB // 20)
        came += MB // 20
    assert came < (0.5 + SLACK + 0.25) * MB


@pytest.mark.parametrize("processes", [1, 2, 16, 200])
def test_what_all_processes_ask_for_first_is_a_few_seconds_of_the_rate(processes: int) -> None:
    def first_bytes(rate: int) -> int:
        line = Line()
        line.part = 1 / processes
        return line.most_at_once(rate)

    assert processes * first_bytes(10 * MB) < 2.1 * 10 * MB
    assert first_bytes(1000) == 2**16


def test_a_fetch_with_room_for_two_batches_and_a_half_asks_for_one_as_the_half_would_come_in_vain() -> None:
    line = Line()
    assert line.most_at_once(MB) == line.most_at_once(MB, 1000) == line.most_at_once(MB, 30_000) == MB // 8
    for record_bytes in (50_000, 90_000):
        assert 0 < line.most_at_once(MB, record_bytes) < record_bytes
    assert 0 < line.most_at_once(MB, 10 * MB) <= MB // 8
