"""A topic that is published is one of Fink's: a transfer reads it, alert by alert; nothing is there twice or unsaid."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import fastavro
import pytest
from confluent_kafka import Consumer, Message, TopicPartition

from fink_dask.avro.container import SYNC_BYTES, block_head, header
from fink_dask.avro.schema import parse_schema
from fink_dask.demo.alerts import AlertKind, play_alerts
from fink_dask.kafka.publish import paced
from tests.alerts.made_up import avro_schema, encoded_alerts, made_up_alerts
from tests.harness.cli import PROGRAM, environment, remarks, run_cli, transfer_arguments
from tests.harness.oracle import places, wait_for
from tests.harness.producer import produce
from tests.harness.topics import client_config, create_topic, delete_topic, partition_count, topic_names

pytestmark = pytest.mark.usefixtures("shared_dask")

KIND = AlertKind.ZTF_LIGHT


def publish(kafka: Any, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return run_cli("publish", "--bootstrap-servers", kafka.bootstrap_servers, *arguments, **options)


def records(kafka: Any, topic: str) -> list[Message]:
    """Read all that a topic holds."""
    reader = Consumer(client_config(kafka.bootstrap_servers) | {"group.id": "none", "enable.partition.eof": True})
    found, ended = [], 0
    partitions = partition_count(kafka.bootstrap_servers, topic)
    reader.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
    try:
        while ended < partitions:
            for message in reader.consume(1000, timeout=1):
                ended += message.error() is not None
                found += [] if message.error() is not None else [message]
    finally:
        reader.close()
    return found


def values(kafka: Any, topic: str) -> Counter[bytes]:
    return Counter(message.value() for message in records(kafka, topic))


def write_file(path: Path, kind: AlertKind, count: int, codec: str = "null", first_id: int = 0) -> list[bytes]:
    """Write an Avro file as others do; returns the alerts as schemaless Avro."""
    with path.open("wb") as file:
        fastavro.writer(
            file, avro_schema(kind), made_up_alerts(kind, count, first_id=first_id), codec=codec, sync_interval=20_000
        )
    return list(encoded_alerts(kind, count, first_id=first_id))


@pytest.mark.parametrize("kind", [AlertKind.ZTF_LIGHT, AlertKind.LSST_LIGHT])
def test_the_transfer_that_it_names_can_be_typed_whatever_the_topic_is_called(
    kafka: Any, topic_name: str, kind: AlertKind, tmp_path: Path
) -> None:
    name = topic_name.replace("ftransfer_ztf_", "mine-")
    result = publish(kafka, "--topic", name, "--synthetic", "20", "--kind", kind)
    (named,) = [line for line in result.stdout.splitlines() if line.startswith("  transfer ")]
    program, *arguments = named.split()[1:]
    assert program == "fink-dask"
    quiet = {"FINK_DASK_DASHBOARD_ADDRESS": "127.0.0.1:0"}
    done = run_cli(*arguments, "-nconsumers", "1", env=quiet, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / name).glob("year=*/month=*/day=*/*.parquet"))
    for made in (name, f"{name}_schema"):
        delete_topic(kafka.bootstrap_servers, made)


def test_what_is_made_up_is_published_in_finks_conventions_and_transferred_whole(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    result = publish(kafka, "--topic", topic_name, "--synthetic", "300", "--seed", "7", "--rate", "5000", "--json")
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout)
    assert (said["topic"], said["alerts"], said["partitions"]) == (topic_name, 300, 10)
    found = records(kafka, topic_name)
    assert Counter(message.value() for message in found) == Counter(play_alerts(KIND, 300, seed=7))
    assert {message.key() for message in found} == {topic_name.encode()}
    assert len({message.partition() for message in found}) == 10, "alerts are scattered over all partitions"
    assert partition_count(kafka.bootstrap_servers, f"{topic_name}_schema") == 1
    (schema,) = {message.key() for message in records(kafka, f"{topic_name}_schema")}
    assert json.loads(schema) == avro_schema(KIND)
    ended = run_cli(*transfer_arguments(kafka, topic_name, tmp_path / "out", "-partitionby", "time"))
    assert ended.returncode == 0, ended.stderr
    assert places(tmp_path / "out") == {(each.partition(), each.offset()): 1 for each in found}


def test_a_topic_that_exists_is_left_alone_unless_it_is_added_to(kafka: Any, topic_name: str) -> None:
    assert publish(kafka, "--topic", topic_name, "--synthetic", "40", "--partitions", "3").returncode == 0
    before = values(kafka, topic_name)
    refused = publish(kafka, "--topic", topic_name, "--synthetic", "40")
    assert refused.returncode == 2
    assert "--append" in refused.stderr
    assert values(kafka, topic_name) == before
    copies = len(records(kafka, f"{topic_name}_schema"))
    assert publish(kafka, "--topic", topic_name, "--synthetic", "30", "--append").returncode == 0
    after = values(kafka, topic_name)
    assert after.total() == 70
    # The second thirty are other alerts than the first forty: the same arguments give no duplicates.
    assert after == before + Counter(play_alerts(KIND, 30, first_number=40))
    assert len(records(kafka, f"{topic_name}_schema")) == copies


@pytest.mark.parametrize("codec", ["null", "deflate"])
def test_files_are_published_byte_for_byte(kafka: Any, topic_name: str, tmp_path: Path, codec: str) -> None:
    alerts = write_file(tmp_path / "one.avro", AlertKind.LSST_LIGHT, 50, codec)
    alerts += write_file(tmp_path / "two.avro", AlertKind.LSST_LIGHT, 20, codec, first_id=50)
    result = publish(kafka, "--topic", topic_name, "one.avro", "two.avro", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "70 alerts" in result.stdout
    assert values(kafka, topic_name) == Counter(alerts)


def test_what_a_transfer_has_written_as_avro_can_be_published_again(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    assert publish(kafka, "--topic", topic_name, "--synthetic", "60").returncode == 0
    ended = run_cli(*transfer_arguments(kafka, topic_name, tmp_path / "out", "--outformat", "avro"))
    assert ended.returncode == 0, ended.stderr
    before = values(kafka, topic_name)
    files = [str(path) for path in (tmp_path / "out").rglob("*.avro")]
    again = publish(kafka, "--topic", topic_name, "--append", *files)
    assert again.returncode == 0, again.stderr
    assert values(kafka, topic_name) == before + before


def damaged(path: Path) -> None:
    """Write a file whose header is sound and whose alerts are not."""
    schema = parse_schema(json.dumps(avro_schema(KIND)))
    sync = b"s" * SYNC_BYTES
    path.write_bytes(header(schema, {}, sync) + block_head(3, 5) + b"wrong" + sync)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["light.avro", "lsst.avro"], "lsst.avro schema light.avro"),
        (["text.avro"], "text.avro Avro"),
        (["cut.avro"], "cut.avro Avro"),
        (["absent.avro"], "absent.avro"),
        (["numbers.avro"], "record"),
        ([], "FILES --synthetic"),
        (["light.avro", "--synthetic", "3"], "FILES --synthetic"),
        (["--synthetic", "0"], "'--synthetic'"),
        (["--synthetic", "3", "--rate", "0"], "'--rate'"),
        (["--synthetic", "3", "--rate", "nan"], "'--rate'"),
        (["--synthetic", "3", "--partitions", "0"], "'--partitions' 10,000"),
        (["--synthetic", "3", "--seed", "-1"], "'--seed'"),
        (["--synthetic", "3", "--kind", "sdss"], "'sdss'"),
    ],
)
def test_what_can_not_be_published_is_one_line_and_makes_no_topic(
    kafka: Any, topic_name: str, tmp_path: Path, files: list[str], words: str
) -> None:
    write_file(tmp_path / "light.avro", KIND, 5)
    write_file(tmp_path / "lsst.avro", AlertKind.LSST_LIGHT, 5)
    (tmp_path / "text.avro").write_text("no alerts")
    (tmp_path / "cut.avro").write_bytes((tmp_path / "light.avro").read_bytes()[:-100])
    with (tmp_path / "numbers.avro").open("wb") as file:
        fastavro.writer(file, "long", [1, 2])
    result = publish(kafka, "--topic", topic_name, *files, cwd=tmp_path)
    assert result.returncode in {1, 2}
    assert all(word in result.stderr for word in words.split()), result.stderr
    assert len(remarks(result.stderr)) == 1
    assert topic_name not in topic_names(kafka.bootstrap_servers)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("a b", "'a b'"),
        ("ftransfer_schema", r"\bftransfer\b"),
        (243 * "t", "242"),
    ],
)
def test_a_name_that_can_hold_no_alerts_is_refused_and_nothing_is_made(kafka: Any, name: str, word: str) -> None:
    result = publish(kafka, "--topic", name, "--synthetic", "3")
    assert result.returncode == 2
    assert re.search(word, result.stderr)
    assert name not in topic_names(kafka.bootstrap_servers)


def test_alerts_are_not_mixed_with_those_of_another_schema_or_of_none(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    assert publish(kafka, "--topic", topic_name, "--synthetic", "5", "--kind", "lsst-light").returncode == 0
    other = publish(kafka, "--topic", topic_name, "--synthetic", "5", "--append")
    assert (other.returncode, "different" in other.stderr) == (2, True), other.stderr
    bare, keyed = f"{topic_name}_bare", f"{topic_name}_keyed"
    for name, keys in ((bare, None), (keyed, [json.dumps(avro_schema(KIND)).encode()])):
        create_topic(kafka.bootstrap_servers, name, 1)
        produce(kafka.bootstrap_servers, name, [b"x"], keys=keys)
    for name, word in ((bare, "unknown"), (keyed, "keys")):
        refused = publish(kafka, "--topic", name, "--synthetic", "5", "--append")
        assert (refused.returncode, word in refused.stderr) == (2, True), refused.stderr
        assert values(kafka, name).total() == 1


def test_a_file_whose_alerts_are_damaged_is_named_and_what_was_sent_is_no_secret(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    damaged(tmp_path / "damaged.avro")
    result = publish(kafka, "--topic", topic_name, "damaged.avro", cwd=tmp_path)
    assert result.returncode == 1
    assert "damaged.avro: " in result.stderr
    assert "Traceback" not in result.stderr
    assert not records(kafka, topic_name)


def test_an_alert_that_kafka_refuses_fails_the_command(kafka: Any, topic_name: str) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, 2, {"max.message.bytes": "300"})
    create_topic(kafka.bootstrap_servers, f"{topic_name}_schema", 1)
    result = publish(kafka, "--topic", topic_name, "--synthetic", "5", "--append")
    assert result.returncode == 1
    assert "too large" in result.stderr
    assert not records(kafka, topic_name)


@pytest.mark.parametrize("rate", [1e-12, 5e-324])
def test_however_slow_a_rate_is_it_can_be_waited_for(rate: float) -> None:
    def wait(seconds: float) -> None:
        assert threading.Lock().acquire(timeout=seconds), "nobody has it, so that it is there at once"

    assert list(paced(range(3), rate, wait)) == [0, 1, 2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_says_how_many_alerts_the_topic_holds(
    kafka: Any, topic_name: str, tmp_path: Path, number: signal.Signals
) -> None:
    arguments = ["--topic", topic_name, "--synthetic", "200000", "--rate", "300"]
    process = subprocess.Popen(
        [*PROGRAM, "publish", "--bootstrap-servers", kafka.bootstrap_servers, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    wait_for(lambda: topic_name in topic_names(kafka.bootstrap_servers), "the topic")
    wait_for(lambda: len(records(kafka, topic_name)) > 100, "some alerts")
    process.send_signal(number)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 128 + number, err
    held = values(kafka, topic_name)
    assert held == Counter(play_alerts(KIND, held.total()))
    assert f"{held.total():,} of 200,000" in err
    assert len(remarks(err)) == 1
    assert out == ""
