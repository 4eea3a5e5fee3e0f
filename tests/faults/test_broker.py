"""Rows 7 and 9 to 13: brokers die or pause, retention runs, topics grow, transactions and compaction leave gaps."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import ElectionType, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from fink_dask.kafka.admin import Admin
from fink_dask.kafka.inspect import ask_topic_id, ask_watermarks
from fink_dask.kafka.offsets import Watermarks
from fink_dask.kafka.overview import look_at_topics
from fink_dask.ledger.ledger import Ledger
from fink_dask.settings import KafkaSettings
from fink_dask.verifying.files import verify_dataset
from tests.alerts.made_up import AlertKind, avro_schema, encoded_alerts
from tests.harness.cli import run_cli, transfer_arguments
from tests.harness.kafka import KafkaBroker, KafkaCluster
from tests.harness.oracle import Oracle, add_alerts, assert_exactly_once, fill_topic, note, wait_for
from tests.harness.producer import open_transaction, produce, produce_transaction, publish_schema
from tests.harness.running import Running, finish
from tests.harness.topics import PATIENCE_S, add_partitions, client_config, create_topic, delete_records_before

pytestmark = pytest.mark.usefixtures("shared_dask")

LIGHT = AlertKind.ZTF_LIGHT
TOPIC = "ftransfer_ztf_2026-11-01_7"


@pytest.mark.faults
def test_07_a_broker_that_is_killed_and_comes_back_costs_nothing(
    private_kafka: Callable[..., KafkaBroker], tmp_path: Path
) -> None:
    broker = private_kafka()
    oracle = fill_topic(broker.bootstrap_servers, TOPIC, LIGHT, 12_000, partitions=6)
    running = Running(broker, TOPIC, tmp_path / "alerts")
    running.wait_until_committed(1)
    broker.kill()
    broker.start()
    running.hurry()
    code, err = running.finish()
    assert code == 0, err
    assert_exactly_once(running.outdir, oracle.values)


@pytest.mark.faults
def test_07_a_broker_that_pauses_five_seconds_in_every_ten_costs_nothing(
    private_kafka: Callable[..., KafkaBroker], tmp_path: Path
) -> None:
    broker = private_kafka()
    oracle = fill_topic(broker.bootstrap_servers, TOPIC, LIGHT, 30_000, partitions=6)
    over = threading.Event()

    def pause_now_and_then() -> None:
        while not over.is_set():
            broker.pause()
            over.wait(5)
            broker.resume()
            over.wait(5)

    running = Running(broker, TOPIC, tmp_path / "alerts")
    running.wait_until_it_reads()
    pausing = threading.Thread(target=pause_now_and_then)
    pausing.start()
    try:
        code, err = running.finish()
    finally:
        over.set()
        pausing.join()
    assert code == 0, err
    finish(broker, TOPIC, running.outdir, oracle)


@pytest.fixture
def kafka_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    cluster = KafkaCluster(tmp_path_factory.mktemp("cluster"), 3, {"min.insync.replicas": "1"})
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.discard()


@pytest.mark.faults
def test_07_one_of_three_brokers_that_is_killed_costs_nothing(kafka_cluster: KafkaCluster, tmp_path: Path) -> None:
    address = kafka_cluster.bootstrap_servers
    schema = avro_schema(LIGHT)
    create_topic(address, TOPIC, 6, replicas=3)
    create_topic(address, f"{TOPIC}_schema", 1, replicas=3)
    produce(address, f"{TOPIC}_schema", [b"0"], partitions=1, keys=[json.dumps(schema).encode()])
    oracle = Oracle(schema, {})
    add_alerts(address, TOPIC, oracle, LIGHT, 12_000)
    running = Running(kafka_cluster, TOPIC, tmp_path / "alerts")
    running.wait_until_committed(1)
    kafka_cluster.brokers[1].kill()
    code, err = running.finish()
    assert code == 0, err
    assert_exactly_once(running.outdir, oracle.values)


@pytest.mark.faults
def test_07_questions_are_answered_after_the_broker_that_was_asked_is_killed(kafka_cluster: KafkaCluster) -> None:
    address, partitions = kafka_cluster.bootstrap_servers, range(6)
    create_topic(address, TOPIC, len(partitions), replicas=3)
    admin = Admin(KafkaSettings(address))
    topic_id = ask_topic_id(admin, TOPIC)
    empty = dict.fromkeys(partitions, Watermarks(0, 0))
    wait_for(lambda: ask_watermarks(admin, {TOPIC: partitions})()[TOPIC] == empty, "each partition has a leader")
    # The one that it would ask for the id; it also leads partitions.
    asked = admin.client.describe_cluster().result().controller.id
    (killed,) = [broker for broker in kafka_cluster.brokers if broker.node.node_id == asked]
    killed.kill()
    others = AdminClient(client_config(address))
    wait_for(lambda: asked not in known(others.list_topics(timeout=PATIENCE_S)), "the others know that it is gone")
    watermarks = ask_watermarks(admin, {TOPIC: partitions})
    assert ask_topic_id(admin, TOPIC) == topic_id
    assert watermarks()[TOPIC] == empty

    # It comes back, and leads some of them again: who leads them now refuses what it is asked of them.
    killed.start()
    places = [TopicPartition(TOPIC, partition) for partition in partitions]

    def leads_again() -> bool:
        with suppress(KafkaException):  # before it has caught up with the others
            others.elect_leaders(ElectionType.PREFERRED, places).result()
        return asked in leaders(others.list_topics(timeout=PATIENCE_S))

    wait_for(leads_again, "it leads again what it led")
    assert ask_watermarks(admin, {TOPIC: partitions})()[TOPIC] == empty


@pytest.mark.faults
def test_07_a_question_to_a_broker_that_is_fenced_for_a_moment_is_answered_when_it_is_not(
    private_kafka: Callable[..., KafkaBroker],
) -> None:
    # The controller takes it for dead 3 s before it gives a sign of life again, and it names no controller meanwhile.
    broker = private_kafka({"broker.session.timeout.ms": "6000", "broker.heartbeat.interval.ms": "9000"})
    create_topic(broker.bootstrap_servers, TOPIC, partitions=1)
    others = AdminClient(client_config(broker.bootstrap_servers))
    settings = KafkaSettings(broker.bootstrap_servers)

    def wait_until_fenced() -> None:
        wait_for(lambda: not others.list_topics(timeout=PATIENCE_S).brokers, "it is fenced")

    wait_until_fenced()
    assert ask_topic_id(Admin(settings), TOPIC)
    wait_until_fenced()
    (overview,) = look_at_topics(settings).topics
    assert (overview.error, overview.partitions) == (None, 1)


def known(metadata: Any) -> set[int]:
    """Return the brokers that are there, and those that lead a partition, there or not."""
    return set(metadata.brokers) | leaders(metadata)


def leaders(metadata: Any) -> set[int]:
    return {each.leader for topic in metadata.topics.values() for each in topic.partitions.values()}


def summary_of(outdir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run_cli("verify", str(outdir), "--json").stdout)
    return found


def test_09_what_retention_took_before_the_run_is_declared_and_the_rest_arrives(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    outdir = tmp_path / "alerts"
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 600, partitions=3)
    delete_records_before(kafka.bootstrap_servers, topic_name, 1, 70)
    refused = run_cli(*transfer_arguments(kafka, topic_name, outdir, "--on-loss", "fail"))
    assert refused.returncode == 1
    assert f"{topic_name}[1] at offset 0" in refused.stderr
    assert not outdir.exists()

    dry = run_cli(*transfer_arguments(kafka, topic_name, outdir, "--on-loss", "fail", "--dry-run"))
    assert (dry.returncode, f"{topic_name}[1] at offset 0" in dry.stderr) == (1, True)
    dry = run_cli(*transfer_arguments(kafka, topic_name, outdir, "--dry-run"))
    assert "70 offsets" in dry.stdout
    result = run_cli(*transfer_arguments(kafka, topic_name, outdir))
    assert result.returncode == 3, result.stderr
    assert "70 offsets" in result.stderr
    assert_exactly_once(outdir, [place for place in oracle.values if place[0] != 1 or place[1] >= 70])
    summary = summary_of(outdir)
    assert (summary["state"], summary["alerts"], summary["lost"]) == ("partial", 530, 70)
    (marker,) = [marker for marker in Ledger(outdir).markers(Ledger(outdir).plans()) if marker.lost]
    assert marker.lost == ((0, 70),)
    assert marker.lost_at is not None
    again = run_cli(*transfer_arguments(kafka, topic_name, outdir))
    assert again.returncode == 3
    assert "nothing new" in again.stderr


@pytest.mark.faults
@pytest.mark.parametrize("limit", [10, 100])
def test_09_a_limit_counts_what_is_there_and_not_what_is_gone(
    kafka: Any, topic_name: str, tmp_path: Path, limit: int
) -> None:
    outdir = tmp_path / "alerts"
    fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 300, partitions=2)
    for partition in (0, 1):
        delete_records_before(kafka.bootstrap_servers, topic_name, partition, 50)
    result = run_cli(*transfer_arguments(kafka, topic_name, outdir, "--limit", str(limit)))
    assert result.returncode == 3, result.stderr
    assert (summary_of(outdir)["alerts"], summary_of(outdir)["lost"]) == (limit, 100)


@pytest.mark.faults
def test_09_what_retention_takes_in_mid_range_and_between_two_runs_is_declared(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 9000, partitions=3)
    running = Running(kafka, topic_name, tmp_path / "alerts", "-nconsumers", "1")
    running.wait_until_it_reads()
    running.kill()
    ledger = running.ledger
    done = {marker.range.partition for marker in ledger.markers(ledger.plans())}
    for partition in {0, 1, 2} - done:
        delete_records_before(kafka.bootstrap_servers, topic_name, partition, 1000 + partition)
    failed = run_cli(
        *transfer_arguments(kafka, topic_name, running.outdir, "-partitionby", "time", "--on-loss", "fail")
    )
    assert failed.returncode == 1
    assert "retention" in failed.stderr
    result = run_cli(*transfer_arguments(kafka, topic_name, running.outdir, "-partitionby", "time"))
    assert result.returncode == 3, result.stderr
    lost = {(partition, offset) for partition in {0, 1, 2} - done for offset in range(1000 + partition)}
    assert_exactly_once(running.outdir, oracle.values.keys() - lost)
    found = verify_dataset(ledger)
    assert (found.problems, found.summary.lost) == ((), len(lost))


def test_09_a_topic_of_which_nothing_is_left_is_no_success(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 50, partitions=1)
    delete_records_before(kafka.bootstrap_servers, topic_name, 0, 50)
    result = run_cli(*transfer_arguments(kafka, topic_name, tmp_path / "alerts"))
    assert result.returncode == 1
    assert "50 offsets" in result.stderr


def test_11_a_partition_that_was_added_is_read_from_its_start(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    outdir = tmp_path / "alerts"
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 200, partitions=2)
    assert run_cli(*transfer_arguments(kafka, topic_name, outdir)).returncode == 0
    add_partitions(kafka.bootstrap_servers, topic_name, 5)
    add_alerts(kafka.bootstrap_servers, topic_name, oracle, LIGHT, 300, seed=1, first_id=5000)
    assert {partition for partition, _ in oracle.values} == {0, 1, 2, 3, 4}
    assert run_cli(*transfer_arguments(kafka, topic_name, outdir)).returncode == 0
    assert_exactly_once(outdir, oracle.values)


def test_12_transactions_leave_holes_and_no_aborted_alert(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    address, outdir = kafka.bootstrap_servers, tmp_path / "alerts"
    oracle = fill_topic(address, topic_name, LIGHT, 100, partitions=2)
    values = list(encoded_alerts(LIGHT, 400, seed=3, first_id=10_000))
    note(oracle, produce_transaction(address, topic_name, values[:100]), values[:100])
    produce_transaction(address, topic_name, values[100:300], commit=False)
    waiting = open_transaction(address, topic_name, values[300:])
    add_alerts(address, topic_name, (behind := Oracle(oracle.schema, {})), LIGHT, 50, seed=4, first_id=20_000)
    assert run_cli(*transfer_arguments(kafka, topic_name, outdir)).returncode == 0
    assert_exactly_once(outdir, oracle.values)
    note(oracle, waiting.commit(), values[300:])
    oracle.values |= behind.values
    # Nothing but aborted records at the end: a range of its own that holds no alert.
    produce_transaction(address, topic_name, values[:80], commit=False)
    assert run_cli(*transfer_arguments(kafka, topic_name, outdir)).returncode == 0
    assert_exactly_once(outdir, oracle.values)
    produce_transaction(address, topic_name, values[:80], commit=False)
    assert run_cli(*transfer_arguments(kafka, topic_name, outdir)).returncode == 0
    assert_exactly_once(outdir, oracle.values)
    assert verify_dataset(Ledger(outdir)).problems == ()


def test_13_a_compacted_topic_arrives_without_what_compaction_took(
    private_kafka: Callable[..., KafkaBroker], tmp_path: Path
) -> None:
    broker, outdir = private_kafka({"log.cleaner.backoff.ms": "100"}), tmp_path / "alerts"
    address = broker.bootstrap_servers
    schema = avro_schema(LIGHT)
    publish_schema(address, TOPIC, json.dumps(schema))
    compact = {"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.01"}
    create_topic(address, TOPIC, 1, config=compact)
    oracle = Oracle(schema, {})
    values = list(encoded_alerts(LIGHT, 40))
    note(oracle, produce(address, TOPIC, values, keys=[b"%d" % (number % 7) for number in range(40)]), values)
    deadline = time.monotonic() + PATIENCE_S
    generation = 0
    while True:
        newer = list(encoded_alerts(LIGHT, 1, seed=generation, first_id=1000 + generation))
        note(oracle, produce(address, TOPIC, newer, keys=[b"0"]), newer)
        generation += 1
        for path in (outdir, Ledger(outdir).path):
            if path.exists():
                path.rename(path.with_name(f"{path.name}-{generation}"))
        result = run_cli(*transfer_arguments(broker, TOPIC, outdir, "--schema", str(_schema_file(tmp_path, schema))))
        assert result.returncode == 0, result.stderr
        (*_, marker) = Ledger(outdir).markers(Ledger(outdir).plans())
        if sum(end - start for start, end in marker.holes) > 30:
            break
        assert time.monotonic() < deadline, "Kafka has not compacted the topic"
    holes = {(0, offset) for start, end in marker.holes for offset in range(start, end)}
    assert (0, 0) in holes
    assert_exactly_once(outdir, oracle.values.keys() - holes)
    assert verify_dataset(Ledger(outdir)).summary.state == "complete"


def _schema_file(tmp_path: Path, schema: dict[str, Any]) -> Path:
    path = tmp_path / "schema.avsc"
    path.write_text(json.dumps(schema))
    return path
