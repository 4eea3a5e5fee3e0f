"""What a broker says of a topic is the truth, comes in seconds, and asking for it changes nothing."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from fink_dask.errors import BrokerError, BrokerUnavailableError, MissingSchemaError, SchemaError
from fink_dask.kafka.admin import Admin
from fink_dask.kafka.connection import Connection
from fink_dask.kafka.inspect import UNKNOWN_ID, Inspector, ask_topic_id, ask_watermarks, open_inspector
from fink_dask.kafka.offsets import Watermarks
from fink_dask.kafka.topics import schema_topic
from fink_dask.settings import KafkaSettings
from tests.harness.kafka import ExternalKafka, KafkaBroker
from tests.harness.kafka_settings import free_ports
from tests.harness.oracle import wait_for
from tests.harness.producer import open_transaction, produce, produce_transaction, publish_schema
from tests.harness.topics import (
    PATIENCE_S,
    client_config,
    create_topic,
    delete_records_before,
    delete_topic,
    topic_names,
)

Kafka = KafkaBroker | ExternalKafka
SCHEMA = b'{"type": "record", "name": "alert", "fields": []}'
#: Who waits for this does not end before the time limit of the test.
LONG_S = 1000.0


@pytest.fixture(scope="module")
def inspector(kafka: Kafka) -> Iterator[Inspector]:
    with open_inspector(KafkaSettings(kafka.bootstrap_servers, request_timeout_s=LONG_S)) as inspector:
        yield inspector


def wait_for_stable(inspector: Inspector, topic: str, offset: int) -> None:
    """Wait for the marker of a transaction, which Kafka writes after it has answered."""
    wait_for(lambda: inspector.watermarks(topic, 0).last_stable_offset >= offset, f"a last stable offset of {offset}")


def test_a_plan_is_made_of_what_a_reader_of_committed_records_may_read(
    kafka: Kafka, inspector: Inspector, topic_name: str
) -> None:
    address = kafka.bootstrap_servers
    create_topic(address, topic_name, partitions=3)
    produce(address, topic_name, [b"alert"] * 10, partitions=1)
    delete_records_before(address, topic_name, 0, 4)
    transaction = open_transaction(address, topic_name, [b"open"] * 5, partitions=1)
    described = inspector.describe(topic_name)
    assert described.topic == topic_name
    assert described.watermarks == {0: Watermarks(4, 10), 1: Watermarks(0, 0), 2: Watermarks(0, 0)}
    transaction.commit()
    wait_for_stable(inspector, topic_name, 16)
    assert inspector.describe(topic_name).watermarks[0] == Watermarks(4, 16)


def test_a_topic_made_again_is_told_from_the_one_that_was_planned(
    kafka: Kafka, inspector: Inspector, topic_name: str
) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, partitions=1)
    first = inspector.describe(topic_name).topic_id
    assert first not in {"", UNKNOWN_ID, "None"}
    assert inspector.describe(topic_name).topic_id == first
    delete_topic(kafka.bootstrap_servers, topic_name)
    create_topic(kafka.bootstrap_servers, topic_name, partitions=1)
    assert inspector.describe(topic_name).topic_id not in {first, UNKNOWN_ID}


@pytest.mark.faults
def test_a_wrong_topic_is_one_line_and_nothing_is_left_on_a_broker_that_would_create_it(
    private_kafka: Callable[..., KafkaBroker], topic_name: str
) -> None:
    address = private_kafka({"auto.create.topics.enable": "true"}).bootstrap_servers
    settings = KafkaSettings(address, request_timeout_s=LONG_S)
    create_topic(address, "right", partitions=1)
    produce(address, "right", [b"alert"] * 10, keys=[SCHEMA] * 10)
    with open_inspector(settings) as inspector:
        with pytest.raises(BrokerError, match="--wait-for-topic") as caught:
            inspector.describe(topic_name)
        assert str(caught.value).count("\n") == 0
        assert not caught.value.transient
        with pytest.raises(BrokerError):
            inspector.watermarks(topic_name, 0)
        # A whole inspection of a topic that is there, but whose schema topic is not.
        described = inspector.describe("right")
        assert inspector.schema("right", described).source == "record key"
        assert inspector.sample("right", {0: (0, 10)}).sizes == {0: 5.0}
    with pytest.raises(BrokerError, match="nknown topic"):
        ask_topic_id(Admin(settings), topic_name)
    assert topic_names(address) == {"right"}
    admin = AdminClient(client_config(address))  # in a variable: a collected client answers nothing
    groups = admin.list_consumer_groups(request_timeout=PATIENCE_S).result()
    assert (groups.valid, groups.errors) == ([], [])


@pytest.mark.parametrize("servers", ["127.0.0.1:{closed}", "no-such-host.invalid:9092", "127.0.0.1:{silent}"])
def test_a_kafka_that_is_not_there_is_one_line(servers: str) -> None:
    closed, silent = free_ports(2)
    with socket.create_server(("127.0.0.1", silent)):  # takes connections and never answers
        settings = KafkaSettings(servers.format(closed=closed, silent=silent), request_timeout_s=2)
        with (
            pytest.raises(BrokerUnavailableError, match=settings.bootstrap_servers) as caught,
            open_inspector(settings) as inspector,
        ):
            inspector.describe("topic")
    assert "\n" not in str(caught.value)
    assert caught.value.transient


def test_the_schema_is_read_from_the_schema_topic(kafka: Kafka, inspector: Inspector, topic_name: str) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, partitions=1)
    produce(kafka.bootstrap_servers, topic_name, [b"alert"], keys=[b'{"another": "schema"}'])
    publish_schema(kafka.bootstrap_servers, topic_name, SCHEMA.decode(), copies=1000)
    found = inspector.schema(topic_name, inspector.describe(topic_name))
    assert (found.text, found.source) == (SCHEMA, "schema topic")


@pytest.mark.parametrize("ends_with_a_marker", [False, True])
def test_two_schemas_are_a_question_and_never_a_guess(
    kafka: Kafka, inspector: Inspector, topic_name: str, ends_with_a_marker: bool
) -> None:
    address = kafka.bootstrap_servers
    create_topic(address, topic_name, partitions=1)
    publish_schema(address, topic_name, SCHEMA.decode(), copies=20)
    produce(address, schema_topic(topic_name), [b"0"], keys=[b'{"another": "schema"}'])
    if ends_with_a_marker:
        produce_transaction(address, schema_topic(topic_name), [b"0"], commit=False)
        wait_for_stable(inspector, schema_topic(topic_name), 23)
    with pytest.raises(SchemaError, match="--schema"):
        inspector.schema(topic_name, inspector.describe(topic_name))


def test_a_schema_topic_that_ends_with_a_transaction_marker_is_read(
    kafka: Kafka, inspector: Inspector, topic_name: str
) -> None:
    address = kafka.bootstrap_servers
    create_topic(address, topic_name, partitions=1)
    publish_schema(address, topic_name, SCHEMA.decode(), copies=1)
    for commit in (True, False):
        produce_transaction(address, schema_topic(topic_name), [b"no key"], commit=commit)
    wait_for_stable(inspector, schema_topic(topic_name), 5)
    assert inspector.schema(topic_name, inspector.describe(topic_name)).text == SCHEMA


@pytest.mark.parametrize("schema_topic_exists", [False, True])
def test_without_a_schema_topic_the_schema_comes_from_the_alerts_own_key(
    kafka: Kafka, inspector: Inspector, topic_name: str, schema_topic_exists: bool
) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, partitions=4)
    if schema_topic_exists:
        create_topic(kafka.bootstrap_servers, schema_topic(topic_name), partitions=1)
    produce(kafka.bootstrap_servers, topic_name, [b"alert"] * 20, keys=[SCHEMA] * 20)
    found = inspector.schema(topic_name, inspector.describe(topic_name))
    assert (found.text, found.source) == (SCHEMA, "record key")


@pytest.mark.parametrize("keys", [[], [b"the topic's name"] * 5, [None] * 5, [b""] * 5])
def test_a_topic_without_a_schema_is_refused_in_words(
    kafka: Kafka, inspector: Inspector, topic_name: str, keys: list[bytes | None]
) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, partitions=2)
    produce(kafka.bootstrap_servers, topic_name, [b"alert"] * len(keys), keys=keys)
    with pytest.raises(MissingSchemaError, match="--schema FILE"):
        inspector.schema(topic_name, inspector.describe(topic_name))


def test_sizes_are_sampled_close_to_the_truth_from_what_there_is(kafka: Kafka, inspector: Inspector) -> None:
    name, address = f"sizes_{uuid.uuid4().hex}", kafka.bootstrap_servers
    create_topic(address, name, partitions=1)
    produce(address, name, [bytes(900 + i % 200) for i in range(400)])  # 0 to 399, about 1,000 bytes each
    produce_transaction(address, name, [b"aborted"] * 99, commit=False)  # 400 to 499
    wait_for_stable(inspector, name, 500)
    produce(address, name, [bytes(300_000)] * 3)  # 500 to 502, each larger than the inspector's fetches
    produce_transaction(address, name, [b"aborted"] * 30, commit=False)  # 503 to 533
    wait_for_stable(inspector, name, 534)
    delete_records_before(address, name, 0, 100)
    cases = {
        (100, 400): 1000,
        (100, 300): 1000,
        (399, 400): 1000,
        (400, 502): 300_000,  # the middle in a hole: what comes after it
        (400, 500): None,  # a hole
        (500, 503): 300_000,
        (503, 534): None,  # nothing
        (0, 100): None,  # gone
        (250, 250): None,  # empty
    }
    try:
        for span, expected in cases.items():
            sampled = inspector.sample(name, {0: span}).sizes.get(0)
            assert sampled == (expected and pytest.approx(expected, rel=0.11)), span
        assert inspector.sample(name, {}).sizes == {}
    finally:
        delete_topic(address, name)


def test_no_more_than_a_few_partitions_are_sampled_as_each_costs_a_batch_on_a_slow_line(
    kafka: Kafka, inspector: Inspector, topic_name: str
) -> None:
    create_topic(kafka.bootstrap_servers, topic_name)
    produce(kafka.bootstrap_servers, topic_name, [bytes(1000)] * 500, partitions=9)
    spans = {
        partition: (marks.low, marks.last_stable_offset)
        for partition, marks in inspector.describe(topic_name).watermarks.items()
    }
    sample = inspector.sample(topic_name, spans)
    assert sample.sizes == dict.fromkeys([0, 3, 6], 1000.0)
    assert all(1000 < size < 1050 for size in sample.wire_sizes.values())


@pytest.mark.parametrize("codec", ["none", "gzip"])
def test_of_full_packets_a_few_are_looked_at_and_whether_they_are_compressed(
    kafka: Kafka, inspector: Inspector, topic_name: str, codec: str
) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, 1)
    options = {"compression.type": codec}
    produce(kafka.bootstrap_servers, topic_name, [b"\0" * 200_000] * 8, options=options)
    sample = inspector.sample(topic_name, {0: (0, 8)})
    assert sample.sizes == {0: 200_000.0}
    assert len(sample.values) == 2
    if codec == "none":
        assert 200_000 < sample.plain_bytes < 200_100
    else:
        # What librdkafka states twice a second may come after the records: then nobody knows.
        wait_for(lambda: inspector.sample(topic_name, {0: (0, 8)}).expansion > 50, "statement")
        assert sample.plain_bytes == 0


def test_keys_are_sampled_at_both_ends_and_each_one_is_there_once(
    kafka: Kafka, inspector: Inspector, topic_name: str
) -> None:
    address = kafka.bootstrap_servers
    create_topic(address, topic_name, partitions=2)
    keys = [None, b"first", b"first", *[b"between"] * 30, b"near the end", b"", b"last"]
    produce(address, topic_name, [b"alert"] * len(keys), keys=keys, partitions=1)
    spans = {0: (0, len(keys)), 1: (0, 0)}
    assert inspector.sample_keys(topic_name, spans) == [b"first", b"near the end", b"last"]
    assert inspector.sample_keys(topic_name, {0: (1, 5)}) == [b"first", b"between"]
    large = [bytes([number]) * 9_000_000 for number in range(1, 6)]
    produce(address, topic_name, [b"alert"] * len(large), keys=large, partitions=1)
    found = inspector.sample_keys(topic_name, {0: (len(keys), len(keys) + len(large))})
    assert found == large[:3]  # what is kept of them has a bound


def test_27_what_a_broken_connection_left_unsaid_is_not_taken_for_the_end_of_a_partition() -> None:
    """librdkafka then answers without an error, and with an offset that it uses for none."""

    def begin(_: Any) -> Any:
        return lambda: {TopicPartition("topic", 0): SimpleNamespace(offset=-1001)}

    admin: Any = SimpleNamespace(begin=begin, settings=KafkaSettings("127.0.0.1:1"))
    found = ask_watermarks(admin, {"topic": [0]})()["topic"]
    assert isinstance(found, BrokerUnavailableError)
    assert found.partition == 0


def test_a_topic_whose_partitions_are_known_is_described_in_one_round_trip_and_one_that_is_gone_is_said_to_be(
    kafka: Kafka, inspector: Inspector, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, partitions=3)
    produce(kafka.bootstrap_servers, topic_name, [b"alert"] * 10)
    known = inspector.describe(topic_name)
    with monkeypatch.context() as patch:
        patch.setattr(inspector, "topics", lambda: pytest.fail("the list of all topics is a round trip more"))
        again = inspector.describe(topic_name, [*known.watermarks])
    assert (again.watermarks, again.topic_id) == (known.watermarks, known.topic_id)
    delete_topic(kafka.bootstrap_servers, topic_name)
    with pytest.raises(BrokerError, match="--wait-for-topic"):
        inspector.describe(topic_name, [*known.watermarks])


def test_an_inspector_that_stays_open_for_hours_keeps_nothing_that_librdkafka_states_meanwhile(
    kafka: Kafka, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, 1)
    produce(kafka.bootstrap_servers, topic_name, [b"alert"] * 10)
    made: list[Connection] = []
    make = Connection.__init__

    def note(self: Connection, *arguments: Any, **options: Any) -> None:
        make(self, *arguments, **options)
        if options.get("stated_ms") != 0:
            made.append(self)

    monkeypatch.setattr(Connection, "__init__", note)
    with open_inspector(KafkaSettings(kafka.bootstrap_servers), [topic_name]) as inspector:
        found = inspector.describe(topic_name)
        assert inspector.sample(topic_name, {0: (0, found.watermarks[0].end)}).sizes == {0: 5}
        assert inspector.sample(topic_name, {0: (0, found.watermarks[0].end)}).sizes == {0: 5}
        assert len(made) == 2
        wait_for(lambda: all(each.is_closed for each in made), "the end of what states something")
    with open_inspector(KafkaSettings(kafka.bootstrap_servers), [topic_name]) as inspector:
        inspector.forget()
        assert all(each.is_closed for each in made)
