"""Rows 25 and 28, between hosts whose TCP is the kernel's own: packets are lost, and an address has no route."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.alerts.made_up import AlertKind
from tests.harness.cli import PROGRAM, environment, run_cli, transfer_arguments
from tests.harness.kafka import ExternalKafka
from tests.harness.link import with_names
from tests.harness.oracle import Oracle, assert_exactly_once, fill_topic
from tests.harness.switch import Packets, Switched, distant_broker

TOPIC = "ftransfer_ztf_2026-11-01_1"
ALERTS = 4_000
HOME = Packets(mbit=20, round_trip_s=0.04)


@pytest.fixture(scope="module")
def network(hosts: object) -> Iterator[Switched]:
    """Yield a host for a broker and one for its client."""
    with Switched(2) as found:
        yield found


@pytest.fixture(scope="module")
def filled(network: Switched, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ExternalKafka, Oracle]]:
    """Yield a Kafka on the first host, and what is in its topic."""
    host = network.hosts[0]
    with distant_broker(host, tmp_path_factory.mktemp("lossy-kafka")) as (_, kafka):
        with host.inside():
            oracle = fill_topic(kafka.bootstrap_servers, TOPIC, AlertKind.ZTF_LIGHT, ALERTS, partitions=10)
        yield kafka, oracle


@pytest.mark.parametrize(
    ("packets", "consumers"),
    [
        (Packets(20, 0.04, loss=0.01), 1),
        (Packets(20, 0.04, loss=0.01), 8),
        (Packets(20, 0.04, reorder=0.02), 4),
        (Packets(20, 0.04, duplicate=0.02), 4),
        (Packets(20, 0.3, loss=0.01, reorder=0.01, duplicate=0.01), 8),
    ],
    ids=["lost", "lost, many consumers", "reordered", "doubled", "all of it, far away"],
)
def test_25_packets_that_are_lost_reordered_or_doubled_cost_time_and_nothing_else(
    network: Switched, filled: tuple[ExternalKafka, Oracle], tmp_path: Path, packets: Packets, consumers: int
) -> None:
    network.set(packets)
    _transfer(network, filled, tmp_path / "alerts", consumers)
    assert (network.carried(network.hosts[0]).dropped > 0) or not packets.loss


def test_25_a_line_whose_packets_are_small_carries_everything(
    network: Switched, filled: tuple[ExternalKafka, Oracle], tmp_path: Path
) -> None:
    network.set(HOME)
    for host in network.hosts:
        host.ip("link", "set", "eth0", "mtu", "576")
    try:
        _transfer(network, filled, tmp_path / "alerts", 4)
    finally:
        for host in network.hosts:
            host.ip("link", "set", "eth0", "mtu", "1500")


def test_28_a_name_whose_ipv6_address_has_no_route_costs_seconds_where_its_other_address_has_one(
    network: Switched, filled: tuple[ExternalKafka, Oracle], tmp_path: Path
) -> None:
    network.set(HOME)
    kafka, oracle = filled
    address, _, port = kafka.bootstrap_servers.rpartition(":")
    names, client = tmp_path / "hosts", network.hosts[1]
    # An address for documentation, which no network has.
    names.write_text(f"127.0.0.1 localhost\n2001:db8::1 kafka.test\n{address} kafka.test\n")
    # Without an address of its own, a host is told of no other host's.
    client.ip("address", "replace", "fd77::2/64", "dev", "eth0", "nodad")
    named = ExternalKafka(f"kafka.test:{port}")
    command = with_names(names, [*PROGRAM, *transfer_arguments(named, TOPIC, tmp_path / "alerts")])
    with client.inside():
        result = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=150, check=False)
    assert result.returncode == 0, result.stderr
    assert_exactly_once(tmp_path / "alerts", oracle.values)


def _transfer(network: Switched, filled: tuple[ExternalKafka, Oracle], outdir: Path, consumers: int) -> None:
    """Transfer the topic from the second host, and hold the dataset against the oracle."""
    kafka, oracle = filled
    with network.hosts[1].inside():
        result = run_cli(*transfer_arguments(kafka, TOPIC, outdir, "-nconsumers", str(consumers)))
    assert result.returncode == 0, result.stderr
    assert_exactly_once(outdir, oracle.values)
