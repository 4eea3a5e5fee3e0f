"""A topic in, a dataset on an object store out: exactly once, whatever is killed and whatever the store does."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import fink_dask
from fink_dask.cluster.client import open_client
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.restart import old_datasets
from fink_dask.store.location import locate
from tests.alerts.made_up import AlertKind
from tests.harness.cli import run_cli, transfer_arguments
from tests.harness.object_store import BUCKET, KEY_ID, SECRET, ObjectStore, S3Proxy, assert_on_store_once
from tests.harness.oracle import Oracle, add_alerts, assert_values_equal, fill_topic
from tests.harness.producer import produce
from tests.harness.running import Running

pytestmark = pytest.mark.stores

COUNT = 6_000
PARTITIONS = 6


@pytest.fixture(scope="module")
def oracle(kafka: Any, topic: str) -> Oracle:
    return fill_topic(kafka.bootstrap_servers, topic, AlertKind.ZTF_LIGHT, COUNT, partitions=PARTITIONS)


def finish(kafka: Any, topic: str, store: ObjectStore, url: str, oracle: Oracle) -> str:
    """Run once more, and hold the dataset against what was published; returns what the run said."""
    result = run_cli(*transfer_arguments(kafka, topic, Path(), "-partitionby", "time", "-outdir", url))
    assert result.returncode == 0, result.stderr
    assert_on_store_once(store, url, oracle)
    verified = run_cli("verify", url)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    return result.stdout + result.stderr


@pytest.mark.sample
def test_a_topic_becomes_a_dataset_on_a_store(
    kafka: Any, topic_name: str, object_store: ObjectStore, store_url: str, tmp_path: Path
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 600, partitions=2)
    arguments = transfer_arguments(kafka, topic_name, Path(), "-partitionby", "finkclass", "-outdir", store_url)
    preview = run_cli(*arguments, "--dry-run", cwd=tmp_path)
    assert preview.returncode == 0, preview.stderr
    assert f"into {store_url} " in preview.stdout
    assert object_store.files("") == [] or not object_store.files(store_url.split("/")[3])
    object_store.wire.requests.clear()
    result = run_cli(*arguments, "-v", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"dataset    {store_url}\n" in result.stdout
    assert_on_store_once(object_store, store_url, oracle)
    assert SECRET not in result.stdout + result.stderr
    held = [path.read_bytes() for path in (object_store.folder / "data").rglob("*") if path.is_file()]
    assert not any(secret.encode() in content for content in held for secret in (SECRET, KEY_ID))
    dataset = fink_dask.open_dataset(store_url)
    table = dataset.to_table()
    assert table.num_rows == 600
    assert_values_equal(table, oracle, every=7)
    assert {path.partition("/finkclass=")[2].split("/")[0] for path in dataset.files} == {
        path.split("/finkclass=")[1].split("/")[0]
        for path in object_store.files(store_url.split("/")[3])
        if "/finkclass=" in path
    }
    again = run_cli(*arguments, cwd=tmp_path)
    assert "nothing new" in again.stderr
    for command in ("status", "verify", "quarantine"):
        done = run_cli(command, store_url, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    sampled = run_cli("verify", store_url, "--sample", "20", "--bootstrap-servers", kafka.bootstrap_servers)
    assert sampled.returncode == 0, sampled.stdout + sampled.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moment", range(5))
def test_a_kill_of_everything_at_a_random_moment_loses_and_repeats_nothing(
    kafka: Any, topic: str, oracle: Oracle, object_store: ObjectStore, store_url: str, moment: int
) -> None:
    chance = random.Random(moment)
    running = Running(kafka, topic, Path(), "-outdir", store_url)
    running.ledger = Ledger(locate(store_url))
    running.wait_until(running.ledger.exists, "the plan")
    markers = store_url.split("/")[3] + "/alerts.fink/markers"
    running.wait_until(lambda: len(object_store.files(markers)) >= moment, "some ranges")
    time.sleep(chance.random() * 0.3)
    assert running.kill(), "it was over before"
    finish(kafka, topic, object_store, store_url, oracle)


def test_a_store_that_fails_now_and_then_delays_a_transfer_and_nothing_else(
    kafka: Any, topic: str, oracle: Oracle, object_store: ObjectStore, store_url: str
) -> None:
    chance = random.Random(7)
    fates: Counter[str] = Counter()

    def rule(*_: Any) -> Any:
        fate = chance.choice(["500", "503", "reset", "lost", "slow"]) if chance.random() < 0.08 else "pass"
        fates[fate] += 1
        return fate

    object_store.wire.rule = rule
    result = run_cli(*transfer_arguments(kafka, topic, Path(), "-partitionby", "time", "-outdir", store_url))
    object_store.wire.mend()
    assert result.returncode == 0, result.stderr
    assert len(fates) == 6
    finish(kafka, topic, object_store, store_url, oracle)


@pytest.mark.timeout(600)
def test_a_store_that_stays_away_ends_the_run_in_one_line_and_the_same_command_goes_on(
    kafka: Any, topic: str, oracle: Oracle, object_store: ObjectStore, store_url: str
) -> None:
    def rule(method: str, path: str, _: Mapping[str, str]) -> Any:
        if method == "PUT" and "/markers/" in path:
            object_store.wire.rule = lambda *_: "reset"
        return "pass"

    object_store.wire.rule = rule
    arguments = transfer_arguments(kafka, topic, Path(), "-partitionby", "time", "-outdir", store_url)
    result = run_cli(*arguments, timeout_s=400)
    object_store.wire.mend()
    assert result.returncode == 1
    assert "answer" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert SECRET not in result.stderr
    finish(kafka, topic, object_store, store_url, oracle)


def test_a_store_that_was_killed_is_gone_on_with(
    kafka: Any, topic: str, oracle: Oracle, private_store: tuple[S3Proxy, ObjectStore]
) -> None:
    (proxy, store), url = private_store, f"s3://{BUCKET}/night/alerts"
    running = Running(kafka, topic, Path(), "-outdir", url)
    running.wait_until(lambda: len(store.files("night/alerts.fink/markers")) >= 1, "a range")
    proxy.kill()
    asked = store.wire.requests.total()
    running.wait_until(lambda: store.wire.requests.total() > asked + 3, "requests that nobody answers")
    proxy.start()
    store.wire.lead_to(proxy.port)
    running.hurry()
    code, err = running.finish()
    assert "Traceback" not in err
    # A process whose first request came meanwhile does not wait as long as a store may take to start.
    assert code == 0 or url in err.splitlines()[-1]
    finish(kafka, topic, store, url, oracle)


def test_a_second_transfer_is_refused_while_the_first_lives(
    kafka: Any, topic: str, oracle: Oracle, object_store: ObjectStore, store_url: str
) -> None:
    first = Running(kafka, topic, Path(), "-outdir", store_url)
    ledger = store_url.split("/")[3] + "/alerts.fink"
    first.wait_until(lambda: bool(object_store.files(f"{ledger}/staging")), "the first range")
    status = run_cli("status", store_url)
    assert "running    yes" in status.stdout, status.stderr
    second = run_cli(*transfer_arguments(kafka, topic, Path(), "-partitionby", "time", "-outdir", store_url))
    assert second.returncode == 1
    assert "another transfer" in second.stderr
    first.hurry()
    assert first.finish()[0] == 0
    finish(kafka, topic, object_store, store_url, oracle)


def test_a_dataset_on_a_store_is_begun_again_also_after_a_kill(
    kafka: Any, topic: str, oracle: Oracle, object_store: ObjectStore, store_url: str
) -> None:
    finish(kafka, topic, object_store, store_url, oracle)
    before = Ledger(locate(store_url))
    running = Running(kafka, topic, Path(), "-outdir", store_url, "--restart", "--yes")
    again = store_url.split("/")[3] + "/alerts.fink/again/00000001"
    running.wait_until(lambda: len(object_store.files(f"{again}/markers")) >= 1, "a range")
    assert running.kill(), "it was over before"
    (old,) = old_datasets(before)
    assert old.alerts == COUNT
    finish(kafka, topic, object_store, store_url, oracle)
    assert old_datasets(before) == []
    assert not before.exists()


def test_what_was_removed_or_damaged_on_a_store_is_fetched_again(
    kafka: Any, topic: str, oracle: Oracle, object_store: ObjectStore, store_url: str
) -> None:
    finish(kafka, topic, object_store, store_url, oracle)
    ledger = Ledger(locate(store_url))
    removed, damaged, unmarked, *_ = ledger.markers(ledger.plans())
    (ledger.outdir / removed.files[0].path).unlink()
    (ledger.outdir / damaged.files[0].path).write_bytes(b"x" * damaged.files[0].size)
    ledger.marker_path(unmarked.range).write_bytes(b"{}")
    verified = run_cli("verify", store_url)
    assert verified.returncode == 1
    assert "missing" in verified.stdout
    assert "content" in verified.stdout
    repaired = run_cli("repair", store_url, "--bootstrap-servers", kafka.bootstrap_servers)
    assert repaired.returncode == 0, repaired.stdout + repaired.stderr
    finish(kafka, topic, object_store, store_url, oracle)


def test_records_that_can_not_be_decoded_are_put_aside_on_a_store_and_retried(
    kafka: Any, topic_name: str, object_store: ObjectStore, store_url: str
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 200, partitions=2)
    produce(kafka.bootstrap_servers, topic_name, [b"no alert"] * 7)
    result = run_cli(*transfer_arguments(kafka, topic_name, Path(), "-partitionby", "time", "-outdir", store_url))
    assert result.returncode == 3, result.stderr
    assert_on_store_once(object_store, store_url, oracle)
    assert json.loads(run_cli("quarantine", store_url, "--json").stdout)["quarantined"] == 7
    retried = run_cli("quarantine", store_url, "--retry")
    assert retried.returncode == 3, retried.stderr
    assert run_cli("verify", store_url).returncode == 3


def test_a_topic_is_followed_into_a_store(
    kafka: Any, topic_name: str, object_store: ObjectStore, store_url: str
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 300, partitions=2)
    running = Running(
        kafka, topic_name, Path(), "-outdir", store_url, "--follow", "--roll-interval", "2s", "--until-count", "500"
    )
    markers = store_url.split("/")[3] + "/alerts.fink/markers"
    running.wait_until(lambda: bool(object_store.files(markers)), "a range")
    add_alerts(kafka.bootstrap_servers, topic_name, oracle, AlertKind.ZTF_LIGHT, 200, first_id=300)
    code, err = running.finish()
    assert code == 0, err
    assert_on_store_once(object_store, store_url, oracle)


def test_several_topics_become_datasets_on_a_store(
    kafka: Any, topic: str, oracle: Oracle, topic_name: str, object_store: ObjectStore, store_url: str
) -> None:
    other = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 200, partitions=2)
    arguments = transfer_arguments(kafka, topic, Path(), "--topic", topic_name, "-outdir", store_url)
    result = run_cli(*arguments)
    assert result.returncode == 0, result.stderr
    assert_on_store_once(object_store, f"{store_url}/{topic}", oracle)
    assert_on_store_once(object_store, f"{store_url}/{topic_name}", other)
    for command in ("status", "verify"):
        said = run_cli(command, store_url)
        assert said.returncode == 0, said.stderr
        assert "2 topics" in said.stdout


def test_workers_of_another_scheduler_write_to_a_store(
    kafka: Any, topic_name: str, object_store: ObjectStore, store_url: str, dask_scheduler: str
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 200, partitions=2)
    arguments = transfer_arguments(kafka, topic_name, Path(), "-outdir", store_url, "--scheduler", dask_scheduler)
    refused = run_cli(*arguments)
    assert refused.returncode == 1
    assert "credentials" in refused.stderr
    with open_client(dask_scheduler) as client:
        client.run(_give_credentials, object_store.environment)
        try:
            result = run_cli(*arguments)
        finally:
            client.run(_take_credentials, object_store.environment)
    assert result.returncode == 0, result.stderr
    assert_on_store_once(object_store, store_url, oracle)


def _give_credentials(environment: Mapping[str, str]) -> None:
    os.environ.update(environment)


def _take_credentials(environment: Mapping[str, str]) -> None:
    for name in environment:
        del os.environ[name]


REFUSED = {
    "directory": ["demo", "--outdir", "{}"],
}


@pytest.mark.sample
@pytest.mark.parametrize("words", REFUSED)
def test_what_an_object_store_can_not_do_is_refused_before_anything_is_done(
    words: str, object_store: ObjectStore, store_url: str, tmp_path: Path
) -> None:
    object_store.wire.requests.clear()
    result = run_cli(*(word.format(store_url) for word in REFUSED[words]), cwd=tmp_path)
    assert result.returncode == 2
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert not object_store.wire.requests
    assert list(tmp_path.iterdir()) == []
