"""Several topics in one transfer: each has its dataset, all or nothing is said of each, and none stops another."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from fink_dask.ledger.lease import hold_lease
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.outdir import datasets_in, find_ledger
from tests.alerts.made_up import AlertKind
from tests.harness.cli import run_cli, transfer_arguments
from tests.harness.feed import Feed
from tests.harness.kafka import KafkaBroker
from tests.harness.oracle import Oracle, add_alerts, assert_exactly_once, fill_topic, make_topic, places, wait_for
from tests.harness.planned import plan_topic
from tests.harness.running import Running
from tests.harness.topics import create_topic, delete_topic, remove_topics, topic_names

pytestmark = pytest.mark.following

LIGHT = AlertKind.ZTF_LIGHT
FOLLOW = ("--follow", "--roll-interval", "1s", "-nconsumers", "3", "-batchsize", "1000")


@pytest.fixture
def stem(kafka: Any, topic_name: str) -> Iterator[str]:
    """Yield what the names of topics begin with that are deleted after the test."""
    yield topic_name
    for name in topic_names(kafka.bootstrap_servers):
        if name.startswith(topic_name):
            delete_topic(kafka.bootstrap_servers, name, missing_ok=True)


def fill(kafka: Any, topic: str, count: int, **more: Any) -> Oracle:
    return fill_topic(kafka.bootstrap_servers, topic, LIGHT, count, **{"partitions": 2, **more})


def transfer(kafka: Any, topic: str, outdir: Path, *more: str, **options: Any) -> Any:
    return run_cli(*transfer_arguments(kafka, topic, outdir, *more), **options)


def assert_each(outdir: Path, values: dict[str, Any]) -> None:
    """Fail unless each topic is there, exactly once and proved, and nothing else is."""
    assert {ledger.outdir.name for ledger in datasets_in(outdir)} == set(values)
    for topic, expected in values.items():
        assert_exactly_once(outdir / topic, expected)
        assert not find_ledger(outdir / topic).staged()
    verified = run_cli("verify", str(outdir))
    assert verified.returncode == 0, verified.stdout


def test_kills_of_a_follower_of_several_topics_cost_none_of_them_anything(
    private_kafka: Callable[..., KafkaBroker], tmp_path: Path
) -> None:
    broker, chance = private_kafka(), random.Random(7)
    stem, outdir = "ftransfer_ztf_2026-11-01_", tmp_path / "night"
    more = (*FOLLOW, "--until-count", "18000", "-batchsize", "50")
    for number in (1, 2):
        make_topic(broker.bootstrap_servers, f"{stem}{number}", LIGHT, 3)
    feeds = {
        f"{stem}{number}": Feed(broker.bootstrap_servers, f"{stem}{number}", 6000, 300, (1, 1, 1), seed=number)
        for number in (1, 2, 3)
    }
    with feeds[f"{stem}1"], feeds[f"{stem}2"]:
        for kill in range(4):
            running = Running(broker, f"{stem}*", outdir, *more)
            wait_for(lambda: len(datasets_in(outdir)) >= 2, "the first plans")
            if kill == 1:
                make_topic(broker.bootstrap_servers, f"{stem}3", LIGHT, 3)
                feeds[f"{stem}3"].__enter__()
                wait_for(lambda: find_ledger(outdir / f"{stem}3").exists(), "the topic that was added")
            time.sleep(chance.random() * 3)
            for worker in running.workers()[:1]:
                with suppress(psutil.Error):
                    worker.kill()
            time.sleep(chance.random())
            assert not running.is_over or kill > 1, running.finish()
            running.kill()
        running = Running(broker, f"{stem}*", outdir, *more, "--json")
        feeds[f"{stem}3"].finish()
    code, err = running.finish()
    assert code == 0, err
    assert_each(outdir, {topic: feeding.values for topic, feeding in feeds.items()})
    said = json.loads(running.out)
    assert [(topic["topic"], topic["alerts"]) for topic in said["topics"]] == [(topic, 6000) for topic in sorted(feeds)]
    assert (said["state"], said["alerts"]) == ("complete", 18_000)


@pytest.mark.sample
def test_names_and_patterns_each_get_a_dataset_and_go_on_together(
    kafka: Any, stem: str, dask_scheduler: str, tmp_path: Path
) -> None:
    night, there = tmp_path / "night", ("--scheduler", dask_scheduler)
    oracles = {name: fill(kafka, name, 200, seed=n) for n, name in enumerate((f"{stem}_a", f"{stem}_b", f"{stem}_c"))}
    typed = ("-topic", f"{stem}_[b-z]", "-topic", f"{stem}_a", "-partitionby", "time")
    first = transfer(kafka, f"{stem}_a", night, *typed, *there)
    assert first.returncode == 0, first.stderr
    assert_each(night, {name: oracle.values for name, oracle in oracles.items()})
    lines = first.stdout.splitlines()
    assert [line.split()[:3] for line in lines[1:5]] == [
        *([name, "complete", "200"] for name in oracles),
        ["3", "topics", "complete"],
    ]
    add_alerts(kafka.bootstrap_servers, f"{stem}_b", oracles[f"{stem}_b"], LIGHT, 100, seed=9, first_id=200)
    again = transfer(kafka, f"{stem}_?", night, "--json", *there)
    assert again.returncode == 0, again.stderr
    said = json.loads(again.stdout)
    assert [topic["run_alerts"] for topic in said["topics"]] == [0, 100, 0]
    assert (said["run_alerts"], said["alerts"]) == (100, 700)
    alone = transfer(kafka, f"{stem}_a", tmp_path / "alone", "--json", *there)
    assert json.loads(alone.stdout).keys() - {"command", "error"} == said["topics"][0].keys()
    assert_each(night, {name: oracle.values for name, oracle in oracles.items()})
    status = run_cli("status", str(night), "--json")
    assert status.returncode == 0, status.stderr
    assert [topic["missing_offsets"] for topic in json.loads(status.stdout)["topics"]] == [0, 0, 0]
    nothing = transfer(kafka, f"{stem}_?", night)
    assert "nothing new" in nothing.stderr


def test_a_topic_that_is_new_is_begun_as_the_others_were(kafka: Any, stem: str, tmp_path: Path) -> None:
    night = tmp_path / "night"
    oracles = {f"{stem}_a": fill(kafka, f"{stem}_a", 50)}
    assert transfer(kafka, f"{stem}_*", night, "-partitionby", "time", "--columns", "candid").returncode == 0
    oracles[f"{stem}_b"] = fill(kafka, f"{stem}_b", 50, seed=5)
    for more in ("--dry-run", "--json"):
        result = transfer(kafka, f"{stem}_*", night, more)
        assert result.returncode == 0, result.stderr
    assert_each(night, {name: oracle.values for name, oracle in oracles.items()})
    first, second = (find_ledger(night / name).begun_with() for name in oracles)
    assert (second.partitionby, second.columns) == (first.partitionby, first.columns) == (("time",), ("candid",))


def test_a_topic_that_fails_stops_no_other_and_is_said(kafka: Any, stem: str, tmp_path: Path) -> None:
    from tests.harness.producer import produce

    night = tmp_path / "night"
    good = fill(kafka, f"{stem}_good", 200)
    bad = fill(kafka, f"{stem}_bad", 100)
    produce(kafka.bootstrap_servers, f"{stem}_bad", [b"no alert"])
    create_topic(kafka.bootstrap_servers, f"{stem}_mute", 1)
    produce(kafka.bootstrap_servers, f"{stem}_mute", [b"x"])
    create_topic(kafka.bootstrap_servers, f"{stem}_void", 1)
    names = ("-topic", f"{stem}_gone", "--on-bad-record", "fail")
    result = transfer(kafka, f"{stem}_*", night, *names, "--json")
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    said = {topic["topic"].removeprefix(f"{stem}_"): topic for topic in json.loads(result.stdout)["topics"]}
    assert {name: topic["state"] for name, topic in said.items()} == {
        "bad": "failed",
        "gone": "failed",
        "good": "complete",
        "mute": "failed",
        "void": "complete",
    }
    assert f"{stem}_gone" in said["gone"]["error"]
    assert "--schema FILE" in said["mute"]["error"]
    assert "fail" not in said["good"].get("error", "")
    assert result.stderr.count("other topics") == 3
    assert_exactly_once(night / f"{stem}_good", good.values)
    # The ranges of the bad one that hold no bad record are there.
    assert set(places(night / f"{stem}_bad")) <= set(bad.values)
    partial = transfer(kafka, f"{stem}_bad", night, "-topic", f"{stem}_good", "--json")
    assert partial.returncode == 3, partial.stderr
    assert json.loads(partial.stdout)["state"] == "partial"
    table = run_cli("verify", str(night))
    assert table.returncode == 3, table.stdout
    assert_exactly_once(night / f"{stem}_bad", bad.values)


def test_topics_that_appear_are_joined_and_one_that_is_deleted_fails_alone(
    private_kafka: Callable[..., KafkaBroker], tmp_path: Path
) -> None:
    kafka, stem, night = private_kafka(), "ftransfer_ztf_2026-11-01_", tmp_path / "night"
    oracles = {f"{stem}1": fill(kafka, f"{stem}1", 100), f"{stem}2": fill(kafka, f"{stem}2", 100)}
    running = Running(kafka, f"{stem}*", night, *FOLLOW, "--until-count", "700", "--json")
    wait_for(lambda: len(datasets_in(night)) == 2 or running.is_over, "the first plans")
    wait_for(lambda: sum(places(night / name).total() for name in oracles) == 200, "the first alerts")
    remove_topics(kafka.bootstrap_servers, f"{stem}1")
    oracles[f"{stem}3"] = fill(kafka, f"{stem}3", 300)
    add_alerts(kafka.bootstrap_servers, f"{stem}2", oracles[f"{stem}2"], LIGHT, 100, seed=1, first_id=100)
    assert f"{stem}1" in running.wait_until_said("other topics")
    add_alerts(kafka.bootstrap_servers, f"{stem}3", oracles[f"{stem}3"], LIGHT, 100, seed=2, first_id=300)
    code, err = running.finish()
    assert code == 1, err
    assert_each(night, {name: oracle.values for name, oracle in oracles.items()})


def test_a_signal_stops_all_of_them_in_order(kafka: Any, stem: str, tmp_path: Path) -> None:
    night, names = tmp_path / "night", [f"{stem}_{number}" for number in range(3)]
    for name in names:
        make_topic(kafka.bootstrap_servers, name, LIGHT, 3)
    feeds = [Feed(kafka.bootstrap_servers, name, 3000, 400, (1, 1, 1), seed=n) for n, name in enumerate(names)]
    with feeds[0], feeds[1], feeds[2]:
        running = Running(kafka, f"{stem}_*", night, *FOLLOW, "--idle-timeout", "10m", "--json")
        running.wait_until(lambda: sum(places(night / name).total() for name in names) > 0, "the first alerts")
        running.process.send_signal(signal.SIGTERM)
        code, err = running.finish()
        assert code == 143, err
        assert "again" in err
        assert json.loads(running.out)["state"] == "interrupted"
    result = transfer(kafka, f"{stem}_*", night, "-partitionby", "time")
    assert result.returncode == 0, result.stderr
    assert_each(night, {name: feeding.values for name, feeding in zip(names, feeds, strict=True)})


def test_restart_limit_dry_run_and_schemas_are_for_each(kafka: Any, stem: str, tmp_path: Path) -> None:
    night, both = tmp_path / "night", f"{stem}_*"
    for n, name in enumerate((f"{stem}_a", f"{stem}_b")):
        fill(kafka, name, 150, seed=n)
    dry = transfer(kafka, both, night, "--dry-run", "--json", cwd=tmp_path)
    assert [topic["offsets"] for topic in json.loads(dry.stdout)["topics"]] == [150, 150]
    assert not night.exists()
    jobs = ("--cluster", "slurm", "--cores", "1", "--memory", "2GB")
    assert transfer(kafka, both, night, "--dry-run", *jobs).stdout.count("#SBATCH -J") == 1
    assert "#SBATCH -J" in json.loads(transfer(kafka, both, night, "--dry-run", *jobs, "--json").stdout)["job_script"]
    limited = transfer(kafka, both, night, "--limit", "40", "--dump-schemas", "--json", cwd=tmp_path)
    assert limited.returncode == 0, limited.stderr
    assert [topic["alerts"] for topic in json.loads(limited.stdout)["topics"]] == [40, 40]
    assert {path.name for path in tmp_path.glob("avro_schema_*")} == {f"avro_schema_{stem}_{x}.json" for x in "ab"}
    refused = transfer(kafka, both, night, "--restart", cwd=tmp_path)
    assert refused.returncode == 2
    assert "2 topics" in refused.stderr
    again = transfer(kafka, both, night, "--restart", "--yes", "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert [topic["alerts"] for topic in json.loads(again.stdout)["topics"]] == [150, 150]
    assert not list(night.glob("*old*"))


def test_what_is_held_or_gone_fails_alone_and_a_pattern_is_waited_for(kafka: Any, stem: str, tmp_path: Path) -> None:
    night = tmp_path / "night"
    oracles = {f"{stem}_{x}": fill(kafka, f"{stem}_{x}", 30) for x in ("free", "held", "gone")}
    for name in (f"{stem}_held", f"{stem}_gone"):
        plan_topic(kafka.bootstrap_servers, name, night / name)
    remove_topics(kafka.bootstrap_servers, f"{stem}_gone")
    with hold_lease(Ledger(night / f"{stem}_held")):
        result = transfer(kafka, f"{stem}_*", night, "--json")
    assert result.returncode == 1, result.stderr
    said = {topic["topic"].removeprefix(f"{stem}_"): topic for topic in json.loads(result.stdout)["topics"]}
    assert {name: topic["state"] for name, topic in said.items()} == {
        "free": "complete",
        "gone": "failed",
        "held": "failed",
    }
    assert "another transfer" in said["held"]["error"]
    assert "30 planned offsets" in said["gone"]["error"]
    status = run_cli("status", str(night))
    assert "interrupted" in status.stdout
    again = transfer(kafka, f"{stem}_[fh]*", night)
    assert again.returncode == 0, again.stderr
    for name in (f"{stem}_free", f"{stem}_held"):
        assert_exactly_once(night / name, oracles[name].values)
    nothing = transfer(kafka, f"{stem}x*", tmp_path / "none", "--follow", "--idle-timeout", "2s")
    assert nothing.returncode == 1, nothing.stderr
    assert f"{stem}x*" in nothing.stderr
    assert "Traceback" not in nothing.stderr


def test_a_dataset_and_a_directory_of_datasets_are_not_mixed(kafka: Any, stem: str, tmp_path: Path) -> None:
    fill(kafka, f"{stem}_a", 20)
    assert transfer(kafka, f"{stem}_a", tmp_path / "one").returncode == 0
    assert transfer(kafka, f"{stem}_[a]", tmp_path / "many").returncode == 0
    fill(kafka, f"{stem}_c", 30)
    joined = transfer(kafka, f"{stem}_c", tmp_path / "many")
    assert joined.returncode == 0, joined.stderr
    assert [ledger.outdir.name for ledger in datasets_in(tmp_path / "many")] == [f"{stem}_a", f"{stem}_c"]
    failed = transfer(kafka, f"{stem}_none", tmp_path / "many")
    assert failed.returncode == 1
    assert failed.stderr.count(f"{stem}_none") == 1
    for topic, outdir, words in (
        (f"{stem}_*", "one", "several"),
        (f"{stem}_a", ".", str(tmp_path / "one")),
    ):
        for more in ((), ("--dry-run",)):
            result = transfer(kafka, topic, tmp_path / outdir, *more)
            assert result.returncode == 1, result.stderr
            assert words in result.stderr
            assert len(result.stderr.splitlines()) == 1
    nothing = transfer(kafka, f"{stem}_b*", tmp_path / "none")
    assert nothing.returncode == 1
    assert f"{stem}_a" in nothing.stderr
    assert not (tmp_path / "none").exists()


def test_datasets_of_one_topic_are_told_apart_by_their_names(kafka: Any, stem: str, tmp_path: Path) -> None:
    fill(kafka, f"{stem}_a", 20)
    for name in ("good", "worse"):
        assert transfer(kafka, f"{stem}_a", tmp_path / name).returncode == 0
    for file in (tmp_path / "worse").glob("*.parquet"):
        file.unlink()
    states = {"good": "complete", "worse": "failed"}
    for command in ("status", "verify"):
        table = run_cli(command, str(tmp_path)).stdout
        rows = {line.split()[0]: line for line in table.splitlines() if line.startswith(("good ", "worse "))}
        assert list(rows) == list(states)
        assert "2 datasets" in table
        said = json.loads(run_cli(command, str(tmp_path), "--json").stdout)["topics"]
        assert [(each["dataset"], each["topic"]) for each in said] == [(name, f"{stem}_a") for name in states]
    assert {each["dataset"]: each["state"] for each in said} == states
    nobody = run_cli("verify", str(tmp_path), "--against-kafka", "--bootstrap-servers", "127.0.0.1:1", "--json")
    found = {each["dataset"]: each for each in json.loads(nobody.stdout)["topics"]}
    assert {name: each["state"] for name, each in found.items()} == dict.fromkeys(states, "failed")
    assert "127.0.0.1:1" in found["good"]["error"]


def test_each_survey_is_compared_with_its_own_kafka_also_where_nothing_tells_that_of_the_first(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    places = tmp_path / "places"
    other = topic_name.replace("ztf", "lsst")
    for name, topic in (("a", other), ("b", topic_name)):
        fill(kafka, topic, 20)
        assert transfer(kafka, topic, places / name).returncode == 0
    delete_topic(kafka.bootstrap_servers, other)  # it is not reached in any case
    words = ("verify", str(places), "--against-kafka", "--json")
    home = tmp_path / "home"
    (home / ".finkclient").mkdir(parents=True)
    nobody = run_cli(*words, env={"HOME": str(home)})
    assert (nobody.returncode, "topics" in json.loads(nobody.stdout)) == (2, False)
    (home / ".finkclient" / "ztf_credentials.yml").write_text(f"servers: {kafka.bootstrap_servers}\n")
    said = run_cli(*words, env={"HOME": str(home)})
    found = {each["dataset"]: each for each in json.loads(said.stdout)["topics"]}
    assert {name: each["state"] for name, each in found.items()} == {"a": "failed", "b": "complete"}
    assert "lsst" in found["a"]["error"]
    assert found["b"]["kafka"]["problems"] == []
    assert said.returncode == 1
