"""The harness does what the other tests trust it to do."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from tests.harness import kafka_install
from tests.harness.kafka import ExternalKafka, KafkaBroker, watch
from tests.harness.kafka_install import HarnessError, ensure_kafka_jars
from tests.harness.producer import (
    NotAcknowledgedError,
    Produced,
    open_transaction,
    produce,
    produce_transaction,
    publish_schema,
)
from tests.harness.topics import (
    PATIENCE_S,
    add_partitions,
    client_config,
    create_topic,
    delete_records_before,
    delete_topic,
    partition_count,
    topic_names,
)

Kafka = KafkaBroker | ExternalKafka
VALUES = [f"alert {number}".encode() for number in range(2000)]


def consumer(bootstrap: str) -> Consumer:
    settings = {"group.id": "harness", "enable.partition.eof": True, "fetch.wait.max.ms": 10}
    return Consumer(client_config(bootstrap) | settings)


def messages(bootstrap: str, topic: str) -> Iterator[Message]:
    """Yield all that a read_committed reader sees, up to the end of every partition."""
    reader = consumer(bootstrap)
    left = partition_count(bootstrap, topic)
    reader.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in range(left)])
    deadline = time.monotonic() + PATIENCE_S
    while left:
        assert time.monotonic() < deadline, f"{topic}: {left} partitions not at their end after {PATIENCE_S:g} s"
        for message in reader.consume(1000, 0.1):
            error = message.error()
            if error is None:
                yield message
            elif error.code() == KafkaError._PARTITION_EOF:
                left -= 1
            else:
                raise KafkaException(error)
    reader.close()


def places(records: list[Produced]) -> set[tuple[int, int, str | None]]:
    return {(record.partition, record.offset, record.sha256) for record in records}


def read(bootstrap: str, topic: str) -> set[tuple[int, int, str | None]]:
    found = messages(bootstrap, topic)
    return {(one.partition(), one.offset(), hashlib.sha256(one.value()).hexdigest()) for one in found}


def test_oracle_knows_where_every_acknowledged_alert_is(kafka: Kafka, topic_name: str) -> None:
    create_topic(kafka.bootstrap_servers, topic_name)
    records = produce(kafka.bootstrap_servers, topic_name, iter(VALUES), seed=1)
    assert [record.index for record in records] == list(range(len(VALUES)))
    assert {record.partition for record in records} == set(range(10))
    assert [record.sha256 for record in records] == [hashlib.sha256(value).hexdigest() for value in VALUES]
    assert read(kafka.bootstrap_servers, topic_name) == places(records)


def test_the_same_seed_fills_the_same_partitions_so_a_failure_can_be_repeated(kafka: Kafka, topic_name: str) -> None:
    create_topic(kafka.bootstrap_servers, topic_name)
    first, again, other = (
        [record.partition for record in produce(kafka.bootstrap_servers, topic_name, VALUES[:100], seed=seed)]
        for seed in (7, 7, 8)
    )
    assert first == again != other


def test_oracle_never_counts_an_alert_that_was_refused(kafka: Kafka, topic_name: str) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, partitions=1, config={"max.message.bytes": "1000"})
    with pytest.raises(NotAcknowledgedError, match=r"2 records were not acknowledged: .* too large"):
        produce(kafka.bootstrap_servers, topic_name, [b"small", bytes(10_000)])


def test_tombstones_and_keys_reach_the_topic(kafka: Kafka, topic_name: str) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, partitions=1)
    records = produce(kafka.bootstrap_servers, topic_name, [None, b"alert"], keys=[b"gone", None])
    assert records[0].sha256 is None
    found = [(one.key(), one.value()) for one in messages(kafka.bootstrap_servers, topic_name)]
    assert found == [(b"gone", None), (None, b"alert")]


def test_schema_is_the_key_of_each_copy(kafka: Kafka, topic_name: str) -> None:
    name = publish_schema(kafka.bootstrap_servers, topic_name, '{"type": "long"}', copies=3)
    assert name == f"{topic_name}_schema"
    assert partition_count(kafka.bootstrap_servers, name) == 1
    assert [one.key() for one in messages(kafka.bootstrap_servers, name)] == [b'{"type": "long"}'] * 3


def test_aborted_alerts_are_holes_and_committed_ones_are_read(kafka: Kafka, topic_name: str) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, partitions=2)
    kept = produce_transaction(kafka.bootstrap_servers, topic_name, VALUES[:50], seed=1)
    dropped = produce_transaction(kafka.bootstrap_servers, topic_name, VALUES[50:100], commit=False, seed=2)
    after = produce(kafka.bootstrap_servers, topic_name, VALUES[100:110], seed=3)
    assert len(dropped) == 50
    assert read(kafka.bootstrap_servers, topic_name) == places(kept) | places(after)


def test_an_open_transaction_hides_what_follows_it_until_it_is_finished(kafka: Kafka, topic_name: str) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, partitions=1)
    before = produce(kafka.bootstrap_servers, topic_name, VALUES[:10])
    transaction = open_transaction(kafka.bootstrap_servers, topic_name, VALUES[10:20])
    after = produce(kafka.bootstrap_servers, topic_name, VALUES[20:30])
    assert read(kafka.bootstrap_servers, topic_name) == places(before)
    transaction.commit()
    assert read(kafka.bootstrap_servers, topic_name) == places(before + transaction.records + after)


def test_the_head_that_retention_removes_is_gone(kafka: Kafka, topic_name: str) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, partitions=1)
    records = produce(kafka.bootstrap_servers, topic_name, VALUES[:100])
    assert delete_records_before(kafka.bootstrap_servers, topic_name, 0, 40) == 40
    low, high = consumer(kafka.bootstrap_servers).get_watermark_offsets(
        TopicPartition(topic_name, 0), timeout=PATIENCE_S
    )
    assert (low, high) == (40, 100)
    assert read(kafka.bootstrap_servers, topic_name) == places(records[40:])


def test_topics_come_grow_and_go(kafka: Kafka, topic_name: str) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, partitions=2)
    assert topic_name in topic_names(kafka.bootstrap_servers)
    add_partitions(kafka.bootstrap_servers, topic_name, 5)
    assert partition_count(kafka.bootstrap_servers, topic_name) == 5
    delete_topic(kafka.bootstrap_servers, topic_name)
    assert topic_name not in topic_names(kafka.bootstrap_servers)
    with pytest.raises(KafkaException):
        partition_count(kafka.bootstrap_servers, topic_name)


@pytest.mark.faults
def test_alerts_outlive_a_restart_a_kill_and_a_freeze(
    private_kafka: Callable[..., KafkaBroker], topic_name: str
) -> None:
    broker = private_kafka({"log.retention.ms": "-1"})
    address = broker.bootstrap_servers
    create_topic(address, topic_name)
    records = produce(address, topic_name, VALUES[:100])

    first = broker.pid
    broker.restart()
    assert broker.pid != first
    assert broker.bootstrap_servers == address
    records += produce(address, topic_name, VALUES[100:200])

    broker.kill()
    with pytest.raises(HarnessError, match="does not run"):
        broker.pause()
    broker.start()

    broker.pause()
    with pytest.raises(KafkaException):
        consumer(address).list_topics(timeout=0.5)
    broker.resume()
    assert read(address, topic_name) == places(records)


def test_a_broker_that_cannot_start_says_why(private_kafka: Callable[..., KafkaBroker]) -> None:
    with pytest.raises(HarnessError, match=r"(?s)the end of .*broker\.log.*num\.partitions"):
        private_kafka({"num.partitions": "ten"})


@pytest.mark.faults
def test_a_killed_test_run_leaves_no_process_behind() -> None:
    code = (
        "import os, signal, subprocess; from tests.harness.kafka import watch\n"
        "watch(subprocess.Popen(['sleep', '300']).pid); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(kafka_install.PROJECT_ROOT)}
    # The sleeper holds the pipe of this output open: run() returns when it is gone, and raises where it stays.
    ended = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, timeout=60, check=False
    )
    assert ended.returncode == -signal.SIGKILL


def test_a_watchdog_sent_home_kills_nothing() -> None:
    with subprocess.Popen(["sleep", "300"]) as sleep:
        watch(sleep.pid).communicate(b"done\n")
        assert sleep.poll() is None
        sleep.kill()


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FINK_DASK_TEST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def install_tool(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a shell script before everything else on the path."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


MAVEN = """
echo run >> "$(dirname "$0")/runs"
for word; do case $word in -DoutputDirectory=*) out=${word#*=};; esac; done
mkdir -p "$out" && touch "$out/kafka-clients-4.3.0.jar"
"""


def test_a_broken_download_is_not_taken_for_kafka(
    tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_tool(tmp_path / "bin", "java", "echo 'openjdk version \"21.0.1\"' >&2", monkeypatch)
    install_tool(tmp_path / "bin", "mvn", MAVEN + "echo '[ERROR] no route to host'; exit 1", monkeypatch)
    for _ in range(2):
        with pytest.raises(HarnessError, match="no route to host"):
            ensure_kafka_jars()
        assert [path.name for path in (empty_cache / "kafka-4.3.0").iterdir()] == ["lock"]


def test_test_runs_that_start_together_download_once(
    tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_tool(tmp_path / "bin", "java", "echo 'openjdk version \"21.0.1\"' >&2", monkeypatch)
    install_tool(tmp_path / "bin", "mvn", MAVEN + f'touch "$out/{kafka_install.MAIN_JAR}"', monkeypatch)
    with ThreadPoolExecutor(4) as pool:
        libs = {future.result() for future in [pool.submit(ensure_kafka_jars) for _ in range(4)]}
    assert libs == {empty_cache / "kafka-4.3.0" / "lib"}
    assert (tmp_path / "bin" / "runs").read_text() == "run\n"


def test_a_missing_java_is_said_in_one_line_and_never_skipped(
    tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_tool(tmp_path / "bin", "java", "echo 'openjdk version \"1.8.0_402\"' >&2", monkeypatch)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(HarnessError, match="Java 17") as caught:
        ensure_kafka_jars()
    assert "\n" not in str(caught.value)
