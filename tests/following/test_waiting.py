"""A topic that is not there yet is waited for, with its schema and its first alert, as long as was asked for."""

from __future__ import annotations

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import fink_dask
from fink_dask.errors import BrokerError
from tests.alerts.made_up import AlertKind, avro_schema
from tests.harness.cli import run_cli, transfer_arguments
from tests.harness.oracle import Oracle, add_alerts, assert_exactly_once, fill_topic
from tests.harness.producer import publish_schema
from tests.harness.running import Running
from tests.harness.topics import create_topic, delete_topic

pytestmark = pytest.mark.following

LIGHT = AlertKind.ZTF_LIGHT
WAIT = ("--wait-for-topic", "10m")


def make_at_last(bootstrap: str, topic: str) -> Oracle:
    """Make a topic with its schema last: whoever waits for that finds all alerts."""
    oracle = Oracle(avro_schema(LIGHT), {})
    create_topic(bootstrap, topic, 2)
    add_alerts(bootstrap, topic, oracle, LIGHT, 40)
    publish_schema(bootstrap, topic, json.dumps(oracle.schema))
    return oracle


@pytest.mark.sample
def test_a_topic_its_first_alert_and_its_schema_are_waited_for_and_each_is_said(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    bootstrap = kafka.bootstrap_servers
    running = Running(kafka, topic_name, tmp_path / "out", *WAIT, slowly=False)
    running.wait_until_said(f"topic {topic_name}")
    create_topic(bootstrap, topic_name, 2)
    running.wait_until_said(f"alert of {topic_name}")
    oracle = Oracle(avro_schema(LIGHT), {})
    add_alerts(bootstrap, topic_name, oracle, LIGHT, 40)
    running.wait_until_said(f"schema of {topic_name}")
    assert not list(tmp_path.iterdir()), "something was written before there was anything to transfer"
    publish_schema(bootstrap, topic_name, json.dumps(oracle.schema))
    code, err = running.finish()
    assert code == 0, err
    assert_exactly_once(tmp_path / "out", oracle.values)


@pytest.mark.parametrize("more", [(), ("--dry-run",), ("--dump-schemas",), ("--follow",)], ids=" ".join)
def test_ctrl_c_ends_the_waiting_and_nothing_is_written(
    kafka: Any, topic_name: str, tmp_path: Path, more: tuple[str, ...]
) -> None:
    running = Running(kafka, topic_name, tmp_path / "out", *WAIT, *more, slowly=False)
    running.wait_until_said(f"topic {topic_name}")
    running.signal(signal.SIGINT)
    code, err = running.finish()
    assert (code, "Traceback" in err) == (130, False), err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("there", "words"), [("nothing", "created"), ("topic", "empty"), ("alerts", "--schema")])
def test_when_the_time_is_over_what_is_lacking_is_said_as_always(
    kafka: Any, topic_name: str, tmp_path: Path, there: str, words: str
) -> None:
    if there != "nothing":
        create_topic(kafka.bootstrap_servers, topic_name, 1)
    if there == "alerts":
        add_alerts(kafka.bootstrap_servers, topic_name, Oracle({}, {}), LIGHT, 5)
    result = run_cli(*transfer_arguments(kafka, topic_name, tmp_path / "out", "--wait-for-topic", "0.1s"))
    assert result.returncode == (0 if there == "topic" else 1), result.stderr
    assert words in result.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_the_one_of_several_topics_that_is_to_come_is_waited_for(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    bootstrap, later, night = kafka.bootstrap_servers, f"{topic_name}_later", tmp_path / "night"
    oracles = {topic_name: fill_topic(bootstrap, topic_name, LIGHT, 40, partitions=1)}
    running = Running(kafka, topic_name, night, "-topic", f"{later[:-1]}*", *WAIT, slowly=False)
    running.wait_until_said(f"{later[:-1]}*")
    oracles[later] = make_at_last(bootstrap, later)
    code, err = running.finish()
    assert code == 0, err
    for topic, oracle in oracles.items():
        assert_exactly_once(night / topic, oracle.values)
    for name in (later, f"{later}_schema"):
        delete_topic(bootstrap, name)


def test_a_follower_waits_for_the_topic_too(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    more = ("--follow", "--until-count", "40", "--roll-interval", "1s")
    running = Running(kafka, topic_name, tmp_path / "out", *WAIT, *more, slowly=False)
    running.wait_until_said(f"topic {topic_name}")
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 40, partitions=2)
    code, err = running.finish()
    assert code == 0, err
    assert_exactly_once(tmp_path / "out", oracle.values)


def test_a_call_waits_as_a_command_does(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    bootstrap = kafka.bootstrap_servers
    with pytest.raises(BrokerError, match=topic_name):
        fink_dask.plan(topic_name, tmp_path / "out", bootstrap, wait_for_topic=0.1)
    with ThreadPoolExecutor(1) as thread:
        planned = thread.submit(fink_dask.plan, topic_name, tmp_path / "out", bootstrap, wait_for_topic="10m")
        make_at_last(bootstrap, topic_name)
        assert planned.result().offsets == 40
