"""Rows 26 to 28: the line is cut, a NAT forgets, a name leads to addresses that are dead."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.cli import PROGRAM, environment, run_cli, transfer_arguments
from tests.harness.filled import BESIDE_BYTES, Filled, fill_far_topic
from tests.harness.kafka import ExternalKafka
from tests.harness.kafka_settings import HOST, free_ports
from tests.harness.link import FarKafka, Line, dead_address, far_kafka, with_names
from tests.harness.mid_fetch import HOME, in_mid_fetch, wait
from tests.harness.oracle import assert_exactly_once, wait_for

pytestmark = pytest.mark.links
Topics = Callable[[int], Filled]


@pytest.mark.parametrize(
    ("cut_s", "timeout"),
    [
        pytest.param(5, "5m", marks=pytest.mark.sample),
        (60, "5m"),
        pytest.param(600, "15m", marks=[pytest.mark.faults, pytest.mark.timeout(1000)]),
    ],
)
def test_26_a_line_that_is_cut_in_mid_fetch_is_waited_for_and_what_is_committed_is_not_fetched_again(
    far: FarKafka, far_topic: Topics, tmp_path: Path, cut_s: float, timeout: str
) -> None:
    topic, before = far_topic(15_000), far.link.moved
    with in_mid_fetch(far, topic, tmp_path / "alerts", "--reconnect-timeout", timeout) as running:
        far.link.cut()
        wait(cut_s)
        far.link.heal()
        code, err = running.finish()
    assert code == 0, err
    assert_exactly_once(running.outdir, topic.oracle.values)
    moved = far.link.moved.since(before).down
    # A connection that is given up meanwhile takes along what was on its way: one fetch of each that may read at once.
    assert moved <= 1.25 * topic.stored_bytes + BESIDE_BYTES + (4 * 2**20 if cut_s > 5 else 0)


def test_26_a_line_that_stays_cut_is_given_up_as_told_and_what_is_committed_is_not_fetched_again(
    far: FarKafka, far_topic: Topics, tmp_path: Path
) -> None:
    topic = far_topic(15_000)
    with in_mid_fetch(far, topic, tmp_path / "alerts", "--reconnect-timeout", "8s") as running:
        running.wait_until_committed(1)
        far.link.cut()
        code, err = running.finish()
    assert code == 1, err
    ledger = running.ledger
    done = sum(marker.range.end - marker.range.start for marker in ledger.markers(ledger.plans()))
    assert done > 0
    assert f" {done:,} alert" in err
    far.link.heal()
    far.link.set(Line())
    wait_for(lambda: far.link.moved.open == 0, "the old connections to be gone")
    before = far.link.moved
    again = run_cli(*transfer_arguments(far, topic.name, running.outdir, "-partitionby", "time"))
    assert again.returncode == 0, again.stderr
    assert_exactly_once(running.outdir, topic.oracle.values)
    left = topic.stored_bytes * (1 - done / len(topic.oracle.values))
    assert far.link.moved.since(before).down <= 1.25 * left + BESIDE_BYTES


def test_27_a_connection_that_a_nat_has_forgotten_is_noticed_and_made_anew(
    far: FarKafka, far_topic: Topics, tmp_path: Path
) -> None:
    topic, before = far_topic(15_000), far.link.moved
    with in_mid_fetch(far, topic, tmp_path / "alerts") as running:
        running.signal(signal.SIGSTOP)
        far.link.set(Line(HOME.mbit, HOME.round_trip_s, forget_s=20))
        wait(30)  # what is on its way arrives, and then nothing makes the connections busy
        running.signal(signal.SIGCONT)
        wait_for(lambda: running.is_over or far.link.moved.since(before).forgotten > 0, "a forgotten connection")
        code, err = running.finish()
    assert code == 0, err
    assert far.link.moved.since(before).forgotten > 0
    assert_exactly_once(running.outdir, topic.oracle.values)


@pytest.mark.sample
def test_28_a_bootstrap_server_that_is_dead_costs_seconds_where_another_one_lives(
    far: FarKafka, far_topic: Topics, tmp_path: Path
) -> None:
    topic = far_topic(4_000)
    (dead,) = free_ports(1)
    with dead_address(HOST, dead):
        kafka = ExternalKafka(f"{HOST}:{dead},{far.bootstrap_servers}")
        result = run_cli(*transfer_arguments(kafka, topic.name, tmp_path / "alerts"))
    assert result.returncode == 0, result.stderr
    assert_exactly_once(tmp_path / "alerts", topic.oracle.values)


def test_28_a_name_whose_first_address_is_dead_costs_seconds_where_another_one_lives(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    names = tmp_path / "hosts"
    # Resolvers sort by nearness to the own address, so the dead one, which is just that, is the first.
    names.write_text(f"{HOST} localhost kafka.test\n127.0.0.2 kafka.test\n")
    folder = tmp_path_factory.mktemp("named-kafka")
    with far_kafka(folder, Line(), host="127.0.0.2", name="kafka.test") as kafka:
        topic = fill_far_topic(kafka, 4_000)
        port = int(kafka.bootstrap_servers.rpartition(":")[2])
        command = [*PROGRAM, *transfer_arguments(kafka, topic.name, tmp_path / "alerts")]
        with dead_address(HOST, port):
            result = subprocess.run(
                with_names(names, command), env=environment(), capture_output=True, text=True, timeout=300, check=False
            )
    assert result.returncode == 0, result.stderr
    assert_exactly_once(tmp_path / "alerts", topic.oracle.values)
