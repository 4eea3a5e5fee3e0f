"""A scheduler, a worker or a Kafka that goes away is said in words, whenever the client learns of it; crowded lines."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from distributed import CancelledError

from fink_dask.cluster import readiness
from fink_dask.cluster.local import Cluster
from fink_dask.errors import BrokerUnavailableError, CrowdedLineError, InterruptedTransferError, TransferError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.progress.events import Note, RangeProgress
from fink_dask.ranges.memory import FULL_SHARE
from fink_dask.running import scheduling as job


class _Client:
    """A client whose scheduler dies while it is asked for its workers: Dask then knows of none, under no name."""

    id = "client"
    status = "running"

    def sync(self, ask: Any, callback_timeout: float) -> dict[str, Any]:
        self.status = "closed"
        return {}


CLUSTER = Cluster(_Client(), FULL_SHARE)


def test_a_client_that_closes_while_it_is_asked_is_no_unexpected_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "LOOK_S", 0.0)
    run = job._Run(Cluster(_Client(), FULL_SHARE), [], 1, lambda _: None, None, None, 300.0)
    run.check_cluster()
    with pytest.raises(TransferError, match="scheduler"):
        run.check_cluster()


def test_workers_that_all_lack_something_are_not_kept_for_as_long_as_jobs_may_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(readiness, "LOOK_S", 0.0)
    monkeypatch.setattr(readiness, "NO_WORKERS_S", 0.0)
    client = SimpleNamespace(status="running", sync=lambda *_, **__: {"workers": {"tcp://a:1": {}}, "n_workers": 1})
    found = readiness.WorkerPool(client, lambda _: None, math.inf)
    found.reject(("tcp://a:1", "no such directory"))
    with pytest.raises(TransferError, match="no such directory"):
        found.look()


class _LostResult:
    """A result that does not come."""

    key = "lost"

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def result(self, timeout: float) -> Any:
        raise self.error

    def release(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        # It was there, and is computed again behind other ranges.
        (TimeoutError(), "died"),
        (InterruptedTransferError("stopped"), "closed"),
        (CancelledError(), "cancelled"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_range_that_was_lost_with_its_worker_is_tried_again_and_fails_nothing(
    error: BaseException, words: str
) -> None:
    events: list[Any] = []
    identity = SimpleNamespace(topic="topic")
    item: Any = SimpleNamespace(
        topic="topic", range=OffsetRange(3, 10, 20), settings=SimpleNamespace(identity=identity)
    )
    run = job._Run(CLUSTER, [], 1, events.append, None, None, 300.0)
    future: Any = _LostResult(error)
    run._begin(future, [item])
    run._take(future)
    assert list(run._waiting) == [item]
    (note,) = [event for event in events if isinstance(event, Note)]
    assert note.text.startswith("topic[3] at offset 10: ")
    assert words in note.text
    run.raise_failures()


class _Crowded:
    """A range to which nothing came in time."""

    key = "crowded"

    def result(self, timeout: float) -> Any:
        raise CrowdedLineError("too many at once", "topic", 3, 10)

    def release(self) -> None:
        """Do nothing."""


def test_ranges_to_which_nothing_comes_in_time_all_at_once_go_on_one_after_the_other() -> None:
    events: list[Any] = []
    identity = SimpleNamespace(topic="topic")
    settings = SimpleNamespace(identity=identity, kafka=SimpleNamespace(limit_rate=None))
    items: list[Any] = [
        SimpleNamespace(topic="topic", range=OffsetRange(n, 0, 9), settings=settings) for n in range(16)
    ]
    run = job._Run(CLUSTER, [], 16, events.append, None, None, 300.0)
    futures: list[Any] = [_Crowded() for _ in items]
    for future, item in zip(futures, items, strict=True):
        run._begin(future, [item])
    for future in futures:
        run._take(future)
    assert sorted(item.range for item in run._waiting) == [item.range for item in items], "nothing is given up"
    assert run._at_once == 1
    (note,) = [event for event in events if isinstance(event, Note)]
    assert "16 ranges" in note.text
    run.raise_failures()


class _Silent:
    """A range of which nothing came for as long as is waited."""

    key = "silent"

    def result(self, timeout: float) -> Any:
        raise BrokerUnavailableError("nothing came", "topic", 3, 10)

    def release(self) -> None:
        """Do nothing."""


def test_when_kafka_is_gone_only_ranges_that_have_all_they_need_of_it_are_waited_for() -> None:
    identity = SimpleNamespace(topic="topic")
    settings = SimpleNamespace(identity=identity, kafka=SimpleNamespace(limit_rate=None))
    items: list[Any] = [SimpleNamespace(topic="topic", range=OffsetRange(n, 0, 9), settings=settings) for n in range(5)]
    run = job._Run(CLUSTER, [], 5, lambda _: None, None, None, reconnect_timeout_s=0.0)
    futures: list[Any] = [_Silent() for _ in items]
    for future, item in zip(futures, items, strict=True):
        run._begin(future, [item])
    for item, received in zip(items[2:], (8, 9, 0), strict=True):
        run._progress.put(RangeProgress("topic", item.range, "a", 0, 0, 0, 0, received=received, quiet_s=60.0))
    run._take(futures[0])
    assert run.unfinished(), "it may be one partition alone"
    run._take(futures[1])
    run.collect(0.0)
    assert run.unfinished(), "the fourth one only has to be written"
    run._take(futures[3])
    assert not run.unfinished(), "the others would wait for as long once more"
    with pytest.raises(TransferError, match="nothing came"):
        run.raise_failures()
