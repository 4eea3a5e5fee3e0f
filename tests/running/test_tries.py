"""When Kafka is given up: not for a moment in which many ranges get no answer at once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fink_dask.kafka.offsets import OffsetRange
from fink_dask.progress.events import RangeProgress
from fink_dask.ranges.work import Work
from fink_dask.running import scheduling as tries
from fink_dask.running.scheduling import BrokerOutage, RetryPolicy


def progress(received: int, quiet_s: float) -> RangeProgress:
    return RangeProgress("topic", OffsetRange(0, 0, 100), "a", 0, 0, 0, 0, received=received, quiet_s=quiet_s)


def test_kafka_is_gone_when_nothing_has_come_for_as_long_as_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(tries.time, "monotonic", lambda: now)
    silence = BrokerOutage(60.0)
    now = 8.0
    assert [silence.is_final(is_last=False) for _ in range(5)] == [False] * 5, "a network that is cut for some seconds"
    now = 30.0
    silence.end()
    now = 120.0
    assert not silence.is_final(is_last=False), "one partition alone, while others may be there"
    assert silence.is_final(is_last=False)
    silence.end()
    assert not silence.is_final(is_last=True)
    now = 179.0
    assert silence.is_final(is_last=True), "there is no other"


def test_a_range_that_reports_that_nothing_comes_is_no_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(tries.time, "monotonic", lambda: now)
    silence = BrokerOutage(60.0)
    now = 59.0
    silence.see(progress(received=0, quiet_s=0.1))
    silence.see(progress(received=70, quiet_s=40.0))
    assert silence.is_final(is_last=True)
    silence.see(progress(received=70, quiet_s=0.3))
    assert not silence.is_final(is_last=True)


def test_a_range_that_has_heard_from_kafka_since_is_excused_for_as_long_as_at_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(tries.time, "monotonic", lambda: now)
    waited, item = RetryPolicy(60.0), work()
    assert waited.excuse(item)
    now = 59.0
    waited.see(progress(received=0, quiet_s=0.1))
    waited.see(progress(received=70, quiet_s=40.0))
    assert waited.excuse(item)
    now = 61.0
    assert not waited.excuse(item), "nothing has come since it failed for the first time"
    waited.see(progress(received=70, quiet_s=0.1))
    now = 3600.0
    assert waited.excuse(item), "a broker that is away once more, an hour later"


def test_a_range_that_is_done_is_forgotten() -> None:
    waited, item = RetryPolicy(60.0), work()
    waited.begin(item)
    waited.excuse(item)
    waited.end(item)
    for _ in range(3):
        waited.begin(item)
        assert waited.allow(item)
    assert not waited.is_ready(item)
    waited.end(item)
    assert waited.is_ready(item)


def work() -> Work:
    settings: Any = SimpleNamespace(identity=SimpleNamespace(topic="topic"))
    return Work(OffsetRange(0, 0, 100), settings)
