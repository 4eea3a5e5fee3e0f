"""A user is told once that the line is full, and that Kafka holds the transfer back, and neither where it is not so."""

from __future__ import annotations

import pytest

from fink_dask.kafka.offsets import OffsetRange
from fink_dask.progress.events import RangeProgress
from fink_dask.running import scheduling as remarks
from fink_dask.running.scheduling import Remarks


def said(
    told: Remarks,
    partition: int,
    received: int = 0,
    waits: bool = False,
    throttled_s: float = 0,
    is_limited: bool = False,
) -> list[str]:
    offset_range = OffsetRange(partition, 0, 100)
    progress = RangeProgress(
        "topic", offset_range, "a", 0, 0, 0, 0, received=received, waits=waits, throttled_s=throttled_s
    )
    return [note.text for note in told.of(progress, is_limited)]


@pytest.mark.parametrize(("received", "is_limited", "times"), [(70, False, 1), (0, False, 0), (70, True, 0)])
def test_a_line_is_called_full_once_and_not_where_kafka_sends_nothing_or_a_limit_holds_it_back(
    monkeypatch: pytest.MonkeyPatch, received: int, is_limited: bool, times: int
) -> None:
    clock = [0.0]
    monkeypatch.setattr(remarks.time, "monotonic", lambda: clock[0])
    told, found = Remarks(), []
    for clock[0] in (0.0, 4.0, 6.0, 60.0):
        found += said(told, 0, received)
        found += said(told, 1, waits=True, is_limited=is_limited)
    assert len(found) == times
    assert all("full" in words for words in found)


def test_a_range_that_waits_for_a_moment_is_no_word_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(remarks.time, "monotonic", lambda: now)
    told = Remarks()
    assert not said(told, 0, 70)
    assert not said(told, 1, waits=True)
    told.forget("topic", OffsetRange(1, 0, 100))
    now = 60.0
    assert not said(told, 1, waits=True)


def test_a_quota_is_told_once() -> None:
    told = Remarks()
    found = [words for _ in range(3) for words in said(told, 0, 70, throttled_s=0.5)]
    assert len(found) == 1
    assert "quota" in found[0]
