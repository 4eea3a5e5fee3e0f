"""What the progress view adds up: a range of one topic is never taken for the same range of another."""

from __future__ import annotations

from fink_dask.kafka.offsets import Range
from fink_dask.transfers.events import RangeCommitted, RangeFailed, RangeProgress, TransferStarted
from fink_dask.transfers.tally import Tally

FIRST = Range(0, 0, 10)


def test_the_same_range_of_two_topics_counts_twice() -> None:
    tally = Tally()
    tally.start(TransferStarted("a", 2, 1, 30, 20, None))
    tally.start(TransferStarted("b", 1, 0, 10, 0, None))
    assert (tally.topics, tally.offsets, tally.offsets_done) == (2, 40, 20)
    tally.progress(RangeProgress("a", FIRST, "1", 4, 4, 400, 0))
    tally.progress(RangeProgress("b", FIRST, "1", 6, 5, 600, 1))
    assert (tally.offsets_done, tally.rows, tally.raw_bytes) == (30, 9, 1000)
    tally.commit(RangeCommitted("a", FIRST, 10, 1000, {}))
    tally.progress(RangeProgress("a", FIRST, "1", 8, 8, 800, 0))
    assert (tally.offsets_done, tally.rows) == (36, 15)
    tally.fail(RangeFailed("b", FIRST))
    assert (tally.offsets_done, tally.rows, tally.offsets_of_this_run) == (30, 10, 10)
    tally.grow("b", 25)
    assert tally.offsets == 55


def test_what_is_filtered_was_read() -> None:
    tally = Tally()
    tally.start(TransferStarted("a", 2, 0, 20, 0, None))
    tally.progress(RangeProgress("a", FIRST, "1", 8, 2, 800, 0, filtered=6))
    assert (tally.rows, tally.read) == (2, 8)
    tally.commit(RangeCommitted("a", FIRST, 3, 1000, {}, filtered=7))
    assert (tally.rows, tally.read) == (3, 10)


def test_another_round_of_a_topic_keeps_what_was_done() -> None:
    tally = Tally()
    tally.start(TransferStarted("a", 1, 0, 10, 0, None))
    tally.commit(RangeCommitted("a", FIRST, 8, 800, {}))
    tally.start(TransferStarted("a", 2, 1, 12, 10, None))
    assert (tally.offsets, tally.offsets_done, tally.offsets_of_this_run) == (12, 10, 10)
