"""The demo's Kafka, which needs nothing installed, serves what a transfer asks of it."""

from __future__ import annotations

import pytest
from confluent_kafka.admin import AdminClient

from fink_dask.errors import BrokerError
from fink_dask.kafka.connection import ConnectionPool, open_connection
from fink_dask.kafka.inspect import UNKNOWN_ID, open_inspector
from fink_dask.kafka.line import MIN_FETCH_BYTES
from fink_dask.kafka.offsets import OffsetRange, Watermarks
from fink_dask.kafka.publish import MOCK_PARTITIONS, mock_broker
from fink_dask.kafka.reader import RangeReader
from fink_dask.settings import BATCH_BYTES, KafkaSettings
from tests.harness.oracle import wait_for
from tests.harness.topics import PATIENCE_S

SCHEMA = b'{"type": "string"}'


def test_what_the_demo_publishes_is_described_and_read_back() -> None:
    records = [(i % MOCK_PARTITIONS, b"topic", b"alert %d" % i) for i in range(4000)]
    with mock_broker() as broker:
        assert broker.publisher.publish("topic", records) == 4000
        assert broker.publisher.publish("topic_schema", [(0, SCHEMA, b"0")] * 3) == 3
        # A question for the id would wait for its time-out, which is longer than a test may take: the mock has none.
        settings = KafkaSettings(broker.bootstrap_servers, request_timeout_s=1000, reconnect_timeout_s=20)
        with open_inspector(settings) as inspector:
            described = inspector.describe("topic")
            assert described.topic_id == UNKNOWN_ID
            assert described.watermarks == dict.fromkeys(range(MOCK_PARTITIONS), Watermarks(0, 1000))
            assert inspector.schema("topic", described).text == SCHEMA
            sizes = inspector.sample("topic", dict.fromkeys(range(MOCK_PARTITIONS), (0, 1000))).sizes
            assert sizes == dict.fromkeys(range(MOCK_PARTITIONS), 10.0)
            with pytest.raises(BrokerError, match="--wait-for-topic"):
                inspector.describe("another")
        for partition in range(MOCK_PARTITIONS):
            with open_connection(settings) as connection:
                offset_range = OffsetRange(partition, 0, 1000)
                reader = RangeReader(connection, "topic", offset_range, lambda: False, described.topic_id)
                batches = list(reader.batches(300, BATCH_BYTES))
                values = [batch.value(index) for batch in batches for index in range(len(batch))]
            assert values == [value for at, _, value in records if at == partition]
            assert (reader.holes, reader.lost) == ([], [])


def test_records_that_the_demo_loses_are_said() -> None:
    # As soon as librdkafka has heard of the topic, it does not even take what goes to no partition.
    with mock_broker() as broker, pytest.raises(BrokerError, match=r"1 of 2 records|Unknown partition"):
        broker.publisher.publish("topic", [(MOCK_PARTITIONS + 95, b"", b"to no partition"), (0, b"", b"alert")])


def test_short_ranges_do_not_shrink_what_is_asked_for_at_once_to_nothing() -> None:
    pool = ConnectionPool()
    with mock_broker() as broker:
        broker.publisher.publish("topic", [(0, bytes(1000), b"%d" % i) for i in range(4000)])
        settings = KafkaSettings(broker.bootstrap_servers, reconnect_timeout_s=20)
        with pool.connect(settings) as connection:
            connection.learn("topic")
            # What has come until now are the answers to questions, and a range is read before more is stated.
            wait_for(lambda: connection.consumer.poll(0) is None and connection.arrived.wire_bytes > 0, "statement")
        for start in range(0, 4000, 500):
            with pool.connect(settings) as connection:
                reader = RangeReader(
                    connection, "topic", OffsetRange(0, start, start + 500), lambda: False, line=pool.line
                )
                assert sum(len(batch) for batch in reader.batches(1000, BATCH_BYTES)) == 500
                assert connection.expansion < 1.5
            assert pool.line.fetch_bytes >= MIN_FETCH_BYTES
        pool.close()


def test_a_topic_that_was_empty_at_the_first_look_is_planned_with_what_it_holds_now() -> None:
    with mock_broker() as broker:
        settings = KafkaSettings(broker.bootstrap_servers, reconnect_timeout_s=20)
        with open_inspector(settings, ["topic"]) as inspector:
            AdminClient({"bootstrap.servers": broker.bootstrap_servers}).list_topics("topic", timeout=PATIENCE_S)
            described = inspector.describe("topic")
            assert set(described.watermarks.values()) == {Watermarks(0, 0)}
            broker.publisher.publish("topic", [(0, b"", b"alert %d" % i) for i in range(1000, 2000)])
            assert inspector.sample("topic", {0: (0, 1000)}).sizes == {0: 10.0}
