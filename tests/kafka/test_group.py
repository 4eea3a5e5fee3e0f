"""What a group has consumed is told to Kafka for the user's other tools, or it is said why not."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from fink_dask.errors import BrokerError, BrokerUnavailableError, SettingsError
from fink_dask.kafka.overview import commit_group_offsets, read_group_offsets
from fink_dask.settings import KafkaSettings, TransferSettings
from tests.harness.kafka import ExternalKafka, KafkaBroker
from tests.harness.kafka_settings import free_ports
from tests.harness.oracle import wait_for
from tests.harness.producer import produce
from tests.harness.topics import PATIENCE_S, client_config, create_topic

Kafka = KafkaBroker | ExternalKafka
#: Who waits for this does not end before the time limit of the test.
LONG_S = 1000.0


def committed(bootstrap: str, group_id: str, topic: str, partitions: int) -> list[int]:
    consumer = Consumer(client_config(bootstrap) | {"group.id": group_id})
    wanted = [TopicPartition(topic, partition) for partition in range(partitions)]
    found = [position.offset for position in consumer.committed(wanted, timeout=PATIENCE_S)]
    consumer.close()
    return found


def test_other_tools_go_on_where_the_transfer_ended(kafka: Kafka, topic_name: str) -> None:
    settings, group = KafkaSettings(kafka.bootstrap_servers), f"group-{uuid.uuid4()}"
    create_topic(kafka.bootstrap_servers, topic_name, partitions=3)
    produce(kafka.bootstrap_servers, topic_name, [b"alert"] * 30)
    commit_group_offsets(settings, topic_name, group, {0: 3, 2: 5})
    commit_group_offsets(settings, topic_name, group, {})
    assert committed(kafka.bootstrap_servers, group, topic_name, 3) == [3, -1001, 5]
    commit_group_offsets(settings, topic_name, group, {0: 4, 1: 1})
    assert committed(kafka.bootstrap_servers, group, topic_name, 3) == [4, 1, 5]


def test_a_group_that_somebody_uses_is_left_alone_and_that_is_said(kafka: Kafka, topic_name: str) -> None:
    group = f"group-{uuid.uuid4()}"
    create_topic(kafka.bootstrap_servers, topic_name, partitions=1)
    member = Consumer(client_config(kafka.bootstrap_servers) | {"group.id": group})
    member.subscribe([topic_name])
    wait_for(lambda: member.poll(0.1) is None and bool(member.assignment()), "a partition of its own")
    with pytest.raises(BrokerError, match=rf"{group}\b.* use\b") as caught:
        commit_group_offsets(
            KafkaSettings(kafka.bootstrap_servers, request_timeout_s=LONG_S), topic_name, group, {0: 1}
        )
    assert caught.value.topic == topic_name
    member.close()
    assert committed(kafka.bootstrap_servers, group, topic_name, 1) == [-1001]


def test_a_topic_that_is_gone_is_said(kafka: Kafka) -> None:
    with pytest.raises(BrokerError, match=r"gone.*nknown topic"):
        commit_group_offsets(KafkaSettings(kafka.bootstrap_servers), "gone", f"group-{uuid.uuid4()}", {0: 1})


def test_a_kafka_that_is_gone_ends_the_commit() -> None:
    settings = KafkaSettings(f"127.0.0.1:{free_ports(1)[0]}", request_timeout_s=1)
    with pytest.raises(BrokerUnavailableError, match=settings.bootstrap_servers) as caught:
        commit_group_offsets(settings, "topic", "group", {0: 1})
    assert "\n" not in str(caught.value)


def test_a_group_without_a_name_is_a_wrong_setting() -> None:
    with pytest.raises(SettingsError, match="name"):
        commit_group_offsets(KafkaSettings("127.0.0.1:1"), "topic", "", {0: 1})


@pytest.mark.parametrize("group", ["ada\0", "ada\udcff"])
def test_a_group_that_would_end_the_process_in_its_client_is_a_wrong_setting(group: str, tmp_path: Path) -> None:
    kafka = KafkaSettings("127.0.0.1:1", request_timeout_s=1)
    for asks in (
        lambda: TransferSettings("topic", tmp_path / "alerts", kafka, group_id=group),
        lambda: commit_group_offsets(kafka, "topic", group, {0: 1}),
        lambda: read_group_offsets(kafka, group, {"topic": [0]}),
    ):
        with pytest.raises(SettingsError, match=r"--group-id.*NUL"):
            asks()
