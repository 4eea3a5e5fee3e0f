"""When Kafka is given up: not for a moment in which many ranges get no answer at once."""

from __future__ import annotations

import pytest

from fink_dask.kafka.offsets import Range
from fink_dask.transfers import tries
from fink_dask.transfers.events import RangeProgress
from fink_dask.transfers.tries import Silence


def progress(received: int, quiet_s: float) -> RangeProgress:
    return RangeProgress("topic", Range(0, 0, 100), "a", 0, 0, 0, 0, received=received, quiet_s=quiet_s)


def test_kafka_is_gone_when_nothing_has_come_for_as_long_as_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(tries.time, "monotonic", lambda: now)
    silence = Silence(60.0)
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
    silence = Silence(60.0)
    now = 59.0
    silence.see(progress(received=0, quiet_s=0.1))
    silence.see(progress(received=70, quiet_s=40.0))
    assert silence.is_final(is_last=True)
    silence.see(progress(received=70, quiet_s=0.3))
    assert not silence.is_final(is_last=True)
