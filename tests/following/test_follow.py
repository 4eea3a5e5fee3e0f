"""A topic is followed while it is filled: nothing is lost or repeated, whatever is killed, and there is an end."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from fink_dask.ledger.ledger import Ledger
from fink_dask.settings import RECONNECT_TIMEOUT_S
from tests.alerts.made_up import AlertKind
from tests.harness.cli import run_cli, transfer_arguments
from tests.harness.feed import Feed
from tests.harness.kafka import KafkaBroker
from tests.harness.oracle import add_alerts, assert_exactly_once, fill_topic, make_topic, places, wait_for
from tests.harness.running import Running
from tests.harness.topics import add_partitions, delete_topic

pytestmark = pytest.mark.following

LIGHT = AlertKind.ZTF_LIGHT
FOLLOW = ("--follow", "--roll-interval", "1s", "--idle-timeout", "4s", "-nconsumers", "3")


def feed(kafka: Any, topic: str, count: int, per_second: float, held: int = 0) -> Feed:
    return Feed(kafka.bootstrap_servers, topic, count, per_second, (1,) * 10, held=held)


def assert_complete(outdir: Path, values: Any) -> None:
    assert_exactly_once(outdir, values)
    verified = run_cli("verify", str(outdir))
    assert verified.returncode == 0, verified.stdout
    assert not Ledger(outdir).staged()


def test_what_comes_while_it_is_followed_arrives_once_and_can_be_read_before_the_loading_ends(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    make_topic(kafka.bootstrap_servers, topic_name, LIGHT)
    more = (*FOLLOW, "--idle-timeout", "10m", "--until-count", "6000", "-batchsize", "1000", "--json")
    with feed(kafka, topic_name, 6000, 1500, held=1000) as feeding:
        running = Running(kafka, topic_name, tmp_path / "alerts", *more)
        running.wait_until(lambda: any(running.outdir.rglob("*.parquet")), "the first file")
        assert not feeding.is_over
        status = json.loads(run_cli("status", str(running.outdir), "--json").stdout)
        assert status["running"]
        assert status["freshness_s"] >= 0
        # What is held comes in another look than the first.
        wait_for(lambda: sum(places(running.outdir).values()) == 5000, "what is not held")
    code, err = running.finish()
    assert code == 0, err
    assert json.loads(running.out)["alerts"] == 6000
    assert len(running.ledger.plans()) > 1
    assert_complete(running.outdir, feeding.values)


def test_kills_of_everything_of_workers_and_of_the_broker_cost_a_follower_nothing(
    private_kafka: Callable[..., KafkaBroker], tmp_path: Path
) -> None:
    broker, chance = private_kafka(), random.Random(5)
    topic, outdir = "ftransfer_ztf_2026-11-01_8", tmp_path / "alerts"
    make_topic(broker.bootstrap_servers, topic, LIGHT)
    with feed(broker, topic, 30_000, 600) as feeding:
        for kill in range(5):
            # On a slow machine the feed may be over before the last kill is; a follower must not be.
            running = Running(broker, topic, outdir, *FOLLOW, "--idle-timeout", "10m", "-batchsize", "100")
            running.wait_until_it_reads()
            time.sleep(chance.random() * 2)
            for worker in running.workers()[:1]:
                with suppress(psutil.Error):
                    worker.kill()
            if kill == 2:
                broker.kill()
                broker.start()
            time.sleep(chance.random())
            assert not running.is_over, running.finish()
            running.kill()
        running = Running(broker, topic, outdir, *FOLLOW, "-batchsize", "1000")
    code, err = running.finish()
    assert code == 0, err
    assert_complete(outdir, feeding.values)


def test_a_broker_that_is_away_is_waited_for_and_given_up_in_the_end(
    private_kafka: Callable[..., KafkaBroker], tmp_path: Path
) -> None:
    broker = private_kafka()
    topic, outdir = "ftransfer_ztf_2026-11-01_9", tmp_path / "alerts"
    oracle = fill_topic(broker.bootstrap_servers, topic, LIGHT, 500)
    running = Running(broker, topic, outdir, "--follow", "--roll-interval", "1s", "--until-count", "900")
    running.wait_until_committed(10)
    broker.kill()
    running.wait_until_said(f"{RECONNECT_TIMEOUT_S:g} s")
    broker.start()
    add_alerts(broker.bootstrap_servers, topic, oracle, LIGHT, 400, seed=1, first_id=500)
    code, err = running.finish()
    assert code == 0, err
    assert "again" in err
    assert_complete(outdir, oracle.values)
    running = Running(broker, topic, outdir, "--follow", "--until-count", "1000", "--reconnect-timeout", "3s")
    running.wait_until((running.ledger.path / "lag.json").exists, "the first look")
    broker.kill()
    code, err = running.finish()
    assert code == 1, err
    assert "3 s" in err
    assert "Traceback" not in err


def test_ctrl_c_while_kafka_is_away_says_what_is_safe_and_waits_for_no_answer(
    private_kafka: Callable[..., KafkaBroker], tmp_path: Path
) -> None:
    broker = private_kafka()
    topic, outdir = "ftransfer_ztf_2026-11-01_10", tmp_path / "alerts"
    oracle = fill_topic(broker.bootstrap_servers, topic, LIGHT, 500)
    running = Running(broker, topic, outdir, "--follow", "--roll-interval", "1s", "--json")
    running.wait_until_committed(10)
    broker.pause()  # its connections stay open, and nothing answers
    try:
        running.wait_until_said(f"{RECONNECT_TIMEOUT_S:g} s")
        running.signal(signal.SIGINT)
        code, err = running.finish()
    finally:
        broker.resume()
    assert code == 130, err
    assert json.loads(running.out)["alerts"] == 500
    assert_exactly_once(outdir, oracle.values)


@pytest.mark.sample
def test_it_ends_when_the_announced_number_is_there(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    make_topic(kafka.bootstrap_servers, topic_name, LIGHT)
    # For ever, if it were for the interval.
    more = ("--follow", "--until-count", "3000", "--roll-interval", "1h", "-batchsize", "1000")
    with feed(kafka, topic_name, 3000, 1000) as feeding:
        running = Running(kafka, topic_name, tmp_path / "alerts", *more)
    code, err = running.finish()
    assert code == 0, err
    assert_complete(running.outdir, feeding.values)


def test_it_ends_at_a_time_with_what_is_there_then(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 300)
    outdir = tmp_path / "alerts"
    end = datetime.now(UTC) + timedelta(seconds=12)
    running = Running(kafka, topic_name, outdir, "--follow", "--until", end.isoformat(), "--roll-interval", "1h")
    wait_for(lambda: running.is_over or (outdir.exists() and places(outdir).total() == 300), "the first alerts")
    before = dict(oracle.values)
    add_alerts(kafka.bootstrap_servers, topic_name, oracle, LIGHT, 200, seed=1, first_id=300)
    # On a machine that is so slow that the time has come by now, nobody can say which of these it must have.
    wanted = oracle.values if datetime.now(UTC) < end else before
    code, err = running.finish()
    assert code in {0, 3}, err
    assert datetime.now(UTC) >= end
    found = places(outdir)
    assert wanted.keys() <= found.keys() <= oracle.values.keys()
    assert_complete(outdir, found)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_completes_what_is_on_its_way(
    kafka: Any, topic_name: str, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    make_topic(kafka.bootstrap_servers, topic_name, LIGHT)
    with feed(kafka, topic_name, 9000, 900, held=1000) as feeding:
        running = Running(kafka, topic_name, tmp_path / "alerts", *FOLLOW, "--idle-timeout", "10m", "-batchsize", "100")
        running.wait_until_committed(1)
        os.kill(running.process.pid, number)
        code, err = running.finish()
        assert code == status, err
        assert "stopped" in err
        assert not running.ledger.staged()
        assert run_cli("status", str(running.outdir)).returncode == 0
    again = run_cli(*transfer_arguments(kafka, topic_name, running.outdir, "-partitionby", "time", *FOLLOW))
    assert again.returncode == 0, again.stderr
    assert_complete(running.outdir, feeding.values)


def test_11_partitions_that_are_added_while_it_is_followed_are_read_from_their_start(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 200, partitions=2)
    running = Running(
        kafka, topic_name, tmp_path / "alerts", "--follow", "--until-count", "600", "--roll-interval", "1s"
    )
    running.wait_until_committed(2)
    add_partitions(kafka.bootstrap_servers, topic_name, 4)
    add_alerts(kafka.bootstrap_servers, topic_name, oracle, LIGHT, 400, seed=1, first_id=200)
    assert {partition for partition, _ in oracle.values} == {0, 1, 2, 3}
    code, err = running.finish()
    assert code == 0, err
    assert_complete(running.outdir, oracle.values)


@pytest.mark.sample
def test_an_empty_topic_is_waited_for_and_given_up_when_nothing_comes(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    make_topic(kafka.bootstrap_servers, topic_name, LIGHT)
    outdir = tmp_path / "alerts"
    none = run_cli(*transfer_arguments(kafka, topic_name, outdir, "--follow", "--idle-timeout", "2s", "--json"))
    assert none.returncode == 0, none.stderr
    assert "empty" in none.stderr
    assert json.loads(none.stdout)["alerts"] == 0
    assert not outdir.exists()
    running = Running(kafka, topic_name, outdir, *FOLLOW, "--idle-timeout", "10m", "--until-count", "200")
    running.wait_until_said("empty")
    with feed(kafka, topic_name, 200, 1000) as feeding:
        pass
    code, err = running.finish()
    assert code == 0, err
    assert_complete(outdir, feeding.values)


def test_a_topic_that_is_made_anew_while_it_is_followed_is_refused(
    private_kafka: Callable[..., KafkaBroker], tmp_path: Path
) -> None:
    broker, topic = private_kafka(), "ftransfer_ztf_2026-11-01_10"
    fill_topic(broker.bootstrap_servers, topic, LIGHT, 100, partitions=2)
    running = Running(broker, topic, tmp_path / "alerts", "--follow", "--idle-timeout", "60s")
    running.wait_until_committed(2)
    for name in (topic, f"{topic}_schema"):
        delete_topic(broker.bootstrap_servers, name)
    fill_topic(broker.bootstrap_servers, topic, LIGHT, 300, partitions=2, seed=3)
    code, err = running.finish()
    assert code == 1, err
    assert "deleted" in err
    assert "Traceback" not in err


@pytest.mark.sample
@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--until-count", "5"), "--until-count needs --follow"),
        (("--idle-timeout", "5s"), "--idle-timeout needs --follow"),
        (("--follow", "--limit", "5"), "--limit"),
        (("--follow", "--roll-interval", "soon"), "--roll-interval 'soon'"),
        (("--follow", "--idle-timeout", "0"), "--idle-timeout"),
        (("--follow", "--until", "tomorrow"), "'tomorrow'"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(tmp_path: Path, more: tuple[str, ...], words: str) -> None:
    arguments = ("transfer", "--topic", "ftransfer_ztf_2026-11-01_1", "--outdir", str(tmp_path / "alerts"))
    result = run_cli(*arguments, "--bootstrap-servers", "127.0.0.1:1", *more)
    assert result.returncode == 2, result.stderr
    assert words in result.stderr
    assert "Traceback" not in result.stderr
