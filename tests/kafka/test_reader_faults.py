"""Reading a range goes on through what passes, declares what is gone, and ends in words and in time with what stays."""

from __future__ import annotations

import hashlib
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from confluent_kafka import KafkaError

from fink_dask.batches import RawBatch
from fink_dask.errors import BrokerError, BrokerUnavailableError, InterruptedTransferError
from fink_dask.kafka import reader as reader_module
from fink_dask.kafka.admin import Admin
from fink_dask.kafka.confluent import SURE_S, Errors
from fink_dask.kafka.connection import open_connection
from fink_dask.kafka.inspect import ask_topic_id
from fink_dask.kafka.offsets import OffsetRange, Watermarks, merge, total
from fink_dask.kafka.reader import RangeReader
from fink_dask.settings import KafkaSettings
from tests.harness.kafka import KafkaBroker
from tests.harness.producer import Produced, produce, produce_transaction
from tests.harness.topics import PATIENCE_S, create_topic, delete_records_before, delete_topic, topic_names

#: Who waits for this does not end before the time limit of the test.
STALL_TIMEOUT_S = 1000.0

pytestmark = [pytest.mark.kafka, pytest.mark.usefixtures("way")]
#: Of what takes long, the way of small ranges is tried with the other faults.
LONG = pytest.mark.parametrize("way", [pytest.param("messages", marks=pytest.mark.faults), "queue"], indirect=True)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """Yield a broker to freeze and kill, which would create any topic asked for, and is quick to compact."""
    broker = KafkaBroker(
        tmp_path_factory.mktemp("faulty-kafka"), {"auto.create.topics.enable": "true", "log.cleaner.backoff.ms": "100"}
    )
    broker.start()
    yield broker
    broker.discard()


@contextmanager
def open_reader(
    broker: KafkaBroker,
    topic: str,
    offset_range: OffsetRange,
    should_stop: Callable[[], bool] = lambda: False,
    reconnect_timeout_s: float = STALL_TIMEOUT_S,
    topic_id: str = "unknown",
    request_timeout_s: float = 30.0,
) -> Iterator[tuple[RangeReader, Errors]]:
    settings = KafkaSettings(
        broker.bootstrap_servers, request_timeout_s=request_timeout_s, reconnect_timeout_s=reconnect_timeout_s
    )
    # Little is fetched ahead, so that what happens to the topic in mid-range happens to the reader.
    with open_connection(replace(settings, queue_bytes=64 * 1024), fetch_bytes=64_000) as connection:
        yield RangeReader(connection, topic, offset_range, should_stop, topic_id), connection.errors


def fill(broker: KafkaBroker, topic: str, count: int = 1000) -> list[Produced]:
    """Make a topic of one partition, of 5 kB a record."""
    create_topic(broker.bootstrap_servers, topic, partitions=1)
    return produce(broker.bootstrap_servers, topic, (b"%04d" % i * 1250 for i in range(count)))


def assert_all_of(
    offset_range: OffsetRange, reader: RangeReader, batches: list[RawBatch], sent: list[Produced]
) -> None:
    """Nothing twice, nothing missing, and every value as it was sent."""
    offsets = [offset for batch in batches for offset in batch.offsets]
    pieces = [(offset, offset + 1) for offset in offsets] + reader.holes + reader.lost
    assert merge(pieces) == [(offset_range.start, offset_range.end)]
    assert total(pieces) == len(offset_range)
    assert reader.position == offset_range.end
    digests = {record.offset: record.sha256 for record in sent}
    for batch in batches:
        for offset, value in zip(batch.offsets.tolist(), map(batch.value, range(len(batch))), strict=True):
            assert value is not None
            assert hashlib.sha256(value).hexdigest() == digests[offset]


@pytest.mark.parametrize(
    ("low", "start", "end", "lost"),
    [
        (30, 0, 100, [(0, 30)]),
        (30, 10, 20, [(10, 20)]),
        (30, 10, 30, [(10, 30)]),
        (30, 30, 50, []),
        (100, 0, 50, [(0, 50)]),
    ],
)
def test_what_retention_removed_before_the_reading_is_declared_and_the_rest_arrives(
    broker: KafkaBroker, topic_name: str, low: int, start: int, end: int, lost: list[tuple[int, int]]
) -> None:
    sent = fill(broker, topic_name, 100)
    delete_records_before(broker.bootstrap_servers, topic_name, 0, low)
    offset_range = OffsetRange(0, start, end)
    with open_reader(broker, topic_name, offset_range) as (reader, _):
        batches = list(reader.batches(10, 10**9))
    assert reader.lost == lost
    assert_all_of(offset_range, reader, batches, sent)


@pytest.mark.parametrize(("low", "end"), [(950, 1000), (950, 900)])
def test_what_retention_removes_during_the_reading_is_declared_and_the_rest_arrives(
    broker: KafkaBroker, topic_name: str, low: int, end: int
) -> None:
    sent = fill(broker, topic_name)
    offset_range = OffsetRange(0, 0, end)
    with open_reader(broker, topic_name, offset_range) as (reader, _):
        batches = []
        for batch in reader.batches(10, 10**9):
            if not batches:
                delete_records_before(broker.bootstrap_servers, topic_name, 0, low)
            batches.append(batch)
    assert len(reader.lost) == 1
    assert reader.lost[0][0] >= 10, "what was read is not lost"
    assert reader.lost[0][1] == min(low, end)
    assert_all_of(offset_range, reader, batches, sent)


def test_loss_next_to_aborted_records_is_not_counted_twice(broker: KafkaBroker, topic_name: str) -> None:
    create_topic(broker.bootstrap_servers, topic_name, partitions=1)
    address = broker.bootstrap_servers
    produce_transaction(address, topic_name, [b"aborted"] * 20, commit=False, partitions=1)  # 0 to 19, marker 20
    sent = produce(address, topic_name, [b"alert"] * 5)  # 21 to 25
    produce_transaction(address, topic_name, [b"aborted"] * 4, commit=False, partitions=1)  # 26 to 29, marker 30
    delete_records_before(address, topic_name, 0, 10)
    offset_range = OffsetRange(0, 0, 31)
    with open_reader(broker, topic_name, offset_range) as (reader, _):
        batches = list(reader.batches(10, 10**9))
    assert (reader.lost, reader.holes) == ([(0, 10)], [(10, 21), (26, 31)])
    assert_all_of(offset_range, reader, batches, sent)


def test_what_compaction_took_is_a_hole_and_not_a_loss(broker: KafkaBroker, topic_name: str) -> None:
    address = broker.bootstrap_servers
    compact = {"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.01"}
    create_topic(address, topic_name, partitions=1, config=compact)
    sent = produce(address, topic_name, [b"%d" % i for i in range(40)], keys=[b"%d" % (i % 7) for i in range(40)])

    def read(offset_range: OffsetRange) -> tuple[RangeReader, list[int]]:
        with open_reader(broker, topic_name, offset_range) as (reader, _):
            batches = list(reader.batches(10, 10**9))
        assert_all_of(offset_range, reader, batches, sent)
        assert reader.lost == []
        return reader, [offset for batch in batches for offset in batch.offsets]

    deadline = time.monotonic() + PATIENCE_S
    while True:
        # A segment is compacted when a later record has closed it.
        sent += produce(address, topic_name, [b"newer"], keys=[b"0"])
        reader, offsets = read(OffsetRange(0, 0, sent[-1].offset + 1))
        if total(reader.holes) >= 33:
            break
        assert time.monotonic() < deadline, "Kafka has not compacted the topic"
    first = offsets[0]
    assert first > 3, "the head of the partition should be a hole"
    assert read(OffsetRange(0, 0, first))[0].holes == [(0, first)]
    assert read(OffsetRange(0, 3, first + 1))[1] == [first]


@LONG
def test_a_topic_made_anew_with_fewer_records_is_refused_long_before_the_stall(
    broker: KafkaBroker, topic_name: str
) -> None:
    fill(broker, topic_name)
    with open_reader(broker, topic_name, OffsetRange(0, 0, 1000)) as (reader, _):
        batches = reader.batches(10, 10**9)
        next(batches)
        delete_topic(broker.bootstrap_servers, topic_name)
        fill(broker, topic_name, 5)
        with pytest.raises(BrokerError, match=r" 5\b.*truncated") as caught:
            list(batches)
    assert not caught.value.transient
    assert caught.value.partition == 0
    assert caught.value.offset == reader.position


@pytest.mark.faults
def test_a_plan_for_more_than_the_partition_holds_is_refused_long_before_the_stall(
    broker: KafkaBroker, topic_name: str
) -> None:
    fill(broker, topic_name, 5)
    for offset_range in (OffsetRange(0, 3, 10), OffsetRange(0, 8, 10)):
        with open_reader(broker, topic_name, offset_range) as (reader, _):
            with pytest.raises(BrokerError, match=r" 5\b.*truncated"):
                list(reader.batches(10, 10**9))
            assert reader.lost == []


def test_alerts_of_another_topic_with_the_same_name_never_pass_for_the_planned_ones(
    broker: KafkaBroker, topic_name: str
) -> None:
    fill(broker, topic_name)
    planned = ask_topic_id(Admin(KafkaSettings(broker.bootstrap_servers)), topic_name)
    with open_reader(broker, topic_name, OffsetRange(0, 0, 1000), topic_id=planned) as (reader, _):
        batches = reader.batches(10, 10**9)
        next(batches)
        delete_topic(broker.bootstrap_servers, topic_name)
        fill(broker, topic_name, 1001)
        with pytest.raises(BrokerError, match="deleted"):
            list(batches)


def test_a_range_of_the_planned_topic_passes_the_check_of_its_id(broker: KafkaBroker, topic_name: str) -> None:
    sent = fill(broker, topic_name, 20)
    planned = ask_topic_id(Admin(KafkaSettings(broker.bootstrap_servers)), topic_name)
    with open_reader(broker, topic_name, OffsetRange(0, 0, 20), topic_id=planned) as (reader, _):
        assert_all_of(OffsetRange(0, 0, 20), reader, list(reader.batches(10, 10**9)), sent)


@LONG
def test_a_deleted_topic_is_said_long_before_the_stall_and_not_created_by_asking(
    broker: KafkaBroker, topic_name: str
) -> None:
    fill(broker, topic_name)
    with open_reader(broker, topic_name, OffsetRange(0, 0, 1000)) as (reader, _):
        batches = reader.batches(10, 10**9)
        next(batches)
        delete_topic(broker.bootstrap_servers, topic_name)
        with pytest.raises(BrokerError, match="no longer") as caught:
            list(batches)
    assert not caught.value.transient
    assert topic_name not in topic_names(broker.bootstrap_servers)


def test_a_broker_that_freezes_for_a_while_costs_no_alert(broker: KafkaBroker, topic_name: str) -> None:
    sent = fill(broker, topic_name)
    with open_reader(broker, topic_name, OffsetRange(0, 0, 1000)) as (reader, _):
        rest = reader.batches(10, 10**9)
        batches = [next(rest)]
        broker.pause()
        timer = threading.Timer(3.0, broker.resume)  # long enough for the reader to look around and get no answer
        timer.start()
        batches += rest
        timer.join()
    assert reader.lost == []
    assert_all_of(OffsetRange(0, 0, 1000), reader, batches, sent)


@LONG
def test_a_killed_broker_fails_the_impatient_and_costs_the_patient_no_alert(
    broker: KafkaBroker, topic_name: str
) -> None:
    sent = fill(broker, topic_name)
    offset_range = OffsetRange(0, 0, 1000)
    with (
        open_reader(broker, topic_name, offset_range) as (patient, _),
        open_reader(broker, topic_name, offset_range, reconnect_timeout_s=3) as (impatient, _),
    ):
        rest, doomed = patient.batches(10, 10**9), impatient.batches(10, 10**9)
        batches = [next(rest)]
        next(doomed)
        broker.kill()
        try:
            with pytest.raises(BrokerUnavailableError, match=r"\b3 s\b.*127\.0\.0\.1") as caught:
                list(doomed)
        finally:
            broker.start()
        batches += rest
    assert patient.lost == []
    assert_all_of(offset_range, patient, batches, sent)

    error = pickle.loads(pickle.dumps(caught.value))
    assert type(error) is BrokerUnavailableError
    assert error.transient
    assert str(error) == str(caught.value)
    assert "\n" not in str(error)
    assert str(error).startswith(f"{topic_name}[0] at offset {impatient.position}: ")


@LONG
def test_a_broker_that_is_away_for_longer_than_a_deleted_topic_is_doubted_costs_no_alert(
    broker: KafkaBroker, topic_name: str
) -> None:
    """After a while without any broker, librdkafka says that there is no such partition."""
    sent = fill(broker, topic_name)
    with open_reader(broker, topic_name, OffsetRange(0, 0, 1000)) as (reader, _):
        rest = reader.batches(10, 10**9)
        batches = [next(rest)]
        broker.kill()
        timer = threading.Timer(SURE_S + 6.0, broker.start)
        timer.start()
        try:
            batches += rest
        finally:
            timer.join()
    assert reader.lost == []
    assert_all_of(OffsetRange(0, 0, 1000), reader, batches, sent)


def test_a_stop_is_obeyed_although_kafka_is_silent(
    broker: KafkaBroker, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(broker, topic_name)
    stop = threading.Event()
    patient = {"request_timeout_s": STALL_TIMEOUT_S}
    with open_reader(broker, topic_name, OffsetRange(0, 0, 1000), stop.is_set, **patient) as (reader, _):
        batches = reader.batches(10, 10**9)
        next(batches)
        broker.pause()
        ask = reader._silence._ask

        def ask_and_stop() -> Watermarks | BrokerError:
            stop.set()
            return ask()

        # In the middle of what the reader does when it has heard nothing for a while; it would wait for an answer.
        monkeypatch.setattr(reader._silence, "_ask", ask_and_stop)
        try:
            with pytest.raises(InterruptedTransferError):
                list(batches)
            assert stop.is_set()
        finally:
            broker.resume()


@LONG
def test_a_broker_that_refused_a_connection_and_took_the_next_one_may_be_silent_for_a_while(
    broker: KafkaBroker, topic_name: str
) -> None:
    """A broker that starts refuses whom it lets in a second later."""
    sent = fill(broker, topic_name)
    with open_reader(broker, topic_name, OffsetRange(0, 0, 1000)) as (reader, errors):
        rest = reader.batches(10, 10**9)
        batches = [next(rest)]
        errors(KafkaError(KafkaError._AUTHENTICATION, "SASL authentication error"))
        broker.pause()
        timer = threading.Timer(reader_module._REFUSED_S + 4, broker.resume)
        timer.start()
        try:
            batches += rest
        finally:
            timer.join()
    assert_all_of(OffsetRange(0, 0, 1000), reader, batches, sent)


def test_records_that_come_damaged_are_not_decoded_and_are_worth_another_try(
    broker: KafkaBroker, topic_name: str
) -> None:
    sent, offset_range = fill(broker, topic_name, 10), OffsetRange(0, 0, 10)
    (stored,) = broker.data_dir.glob(f"{topic_name}-0/*.log")
    whole = stored.read_bytes()
    with stored.open("r+b") as file:  # Kafka itself does not look into what it sends
        file.seek(len(whole) - 2)
        file.write(bytes([whole[-2] ^ 1]))
    with open_reader(broker, topic_name, offset_range) as (reader, _), pytest.raises(BrokerUnavailableError) as caught:
        [*reader.batches(1000, 10**6)]
    assert "damaged" in str(caught.value)
    assert (caught.value.topic, caught.value.partition) == (topic_name, 0)
    with stored.open("r+b") as file:
        file.write(whole)
    with open_reader(broker, topic_name, offset_range) as (reader, _):
        assert_all_of(offset_range, reader, [*reader.batches(1000, 10**6)], sent)
