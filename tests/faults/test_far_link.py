"""Row 30, and round trips: the other end of the line is far away, and whatever is asked takes its time."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from fink_dask.kafka.inspect import open_inspector
from fink_dask.ledger.ledger import Ledger
from fink_dask.settings import KafkaSettings, Security
from tests.alerts.made_up import AlertKind
from tests.harness.cli import run_cli, transfer_arguments
from tests.harness.filled import Filled, fill_far_topic
from tests.harness.kafka_settings import HOST, free_ports
from tests.harness.link import FarKafka, Line
from tests.harness.oracle import add_alerts, assert_exactly_once, fill_topic
from tests.harness.running import Running
from tests.harness.secure import PASSWORD, USER, SecureKafka, far_secure_kafka, ways
from tests.harness.topics import delete_records_before, remove_topics

pytestmark = pytest.mark.links
#: To a ship, or a telescope behind two satellites.
SHIP = Line(mbit=4, round_trip_s=1.0)
TOPIC = "ftransfer_ztf_2026-11-01_1"


@pytest.mark.sample
def test_30_what_retention_takes_is_declared_at_a_round_trip_of_a_second_as_at_one_of_a_millisecond(
    far: FarKafka, tmp_path: Path
) -> None:
    topic = fill_far_topic(far, 6000, partitions=3)
    far.link.set(SHIP)
    running = Running(far, topic.name, tmp_path / "alerts", "-nconsumers", "1", slowly=False)
    try:
        running.wait_until_it_reads()
        # One is being read, and another one may be fetched ahead.
        for partition in (0, 1, 2):
            delete_records_before(far.near.bootstrap_servers, topic.name, partition, 1000)
        code, err = running.finish()
    finally:
        running.kill()
    assert code == 3, err
    ledger = running.ledger
    lost = {
        (marker.range.partition, offset)
        for marker in ledger.markers(ledger.plans())
        for start, end in marker.lost
        for offset in range(start, end)
    }
    assert lost
    assert all(offset < 1000 for _, offset in lost)
    assert_exactly_once(running.outdir, topic.oracle.values.keys() - lost)


def test_30_a_topic_that_is_made_anew_while_it_is_being_filled_is_recognised_far_away(
    far: FarKafka, tmp_path: Path
) -> None:
    topic = fill_far_topic(far, 9000, partitions=3)
    address = far.near.bootstrap_servers
    far.link.set(SHIP)
    running = Running(far, topic.name, tmp_path / "alerts", "-nconsumers", "1", slowly=False)
    try:
        running.wait_until_it_reads()
        remove_topics(address, topic.name)
        another = fill_topic(address, topic.name, AlertKind.ZTF_LIGHT, 10, partitions=3, seed=7, first_id=10**6)
        with filling(lambda turn: add_alerts(address, topic.name, another, AlertKind.ZTF_LIGHT, 30, first_id=turn)):
            code, err = running.finish()
    finally:
        running.kill()
    assert code == 1, err
    assert "made a" in err


@contextmanager
def filling(add: Callable[[int], None]) -> Iterator[None]:
    """Add alerts all the time, which have higher numbers each time."""
    over = threading.Event()

    def work() -> None:
        turn = 2 * 10**6
        while not over.wait(0.3):
            add(turn)
            turn += 1000

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_resume_that_has_nothing_to_plan_fetches_none_of_the_alerts(far: FarKafka, tmp_path: Path) -> None:
    topic = fill_far_topic(far, 6000, partitions=4, batch_bytes=10**6)
    command = transfer_arguments(far, topic.name, tmp_path / "alerts")
    assert run_cli(*command).returncode == 0
    before = far.link.moved
    assert run_cli(*command).returncode == 0
    assert far.link.moved.since(before).fetched < topic.stored_bytes / 10


@dataclass(frozen=True)
class Times:
    """Of a transfer, in seconds from its start: when the first records of a range arrived, and when it ended."""

    first: float
    end: float


#: What takes its time besides is the same at either, and the shortest of so many tries is hardly disturbed, also on a
#: machine that is busy for minutes. It ends with the first tries that show few enough.
NEAR, FAR, TRIES = 0.2, 1.2, 12


def measure(kafka: FarKafka, topic: Filled, outdir: Path, round_trip_s: float, options: Sequence[str]) -> Times:
    """Transfer a topic at some distance, and note when what happened."""
    kafka.link.set(Line(round_trip_s=round_trip_s))
    began = time.time()
    result = run_cli(*transfer_arguments(kafka, topic.name, outdir, *options))
    ended = time.time()
    assert result.returncode == 0, result.stderr
    assert_exactly_once(outdir, topic.oracle.values)
    # What is sampled before there is a plan is none of the alerts that were asked for.
    planned = max(path.stat().st_mtime for path in Ledger(outdir).plans_path.iterdir())
    return Times(kafka.link.first_records_after(planned) - began, ended - began)


def assert_few_round_trips(
    kafka: FarKafka, topic: Filled, folder: Path, *options: str, first: int, end: float = math.inf
) -> None:
    """Count the round trips that follow each other until first records and end, by what distance adds to the time.

    A machine that is busy makes them seem more now and then, and hardly fewer: where they are too many, try again.
    """
    best = {NEAR: Times(math.inf, math.inf), FAR: Times(math.inf, math.inf)}
    for one in range(TRIES):
        for seconds, before in best.items():
            now = measure(kafka, topic, folder / f"{seconds} {one}", seconds, options)
            best[seconds] = Times(min(before.first, now.first), min(before.end, now.end))
        near, far = best.values()
        found = Times((far.first - near.first) / (FAR - NEAR), (far.end - near.end) / (FAR - NEAR))
        if one and round(found.first) <= first and round(found.end) <= end:
            return
    raise AssertionError(found)


def test_the_first_alert_comes_after_few_round_trips_and_a_small_topic_is_over_a_few_later(
    far: FarKafka, tmp_path: Path
) -> None:
    assert_few_round_trips(far, fill_far_topic(far, 400, partitions=2), tmp_path, first=8, end=12)


def test_the_number_of_partitions_costs_no_round_trips_before_the_first_alert(far: FarKafka, tmp_path: Path) -> None:
    topic = fill_far_topic(far, 4000, partitions=40)
    # Twenty times as many partitions cost one or two: the first response of four readers is a larger one.
    assert_few_round_trips(far, topic, tmp_path, "-nconsumers", "4", first=10)


@pytest.fixture(scope="module")
def far_secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SecureKafka, FarKafka]]:
    """Yield a Kafka that asks for a password, behind a link."""
    with far_secure_kafka(tmp_path_factory.mktemp("far-secure"), Line()) as found:
        yield found


def test_a_password_and_a_certificate_cost_few_round_trips(
    far_secure: tuple[SecureKafka, FarKafka], tmp_path: Path
) -> None:
    secure, kafka = far_secure
    topic = fill_far_topic(kafka, 400, partitions=2)
    assert_few_round_trips(kafka, topic, tmp_path, *ways(secure, tmp_path), first=16, end=19)


def test_30_a_password_is_asked_for_at_a_round_trip_of_a_second_and_another_server_that_is_gone_is_no_reason_to_give_up(
    far_secure: tuple[SecureKafka, FarKafka],
) -> None:
    secure, far = far_secure
    topic = fill_far_topic(far, 400, partitions=2)
    (gone,) = free_ports(1)
    security = Security("SASL_SSL", username=USER, password=PASSWORD, ca_pem=secure.ca_file.read_text())
    far.link.set(SHIP)
    try:
        with open_inspector(KafkaSettings(f"{HOST}:{gone},{far.bootstrap_servers}", security=security)) as inspector:
            found = inspector.describe(topic.name)
    finally:
        far.link.set(Line())
    assert sum(marks.last_stable_offset for marks in found.watermarks.values()) == 400
