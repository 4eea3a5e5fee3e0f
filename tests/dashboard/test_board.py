"""What the dashboard knows is the truth, and bounded, however large a topic is and however many transfers there are."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest

from fink_dask.dashboard.board import MAX_POINTS, Board, History, Reported
from fink_dask.dashboard.metrics import BoardCollector
from fink_dask.dashboard.page import headline, running_ranges
from fink_dask.dashboard.reports import MAX_PARTITIONS, MAX_RUNNING, TopicReport, TransferReport
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.summary import Lag
from fink_dask.progress.events import RangeCommitted, RangeFailed, RangeProgress, TopicLooked, TransferStarted
from tests.harness.events import Told

TOPIC = "ftransfer_ztf_2026-02-24_1"


def started(partitions: dict[int, tuple[int, int]], ranges: int = 10, topic: str = TOPIC) -> TransferStarted:
    offsets, committed = (sum(each) for each in zip(*partitions.values(), strict=True))
    return TransferStarted(topic, ranges, 0, offsets, committed, None, partitions)


def progress(
    offset_range: OffsetRange, rows: int, attempt: str = "a", worker: str = "tcp://10.0.0.1:1", topic: str = TOPIC
) -> RangeProgress:
    return RangeProgress(topic, offset_range, attempt, offset_range.start + rows, rows, 10 * rows, 0, worker)


def committed(
    offset_range: OffsetRange, quarantined: int = 0, lost: int = 0, topic: str = TOPIC, **more: Any
) -> RangeCommitted:
    rows = len(offset_range) - quarantined - lost
    return RangeCommitted(topic, offset_range, rows, 10 * rows, {"decode": 1.0}, quarantined, lost, **more)


def only_topic(transfer: Told) -> TopicReport:
    (topic,) = transfer.report().topics
    return topic


def test_a_report_adds_up_what_ranges_say() -> None:
    transfer = Told()
    transfer.take(started({0: (100, 40), 1: (50, 0)}))
    first, second = OffsetRange(0, 40, 70), OffsetRange(1, 0, 50)
    transfer.take(progress(first, 10))
    transfer.take(progress(second, 20, worker="tcp://10.0.0.2:7"))
    transfer.take(committed(first, quarantined=2, lost=3, newest_ms=5000))
    topic = only_topic(transfer)
    assert [(item.offsets, item.committed, item.received, item.lag) for item in topic.partitions] == [
        (100, 70, 0, 30),
        (50, 0, 20, 50),
    ]
    assert (topic.offsets, topic.committed, topic.lag, topic.alerts) == (150, 70, 80, 25)
    assert (topic.quarantined, topic.lost, topic.retries, topic.newest_ms) == (2, 3, 0, 5000)
    assert (topic.alerts_read, topic.bytes_read) == (25 + 20, 450)
    assert [(item.partition, item.position, item.worker) for item in topic.running] == [(1, 20, "tcp://10.0.0.2:7")]
    assert topic.stage_seconds["decode"] == 1.0
    transfer.take(progress(first, 29))  # it was on its way while the range was committed
    assert only_topic(transfer).running == topic.running[:1]


def test_alerts_that_are_filtered_are_read_and_counted_apart() -> None:
    transfer = Told()
    transfer.take(started({0: (100, 0)}))
    first, second = OffsetRange(0, 0, 50), OffsetRange(0, 50, 100)
    for offset_range in (first, second):
        transfer.take(replace(progress(offset_range, 2), filtered=30))
    assert (only_topic(transfer).alerts, only_topic(transfer).alerts_read) == (0, 64)
    transfer.take(replace(committed(first), rows=3, filtered=47))
    topic = only_topic(transfer)
    assert (topic.alerts, topic.filtered, topic.alerts_read, topic.committed) == (3, 47, 50 + 32, 50)
    board = Board()
    board.take(transfer.report())
    assert board.counts[TOPIC]["filtered"] == 47
    metrics = {metric.name: metric.samples for metric in BoardCollector(board).collect()}
    (sample,) = metrics["fink_dask_filtered"]
    assert (sample.name, sample.value) == ("fink_dask_filtered_total", 47)


def test_a_range_that_is_tried_again_is_a_retry_whoever_noticed() -> None:
    transfer = Told()
    transfer.take(started({0: (100, 0)}))
    failed, orphaned, sound = OffsetRange(0, 0, 30), OffsetRange(0, 30, 60), OffsetRange(0, 60, 100)
    for offset_range in (failed, orphaned, sound):
        transfer.take(progress(offset_range, 10, "first"))
    transfer.take(RangeFailed(TOPIC, failed))
    assert only_topic(transfer).retries == 0
    transfer.take(progress(failed, 5, "second"))
    transfer.take(progress(orphaned, 3, "second"))  # Dask gave it to another worker, as the first was gone
    transfer.take(progress(sound, 12, "first"))
    topic = only_topic(transfer)
    assert topic.retries == 2
    assert topic.partitions[0].received == 5 + 3 + 12
    assert topic.alerts_read == 30 + 5 + 3 + 2
    transfer.take(RangeFailed(TOPIC, sound))
    transfer.take(committed(sound))  # so quickly that nobody had heard of the second attempt
    assert only_topic(transfer).retries == 3


def test_a_topic_that_is_followed_has_the_lag_of_its_last_look() -> None:
    transfer = Told()
    transfer.take(started({0: (100, 0)}))
    transfer.take(committed(OffsetRange(0, 0, 60)))
    transfer.take(TopicLooked(TOPIC, 140, Lag(0.0, {0: 90, 1: 7}, newest_ms=9000), 0.0))
    topic = only_topic(transfer)
    assert [(item.partition, item.offsets, item.lag) for item in topic.partitions] == [(0, 150, 90), (1, 7, 7)]
    assert (topic.is_followed, topic.lag, topic.newest_ms, topic.seconds_left) == (True, 97, 9000, None)
    assert topic.looked_s is not None, "over a cut line, the lag is one of a while ago"
    transfer.take(committed(OffsetRange(1, 0, 7)))
    assert only_topic(transfer).lag == 90


def test_a_report_stays_small_however_large_the_topic_and_the_cluster_are() -> None:
    transfer = Told()
    partitions, topic_name = 3 * MAX_PARTITIONS, "t" * 5000
    transfer.take(started(dict.fromkeys(range(partitions), (10_000, 0)), ranges=100_000, topic=topic_name))
    chance = random.Random(1)
    for number in range(20_000):
        offset_range = OffsetRange(number % partitions, 10 * (number // partitions), 10 * (number // partitions) + 10)
        transfer.take(progress(offset_range, 5, worker="w" * 5000, topic=topic_name))
        if number >= 1000:
            transfer.take(
                committed(offset_range, topic=topic_name)
                if chance.random() < 0.99
                else RangeFailed(topic_name, offset_range)
            )
    topic = only_topic(transfer)
    assert (len(topic.partitions), topic.more_partitions) == (MAX_PARTITIONS, 2 * MAX_PARTITIONS)
    assert (len(topic.running), topic.more_running) == (MAX_RUNNING, 1000 - MAX_RUNNING)
    assert topic.lag == partitions * 10_000 - topic.committed
    message = json.dumps(transfer.report().to_message())
    assert len(message) < 250_000
    assert TransferReport.from_message(json.loads(message)).topics[0].partitions == topic.partitions


def test_a_history_is_bounded_and_ends_with_what_is_true_now() -> None:
    history = History()
    for second in range(100_000):
        history.add(float(second), 7 * second, 70 * second, 100_000 - second)
        assert history.points[-1].seconds == second
    points = history.points
    assert MAX_POINTS / 3 < len(points) <= MAX_POINTS
    assert points[0].seconds == 0
    seconds, alerts, raw_bytes = history.speeds()
    assert len(seconds) == len(alerts) == len(raw_bytes) == len(points)
    assert {round(speed, 6) for speed in alerts} == {7.0}
    assert {round(speed, 6) for speed in raw_bytes} == {70.0}


def test_what_a_slow_line_brings_at_once_is_no_peak_and_what_comes_after_a_pause_is_one() -> None:
    history = History()
    for second, total in enumerate([0, 0, 0, 0, 4000, 4000, 4000, 4000, 8000]):
        history.add(float(second), 0, total, 0)
    assert history.speeds()[2] == [1000.0] * 9
    for second in range(9, 700):
        history.add(float(second), 0, 8000, 0)
    history.add(700.0, 0, 11_000, 0)
    _, _, speeds = history.speeds()
    assert max(speeds[20:]) >= 100, "not what ten minutes would make of it"
    assert speeds[-1] == max(speeds[20:])


def reported(transfer: str, client: str, alerts: int = 0, topic: str = TOPIC, **more: Any) -> TransferReport:
    """Make the report of a transfer that has committed so many alerts."""
    made = Told(client)
    made.take(started({0: (1000, 0)}, topic=topic))
    if alerts:
        made.take(committed(OffsetRange(0, 0, alerts), topic=topic))
    return replace(made.report(), transfer=transfer, **more)


def test_a_board_forgets_what_has_ended_long_ago_and_keeps_what_runs() -> None:
    board = Board()
    board.take(reported("long", "a"))
    for number in range(500):
        board.take(reported(f"short {number}", f"b{number}"))
        board.take(reported(f"short {number}", f"b{number}", state="done", seconds=9.0))
        board.take(reported(f"dead {number}", f"c{number}"))
        board.lose(f"c{number}")
    assert next(iter(board.transfers)) == "long"
    assert len(board.transfers) < 20
    assert [key for key, known in board.transfers.items() if known.is_running] == ["long"]
    for second in range(2):
        for number in range(500):
            board.take(reported(f"many {number}", "d", 1, topic="many", seconds=1.0 + second))
    assert len(board.transfers) < 100
    assert "long" in board.transfers
    assert board.counts["many"]["alerts"] == len(board.transfers) - 9  # the long one, and those that have ended


def test_a_client_that_dies_leaves_a_transfer_that_is_said_to_be_lost_and_an_end_stays_an_end() -> None:
    board = Board()
    board.take(reported("dead", "a"))
    board.take(reported("done", "b", state="done", seconds=9.0))
    for client in ("a", "b"):
        board.lose(client)
    shown = {key: headline(known, known.report.topics[0]) for key, known in board.transfers.items()}
    assert "disappeared" in shown["dead"]
    assert "committed" in shown["done"]
    assert running_ranges(board.transfers["dead"], board.transfers["dead"].report.topics[0]) == ""


def test_a_transfer_that_says_nothing_for_long_is_said_to_be_silent() -> None:
    board = Board()
    board.take(reported("frozen", "a"))
    known = board.transfers["frozen"]
    known.heard -= 61
    assert "1 min" in headline(known, known.report.topics[0])


def test_what_is_counted_only_grows_over_all_transfers_of_a_topic() -> None:
    board = Board()
    board.take(reported("first", "a", 100, seconds=1.0))
    board.take(reported("first", "a", 300, seconds=2.0))
    board.take(reported("first", "a", 200, seconds=1.5))  # it was late
    board.take(reported("second", "b", 50))
    for number in range(20):  # the first ones are forgotten
        board.take(reported(f"other {number}", "c", 1, topic="other", state="done"))
    board.take(reported("first", "a", 300, seconds=3.0, state="done"))
    assert (board.counts[TOPIC]["alerts"], board.counts[TOPIC]["ranges_run"]) == (350, 2)
    for number in range(2000):
        board.take(reported("many", "d", 1, topic=f"topic {number}"))
    assert len(board.counts) <= 500


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a\nb\x00\u202e", "é" * 5000]
)
def test_names_from_outside_are_shown_and_do_nothing(name: str) -> None:
    transfer = Told()
    transfer.take(started({0: (1000, 0)}, topic=name))
    transfer.take(progress(OffsetRange(0, 0, 100), 5, worker=name))
    board = Board()
    board.take(replace(transfer.report(), words=name))
    (known,) = board.transfers.values()
    html = headline(known, known.report.topics[0]) + running_ranges(known, known.report.topics[0])
    assert [part for part in ("<script", "<img", "\x00", "\u202e", "a\nb") if part in html] == []
    assert len(html) < 10_000


def test_metrics_that_cannot_be_made_cost_the_scheduler_none_of_its_own() -> None:
    board = Board()
    board.take(reported("sound", "a"))
    assert list(BoardCollector(board).collect())
    board.transfers["broken"] = Reported(None, 0.0)  # type: ignore[arg-type]
    assert list(BoardCollector(board).collect()) == []


@pytest.mark.parametrize(
    "place",
    [("words",), ("seconds",), ("topics", 0, "topic"), ("topics", 0, "lag"), ("topics", 0, "quiet_s"),
     ("topics", 0, "partitions", 0, "partition"), ("topics", 0, "running", 0, "partition"),
     ("topics", 0, "running", 0, "worker"), ("topics", 0, "stage_seconds", "decode")],
    ids=str,
)  # fmt: skip
def test_a_message_with_values_of_other_types_is_refused_before_a_page_shows_them(place: tuple[str | int, ...]) -> None:
    transfer = Told()
    transfer.take(started({0: (100, 40)}))
    transfer.take(progress(OffsetRange(0, 40, 70), 10))
    message = transfer.report().to_message()
    TransferReport.from_message(message)
    *way, last = place
    inside: Any = message
    for step in way:
        inside = inside[step]
    inside[last] = ["<script>alert(1)</script>"]
    with pytest.raises(ValueError, match="type"):
        TransferReport.from_message(message)
    inside[last] = 10**400
    with pytest.raises(ValueError, match=r"type|bounds"):
        TransferReport.from_message(message)
