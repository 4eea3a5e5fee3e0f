"""What everybody who watches a transfer is told: what has arrived, what is committed, and how long the rest takes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.summary import Lag, Phase
from fink_dask.progress.events import Note, RangeCommitted, RangeFailed, RangeProgress, TopicLooked, TransferStarted
from fink_dask.progress.profile import profile_of
from fink_dask.progress.tally import Progress, Speed, Tally
from tests.harness.events import Clock, received, started

FIRST, SECOND = OffsetRange(0, 0, 100), OffsetRange(1, 0, 100)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tally(clock: Clock) -> Tally:
    return Tally(clock)


def test_the_same_range_of_two_topics_counts_twice(tally: Tally) -> None:
    offset_range = OffsetRange(0, 0, 10)
    tally.take(TransferStarted("a", 2, 1, 30, 20, None))
    tally.take(TransferStarted("b", 1, 0, 10, 0, None))
    assert (tally.topics, tally.offsets, tally.committed, tally.arrived) == (2, 40, 20, 20)
    tally.take(RangeProgress("a", offset_range, "1", 4, 4, 400, 0))
    tally.take(RangeProgress("b", offset_range, "1", 6, 5, 600, 1))
    assert (tally.committed, tally.arrived, tally.rows, tally.received_bytes) == (20, 30, 9, 1000)
    tally.take(RangeCommitted("a", offset_range, 10, 1000, {}))
    tally.take(RangeProgress("a", offset_range, "1", 8, 8, 800, 0))
    assert (tally.committed, tally.arrived, tally.rows) == (30, 36, 15)
    tally.take(RangeFailed("b", offset_range))
    assert (tally.committed, tally.arrived, tally.rows) == (30, 30, 10)
    tally.take(TopicLooked("b", 25, Lag(0.0, {}), 0.0))
    assert tally.offsets == 55


def test_what_is_filtered_was_read(tally: Tally) -> None:
    offset_range = OffsetRange(0, 0, 10)
    tally.take(TransferStarted("a", 2, 0, 20, 0, None))
    tally.take(RangeProgress("a", offset_range, "1", 8, 2, 800, 0, filtered=6))
    assert (tally.rows, tally.read) == (2, 8)
    tally.take(RangeCommitted("a", offset_range, 3, 1000, {}, filtered=7))
    assert (tally.rows, tally.read) == (3, 10)


def test_another_round_of_a_topic_keeps_what_was_done(tally: Tally) -> None:
    offset_range = OffsetRange(0, 0, 10)
    tally.take(TransferStarted("a", 1, 0, 10, 0, None))
    tally.take(RangeCommitted("a", offset_range, 8, 800, {}))
    tally.take(TransferStarted("a", 2, 1, 12, 10, None))
    assert (tally.offsets, tally.committed, tally.arrived) == (12, 10, 10)


@pytest.mark.parametrize(
    ("reports", "arrived", "received_bytes", "wasted"),
    [
        ([], 0, 0, 0),
        ([received(FIRST, 40)], 40, 40_000, 0),
        # Read, but nobody has counted what arrived.
        ([RangeProgress("t", FIRST, "first", 30, 30, 30_000, 0)], 30, 30_000, 0),
        # Transactions and compaction leave offsets without a record.
        ([replace(received(FIRST, 40), position=90)], 90, 40_000, 0),
        # Kafka sends whole batches: what lies beyond the end is of no use, and never more than all.
        ([received(FIRST, 160)], 100, 100_000, 0),
        ([received(FIRST, 60), received(SECOND, 50)], 110, 110_000, 0),
        ([received(FIRST, 60), RangeFailed("t", FIRST)], 0, 0, 60_000),
        ([received(FIRST, 60), RangeFailed("t", FIRST), received(FIRST, 5, attempt="2")], 5, 5000, 60_000),
        # Its worker was gone, which nobody has said.
        ([received(FIRST, 60), received(FIRST, 5, attempt="2")], 5, 5000, 60_000),
        ([received(FIRST, 160), RangeCommitted("t", FIRST, 100, 100_000, {})], 100, 100_000, 60_000),
        ([received(FIRST, 60), RangeCommitted("t", FIRST, 100, 100_000, {}), received(FIRST, 70)], 100, 100_000, 0),
    ],
)
def test_what_has_arrived_is_never_more_than_all_and_what_came_in_vain_is_counted_apart(
    tally: Tally,
    reports: list[RangeProgress | RangeFailed | RangeCommitted],
    arrived: int,
    received_bytes: int,
    wasted: int,
) -> None:
    tally.take(started(200))
    for event in reports:
        tally.take(event)
    assert (tally.arrived, tally.received_bytes, tally.bytes_wasted) == (arrived, received_bytes, wasted)


def test_the_time_left_comes_from_the_bytes_that_arrive(tally: Tally, clock: Clock) -> None:
    tally.take(started(200, raw_bytes=10_000_000))
    assert (tally.seconds_left, tally.bytes_left) == (None, 10_000_000)
    tally.take(received(FIRST, 0))
    assert tally.seconds_left is None, "nothing has come, so nothing tells"
    for second in range(1, 9):
        clock.now += 1
        tally.take(received(FIRST, 10 * second))
    # The estimate was ten thousand and more bytes an alert; those that came had a thousand.
    assert tally.bytes_left == 120_000
    assert tally.bytes_per_second == pytest.approx(10_000)
    assert tally.seconds_left == pytest.approx(12)
    clock.now += 0.5
    assert tally.seconds_left == pytest.approx(11.5), "it counts down until the next response"


def test_the_last_bytes_are_not_said_to_come_in_a_second_for_as_long_as_they_do_not_come(
    tally: Tally, clock: Clock
) -> None:
    tally.take(started(100, raw_bytes=100_000))
    tally.take(received(FIRST, 0))
    for count in (30, 60, 90):
        clock.now += 20
        tally.take(received(FIRST, count))
    left = []
    for _ in range(20):
        clock.now += 1
        left.append(tally.seconds_left)
    assert left[0] == pytest.approx(5.7, abs=0.1)
    assert left[-1] is None
    assert left.count(1.0) <= 3


@pytest.mark.parametrize(("expansion", "seconds"), [(1.0, 24), (1.5, 16), (4.0, 12)])
def test_the_time_left_is_no_shorter_than_a_limit_allows(
    tally: Tally, clock: Clock, expansion: float, seconds: float
) -> None:
    tally.take(replace(started(200, raw_bytes=200_000), limit_rate=5000))
    assert tally.arrival.limit_rate == 5000
    tally.take(received(FIRST, 0))
    for second in range(1, 9):
        clock.now += 1
        tally.take(replace(received(FIRST, 10 * second), expansion=expansion))
    assert tally.seconds_left == pytest.approx(seconds)


def test_what_has_arrived_never_becomes_less_nor_counts_twice(tally: Tally) -> None:
    tally.take(started(200))
    for count, arrived in ((0, 0), (50, 50), (40, 50), (60, 60), (20, 60)):
        tally.take(received(FIRST, count))
        assert (tally.arrived, tally.received_bytes) == (arrived, 1000 * arrived)
    assert tally.bytes_received == 60_000


def test_a_range_that_another_run_has_committed_neither_takes_time_nor_gives_it(tally: Tally, clock: Clock) -> None:
    tally.take(started(1000, committed=800))
    assert (tally.arrived, tally.received_bytes, tally.bytes_left) == (800, 0, None)
    tally.take(received(FIRST, 0))
    clock.now += 5
    tally.take(received(FIRST, 50))
    assert tally.seconds_left == pytest.approx(15)
    tally.take(RangeCommitted("t", FIRST, 100, 100_000, {}))
    assert (tally.committed, tally.arrived) == (900, 900)


def test_a_repair_that_reads_a_part_of_a_range_is_at_no_more_than_all(tally: Tally) -> None:
    tally.take(started(30))
    tally.take(received(FIRST, 20))
    assert (tally.committed, tally.arrived) == (0, 20)
    tally.take(RangeCommitted("t", FIRST, 100, 100_000, {}))
    assert (tally.committed, tally.arrived, tally.phase) == (30, 30, Phase.DONE)


def test_topics_with_small_and_with_large_alerts_are_estimated_apart(tally: Tally, clock: Clock) -> None:
    tally.take(started(100, topic="small"))
    tally.take(started(100, topic="large", raw_bytes=5_000_000))
    tally.take(received(FIRST, 0, topic="small"))
    clock.now += 10
    tally.take(received(FIRST, 50, topic="small"))
    assert tally.bytes_left == 50 * 1000 + 5_000_000
    tally.take(received(FIRST, 10, 20_000, topic="large"))
    assert tally.bytes_left == 50 * 1000 + 90 * 20_000


def test_a_topic_that_is_followed_has_no_time_left(tally: Tally, clock: Clock) -> None:
    tally.take(started(100))
    tally.take(received(FIRST, 0))
    clock.now += 1
    tally.take(received(FIRST, 50))
    assert tally.seconds_left is not None
    tally.take(TopicLooked("t", 150, Lag(0.0, {}), 0.0))
    assert tally.seconds_left is None


def test_how_long_ago_something_came_is_known_between_two_reports(tally: Tally, clock: Clock) -> None:
    tally.take(started(400))
    assert (tally.quiet_s, tally.phase) == (None, Phase.CONNECTING)
    tally.take(received(FIRST, 0, waits=True))
    assert (tally.quiet_s, tally.phase) == (None, Phase.CONNECTING), "it has asked for nothing"
    tally.take(received(FIRST, 0, quiet_s=1.5))
    clock.now += 2
    assert (tally.quiet_s, tally.phase) == (3.5, Phase.WAITING)
    tally.take(received(FIRST, 10))
    tally.take(received(SECOND, 10, quiet_s=30))
    clock.now += 1
    assert (tally.quiet_s, tally.phase) == (1.0, Phase.RECEIVING), "one of them is enough"
    tally.take(received(FIRST, 120))
    clock.now += 1
    assert tally.quiet_s == 32.0, "nothing more is expected of the first one"
    for offset_range in (FIRST, SECOND):
        tally.take(RangeFailed("t", offset_range))
    assert tally.quiet_s == 1.0, "between two attempts, since bytes last came"
    tally.take(received(FIRST, 0, quiet_s=0.2, attempt="second"))
    assert tally.quiet_s == 1.0, "the new attempt has not heard of Kafka either"
    for partition in range(4):
        tally.take(received(OffsetRange(partition, 0, 100), 100))
    assert (tally.quiet_s, tally.phase) == (None, Phase.WRITING)
    for partition in range(4):
        tally.take(RangeCommitted("t", OffsetRange(partition, 0, 100), 100, 100_000, {}))
    assert tally.phase == Phase.DONE


@pytest.mark.parametrize(
    ("apart_s", "quiet_s", "is_cut"), [(1, 9, False), (1, 11, True), (8, 15, False), (8, 17, True), (40, 79, False)]
)
def test_a_slow_line_is_not_called_cut(
    tally: Tally, clock: Clock, apart_s: float, quiet_s: float, is_cut: bool
) -> None:
    tally.take(started(100))
    tally.take(received(FIRST, 0))
    for count in range(1, 6):
        clock.now += apart_s
        tally.take(received(FIRST, count))
    assert not tally.is_cut
    assert tally.seconds_left is not None
    clock.now += quiet_s
    assert tally.is_cut is is_cut
    assert not (is_cut and tally.seconds_left)


def test_a_line_that_is_as_slow_after_a_cut_as_before_is_not_called_cut_again(tally: Tally, clock: Clock) -> None:
    tally.take(started(100))
    tally.take(received(FIRST, 0))
    for count, after_s in enumerate((16, 16, 16, 60), start=1):
        clock.now += after_s
        tally.take(received(FIRST, count))
    clock.now += 16
    assert not tally.is_cut
    clock.now += 17
    assert tally.is_cut


@pytest.mark.parametrize("apart_s", [0.01, 0.3, 1, 7, 45])
def test_a_steady_speed_is_told_whatever_the_steps(apart_s: float) -> None:
    speed, now = Speed(), 0.0
    speed.begin(now)
    assert (speed.per_second(5), speed.quiet_s(5)) == (0, None)
    for step in range(1, 400):
        now += apart_s
        speed.add(now, 1000 * apart_s * step)
        if step > 3:
            assert speed.per_second(now) == pytest.approx(1000, rel=0.02)
            assert 650 < speed.per_second(now + 0.99 * apart_s) < 1350
    assert speed.per_second(now + 1000) == 0


def test_a_pause_does_not_make_a_line_slower() -> None:
    speed, now, total = Speed(), 0.0, 0.0
    speed.begin(now)
    for pause_s in (0, 600):
        now += pause_s
        for _ in range(12):
            now += 4
            total += 4000
            speed.add(now, total - 1000)
            speed.add(now + 0.1, total)
            assert speed.per_second(now + 0.1) < 1100, "what a cut had held back comes at once"
        assert speed.per_second(now) == pytest.approx(1000, rel=0.05)
        assert not speed.is_overdue(now + 4)
        assert speed.is_overdue(now + 6)


def test_responses_that_come_together_are_one_step() -> None:
    speed, total = Speed(), 0.0
    speed.begin(0)
    for began in range(16, 200, 16):
        for late_s in (0, 0.4, 0.8, 1.5):
            total += 4000
            speed.add(began + late_s, total)
        if began > 48:
            for quiet_s in (0, 5, 10, 14):
                assert speed.per_second(began + 1.5 + quiet_s) == pytest.approx(1000, rel=0.05)
            assert speed.late_s() == pytest.approx(32, rel=0.05)


def test_a_speed_follows_a_line_that_changes() -> None:
    speed, now, total = Speed(), 0.0, 0.0
    for per_second in (100, 1000, 10):
        for _ in range(60):
            now += 0.5
            total += per_second / 2
            speed.add(now, total)
        assert speed.per_second(now) == pytest.approx(per_second)


def test_a_report_that_nothing_has_come_is_no_first_batch() -> None:
    progress = Progress()
    progress(started(100))
    progress(received(FIRST, 0, quiet_s=3))
    before = profile_of(progress.whole, progress.began)
    assert (before.work_seconds, before.received_bytes) == (0, 0)
    progress(received(FIRST, 100))
    progress(RangeFailed("t", FIRST))
    progress(received(FIRST, 100, attempt="2"))
    progress(RangeCommitted("t", FIRST, 100, 100_000, {}))
    found = profile_of(progress.of("t"), progress.began)
    assert (found.alerts, found.raw_bytes) == (100, 100_000)
    assert (found.received_bytes, found.wasted_bytes) == (200_000, 100_000)


def test_topics_are_added_up_alone_and_together() -> None:
    progress = Progress()
    for topic in ("a", "b"):
        progress(started(100, topic=topic))
        progress(RangeCommitted(topic, FIRST, 100, 1000, {"decode": 2.0}))
    assert [tally.committed_rows for tally in progress.topics.values()] == [100, 100]
    assert progress.whole.committed_rows == 200
    assert profile_of(progress.whole, progress.began).stage_seconds["decode"] == 4.0


def test_what_other_threads_say_is_said_by_the_one_that_began() -> None:
    said: list[tuple[str, int]] = []
    progress = Progress(lambda event: said.append((str(event), threading.get_ident())))
    with ThreadPoolExecutor(1) as pool:
        for text in ("first", "second"):
            pool.submit(progress, Note(text)).result()
    assert said == [], "an observer that draws is called from two threads at once"
    progress(Note("third"))
    assert [text.split("'")[1] for text, _ in said] == ["first", "second", "third"]
    assert {thread for _, thread in said} == {threading.get_ident()}
