"""When what has come is planned, and when a topic has been followed for long enough; and the lag that is kept of it."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from fink_dask.following.follow import Ending, Pace
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.summary import Lag, read_lag, write_lag
from fink_dask.planning.plan import Sizing
from fink_dask.settings import FollowSettings
from fink_dask.show.display import lag_words, lags_words

SIZING = Sizing(range_bytes=1000, nconsumers=2, mean_bytes={0: 10.0, 1: 10.0})


def test_what_has_come_is_planned_when_it_has_waited_or_fills_a_range() -> None:
    pace = Pace(roll_interval_s=5)
    spans = {0: (0, 3), 1: (0, 2)}
    pace.look(spans, 1.0)
    assert pace.due(spans, SIZING, 1.0) == {}
    spans = {0: (0, 3), 1: (0, 100)}
    pace.look(spans, 2.0)
    assert pace.due(spans, SIZING, 2.0) == {1: (0, 100)}
    pace.planned({1: (0, 100)})
    spans = {0: (0, 3), 1: (100, 101)}
    pace.look(spans, 5.5)
    assert pace.due(spans, SIZING, 5.5) == {}
    # Partition 1 has just begun to wait, and goes along with partition 0.
    assert pace.due(spans, SIZING, 6.0) == spans


def test_a_topic_is_idle_when_no_partition_has_grown_and_somebody_could_tell() -> None:
    ending = Ending(FollowSettings(idle_timeout_s=10), now=0.0)
    ending.look("topic", {0: 5}, 0.0)
    assert not ending.is_idle(9.9)
    assert ending.is_idle(10.0)
    ending.look("topic", {0: 6}, 10.0)
    assert not ending.is_idle(19.0)
    ending.excuse(100.0)
    assert not ending.is_idle(119.0)
    assert ending.is_idle(120.0)
    ending.look("topic", {0: 6, 1: 1}, 121.0)
    assert not ending.is_idle(130.0), "a new partition is growth"
    assert not Ending(FollowSettings(), now=0.0).is_idle(1e9)


def test_several_topics_are_idle_when_none_of_them_has_grown() -> None:
    ending = Ending(FollowSettings(idle_timeout_s=10, until_count=100), now=0.0)
    for now in range(9):
        ending.look("quiet", {0: 5}, float(now))
        ending.look("busy", {0: now}, float(now))
    assert not ending.is_idle(17.9)
    ending.look("new", {0: 1}, 17.0)
    assert not ending.is_idle(26.9), "a new topic is growth"
    assert ending.is_idle(27.0)
    assert not ending.is_enough(99)
    assert ending.is_enough(100)


def test_the_lag_is_kept_and_read_as_long_as_it_says_something(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "alerts")
    ledger.path.mkdir()
    assert read_lag(ledger, 10) is None
    lag = Lag(time.time(), {0: 5, 3: 700}, 12.5, newest_ms=1000)
    write_lag(ledger, lag)
    assert read_lag(ledger, 10) == lag
    write_lag(ledger, Lag(time.time() - 20, {}, 0.0))
    assert read_lag(ledger, 10) is None


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"at": "x"}', b"\xff", b"[" * 100_000])
def test_a_lag_that_is_none_is_no_lag(tmp_path: Path, text: bytes) -> None:
    ledger = Ledger(tmp_path / "alerts")
    ledger.path.mkdir()
    (ledger.path / "lag.json").write_bytes(text)
    assert read_lag(ledger, 10) is None


def test_the_worst_lag_is_named() -> None:
    worst = lag_words(Lag(100.0, {0: 5, 3: 700}, newest_ms=96_000))
    assert re.findall(r"\d+", worst) == ["705", "3", "700", "4"]
    assert lag_words(Lag(100.0, {0: 0})) == "lag 0"
    assert re.findall(r"\d+", lag_words(Lag(100.0, {3: 700}), 14)) == ["700", "3", "700", "14"]
    lags = {"a": Lag(100.0, {0: 5}, newest_ms=96_000), "b": Lag(100.0, {0: 3, 1: 4}, newest_ms=90_000)}
    assert re.findall(r"\d+|\bb\b", lags_words(lags)) == ["12", "4", "b", "7"]
    assert "2.0 h" in lag_words(Lag(7300.0, {0: 0}, newest_ms=100_000))
    assert lags_words({"a": lags["a"]}) == lag_words(lags["a"])
    assert lags_words({"a": Lag(100.0, {}), "b": Lag(100.0, {0: 0})}) == "lag 0"
