"""A broker, a scheduler and workers on hosts of their own: a link that is cut for a while costs no alert."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.alerts.made_up import AlertKind
from tests.harness.batch import Started, committed
from tests.harness.cli import SLOWLY, environment, run_cli, transfer_arguments
from tests.harness.distant import DistantDask
from tests.harness.hosts import Host, Network
from tests.harness.kafka import ExternalKafka
from tests.harness.oracle import Oracle, assert_exactly_once, fill_topic, wait_for
from tests.harness.switch import distant_broker

#: Long enough for a worker that was cut off for a minute to come back to a transfer that still runs.
ALERTS = 40_000


@pytest.fixture(scope="module")
def network(hosts: Callable[[int], Network]) -> Iterator[Network]:
    """Yield hosts for a broker, for a scheduler and its client, and for two workers."""
    with hosts(4) as found:
        yield found


@pytest.fixture(scope="module")
def distant_kafka(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExternalKafka]:
    """Yield a Kafka on the first host, by the address that all hosts know it by."""
    with distant_broker(network.hosts[0], tmp_path_factory.mktemp("distant-kafka")) as (_, kafka):
        yield kafka


@pytest.fixture(scope="module")
def topic(network: Network, distant_kafka: ExternalKafka) -> tuple[str, Oracle]:
    """Make a topic that all tests read."""
    name = "ftransfer_ztf_2026-11-01_1"
    with network.hosts[0].inside():
        return name, fill_topic(distant_kafka.bootstrap_servers, name, AlertKind.ZTF_LIGHT, ALERTS, partitions=10)


def dask(network: Network, workers: Sequence[Host], folder: Path) -> DistantDask:
    """Run a Dask scheduler on the second host, and a worker on each of others, until the end of a test."""
    return DistantDask(network.hosts[1], workers, folder, environment(SLOWLY))


@pytest.mark.parametrize("cut_s", [12, 60])
@pytest.mark.parametrize("whose", ["worker", "broker"])
@pytest.mark.timeout(600)
def test_the_link_of_a_host_that_is_cut_for_a_while_costs_no_alert(
    network: Network, distant_kafka: ExternalKafka, topic: tuple[str, Oracle], tmp_path: Path, whose: str, cut_s: float
) -> None:
    name, oracle = topic
    kafka_host, client_host, *workers = network.hosts
    victim, outdir = kafka_host if whose == "broker" else workers[0], tmp_path / "out"
    with dask(network, workers, tmp_path) as cluster, client_host.inside():
        options = ("--scheduler", cluster.address, "-nconsumers", "2", "-batchsize", "1")
        arguments = transfer_arguments(distant_kafka, name, outdir, *options)
        with Started(arguments, environment(SLOWLY)) as started:
            started.wait_until(lambda: committed(outdir) > 0, "a range")
            assert started.process.poll() is None
            with network.cut(victim):
                deadline = time.monotonic() + cut_s
                wait_for(lambda: time.monotonic() > deadline, "the cut to end", timeout_s=cut_s + 5)
            started.finish(timeout_s=400)
    assert_exactly_once(outdir, oracle.values)
    assert run_cli("verify", str(outdir)).returncode == 0


def test_a_worker_that_joins_late_and_does_not_reach_kafka_gets_no_ranges_and_is_named(
    network: Network, distant_kafka: ExternalKafka, tmp_path: Path
) -> None:
    kafka_host, client_host, worker, other = network.hosts
    name, outdir = "ftransfer_ztf_2026-11-01_2", tmp_path / "out"
    with kafka_host.inside():
        oracle = fill_topic(distant_kafka.bootstrap_servers, name, AlertKind.ZTF_LIGHT, 12_000, partitions=12)
    with dask(network, [worker], tmp_path) as cluster, other.without(kafka_host), client_host.inside():
        options = ("--scheduler", cluster.address, "-nconsumers", "3", "-batchsize", "1")
        with Started(transfer_arguments(distant_kafka, name, outdir, *options), environment(SLOWLY)) as started:
            started.wait_until(lambda: committed(outdir) > 0, "a range")
            cluster.start_worker(other)
            _, err = started.finish()
    assert any(f"worker tcp://{other.address}:" in line and "Kafka" in line for line in err.splitlines()), err
    assert_exactly_once(outdir, oracle.values)
