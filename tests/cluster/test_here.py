"""What is small is transferred in the command's own process: it may be ended at any moment, and is stopped in order."""

from __future__ import annotations

import json
import random
import signal
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from fink_dask.cluster import worker
from fink_dask.cluster.local import LocalWorkers
from fink_dask.ledger.ledger import Ledger
from fink_dask.planning.ahead import SMALL_ALERTS, SMALL_BYTES, is_small
from fink_dask.settings import KafkaSettings
from tests.alerts.made_up import AlertKind
from tests.harness.dashboard import metrics
from tests.harness.oracle import Oracle, assert_exactly_once, fill_topic, places, wait_for
from tests.harness.running import Running, finish

COUNT = 6_000
PARTITIONS = 6
KILLED = [pytest.param(0), *(pytest.param(moment, marks=pytest.mark.kills) for moment in range(1, 6))]


@pytest.fixture(scope="module")
def oracle(kafka: Any, topic: str) -> Oracle:
    return fill_topic(kafka.bootstrap_servers, topic, AlertKind.ZTF_LIGHT, COUNT, partitions=PARTITIONS)


@pytest.mark.parametrize("moment", KILLED)
def test_the_end_of_the_only_process_at_any_moment_loses_and_repeats_nothing(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path, moment: int
) -> None:
    chance = random.Random(moment)
    running = Running(kafka, topic, tmp_path / "alerts")
    running.wait_until_it_reads()
    running.wait_until_committed(moment % PARTITIONS)
    time.sleep(chance.random() * 0.2)  # the moment itself: anywhere between two commits
    assert [each.pid for each in running.family()] == [running.process.pid], "it has other processes"
    assert running.kill(), "it was over before"
    assert set(places(running.outdir)) <= set(oracle.values), "a reader saw an alert that was not published"
    finish(kafka, topic, running.outdir, oracle)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.kills),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.kills),
    ],
)
def test_a_signal_stops_it_in_good_order_and_the_same_command_resumes(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path, number: int, code: int
) -> None:
    running = Running(kafka, topic, tmp_path / "alerts", "--json")
    running.wait_until_committed(1)
    running.signal(number)
    ended, err = running.finish()
    assert ended == code, err
    assert "stopped" in err
    assert json.loads(running.out)["state"] == "interrupted", "it was not stopped in order"
    assert "Traceback" not in err
    assert not Ledger(running.outdir).staged()
    finish(kafka, topic, running.outdir, oracle)


def test_its_metrics_are_there_and_nothing_listens_beyond_this_machine(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path
) -> None:
    running = Running(kafka, topic, tmp_path / "alerts", "-nconsumers", "2")
    address = running.wait_until_said("Dask dashboard: ").split()[-1].removesuffix("/fink")
    running.wait_until_committed(1)
    wait_for(lambda: "fink_dask_offsets" in metrics(address), "a report")
    assert metrics(address)["fink_dask_offsets"] == {(topic,): COUNT}
    connections = psutil.Process(running.process.pid).net_connections()
    assert {each.laddr.ip for each in connections if each.status == "LISTEN"} == {"127.0.0.1"}
    where: list[str] = []

    def has_said_where() -> bool:
        page = f"{address}/json/identity.json"  # it fails where a worker reports while it is made
        with suppress(urllib.error.HTTPError), urllib.request.urlopen(page, timeout=60) as answer:
            where.append(json.load(answer)["address"])
        return bool(where)

    wait_for(has_said_where, "Dask's own page")
    assert where[0].startswith("inproc://127.0.0.1/"), "Dask warns on a machine that has no network"
    assert running.finish()[0] == 0
    assert_exactly_once(running.outdir, oracle.values)


def test_what_is_small_follows_from_alerts_and_bytes() -> None:
    assert is_small(0, 0)
    assert is_small(SMALL_ALERTS, SMALL_BYTES)
    assert not is_small(SMALL_ALERTS + 1, 1)
    assert not is_small(1, SMALL_BYTES + 1)


@pytest.mark.parametrize("is_refused", [True, False])
def test_readers_do_not_try_a_password_that_was_refused(is_refused: bool) -> None:
    pool = worker._connections
    workers = LocalWorkers(1, "127.0.0.1:0", kafka=KafkaSettings("127.0.0.1:1"))
    pool.close()
    workers.is_refused = lambda: is_refused
    try:
        workers.connect_here()
        assert bool(pool._idle) != is_refused
    finally:
        pool.close()
