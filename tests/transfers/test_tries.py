"""When Kafka is given up: not for a moment in which many ranges get no answer at once."""

from __future__ import annotations

import pytest

from fink_dask.transfers import tries
from fink_dask.transfers.tries import Silence


def test_kafka_is_gone_when_nothing_has_got_on_for_a_minute_and_two_ranges_had_no_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(tries.time, "monotonic", lambda: now)
    silence = Silence()
    now = 8.0
    assert [silence.is_final() for _ in range(5)] == [False] * 5, "a network that is cut for some seconds"
    now = 30.0
    silence.end()
    now = 120.0
    assert not silence.is_final(), "one partition alone"
    assert silence.is_final()
    silence.end()
    assert not silence.is_final()
