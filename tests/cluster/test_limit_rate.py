"""All consumers together take no more of a line than they are told to, wherever they run."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fink_dask
from tests.alerts.made_up import AlertKind
from tests.harness.cli import PROGRAM, environment, run_cli, transfer_arguments
from tests.harness.dask import running_scheduler
from tests.harness.link import FarKafka, Line, far_kafka
from tests.harness.oracle import Oracle, assert_exactly_once, fill_topic

pytestmark = pytest.mark.links

RATE = 2_000_000
#: A span of seconds; the rate is an average over a few more. The topic takes twice as long: at twice the rate, all of
#: it would come within this.
SPAN_S, ALERTS = 5.0, 20_000
#: What each of two processes may ask for at once, and the plan.
AT_ONCE = 4_000_000
#: Batches as small as those of Fink; what comes at once is one batch at least.
BATCHES = {"batch.size": 30_000}


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarKafka]:
    with far_kafka(tmp_path_factory.mktemp("far"), Line()) as far:
        yield far


@pytest.fixture(scope="module")
def topic(far: FarKafka) -> tuple[str, Oracle]:
    kind, servers = AlertKind.ZTF_LIGHT, far.near.bootstrap_servers
    return "topic", fill_topic(servers, "topic", kind, ALERTS, partitions=6, options=BATCHES)


def most_taken(far: FarKafka, run: Callable[[], None]) -> int:
    """Run something; return the most bytes that went through the link within any `SPAN_S` of it.

    When they were counted is known to be between two moments: a busy machine does not make a span shorter.
    """
    seen: list[tuple[float, int, float]] = []
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.is_set():
            seen.append((time.monotonic(), far.link.moved.fetched, time.monotonic()))
            time.sleep(0.1)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        run()
    finally:
        is_over.set()
        watching.join()
    return max(
        later - before
        for number, (begun, before, _) in enumerate(seen)
        for _, later, at in seen[number:]
        if at - begun <= SPAN_S
    )


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_a_transfer_keeps_to_the_rate_on_all_its_workers_and_loses_nothing(
    far: FarKafka, topic: tuple[str, Oracle], tmp_path: Path, where: str
) -> None:
    name, oracle = topic
    arguments = transfer_arguments(far, name, tmp_path / "out", "--limit-rate", "2MB/s", "--nconsumers", "4")

    def run(*more: str) -> None:
        result = run_cli(*arguments, *more)
        assert result.returncode == 0, result.stderr
        assert re.search("limit .*16 Mbit/s", result.stderr)

    if where == "here":
        taken = most_taken(far, run)
    else:
        with running_scheduler() as (address, _):
            worker = [*PROGRAM[:1], "-m", "distributed.cli.dask_worker", address, "--no-dashboard", "--nthreads", "2"]
            second = subprocess.Popen(worker, stderr=subprocess.DEVNULL, env=environment())
            try:
                taken = most_taken(far, lambda: run("--scheduler", address))
            finally:
                second.terminate()
                second.wait(30)
    assert taken < SPAN_S * RATE + AT_ONCE
    assert_exactly_once(tmp_path / "out", oracle.values)


@pytest.mark.sample
def test_a_frame_keeps_to_the_rate(far: FarKafka, topic: tuple[str, Oracle]) -> None:
    name, oracle = topic
    counted: list[int] = []

    def run() -> None:
        frame = fink_dask.read_topic(name, far.bootstrap_servers, columns="candid", limit_rate="2MB/s")
        counted.append(len(frame))

    assert most_taken(far, run) < SPAN_S * RATE + AT_ONCE
    assert counted == [len(oracle.values)]
