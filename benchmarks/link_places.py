"""Where links are measured: a Kafka, a way to it that is near, and one that is what a row says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

from benchmarks.link_rows import Row
from tests.harness.hosts import ensure_hosts
from tests.harness.kafka import ExternalKafka, KafkaBroker
from tests.harness.link import FarKafka, Line, far_kafka
from tests.harness.switch import Packets, Switched, distant_broker


class Place(Protocol):
    """A Kafka with two ways to it."""

    #: near_address, far_address: its bootstrap servers.
    near_address: str
    far_address: str

    def set(self, row: Row | None) -> None:
        """Make the far way what a row says, or let it be fast again."""

    def moved(self) -> tuple[int, int]:
        """Return the bytes that came over the far way, and its connections, until now."""

    def near(self) -> AbstractContextManager[None]:
        """Be, and start programs, where the near way is."""

    def far(self) -> AbstractContextManager[None]:
        """Be, and start programs, where the far way is."""

    def stored_bytes(self, topic: str) -> int:
        """Measure what Kafka keeps of a topic."""


class _Proxied:
    """Behind a proxy, which knows what a fetch response is."""

    def __init__(self, kafka: FarKafka) -> None:
        self._kafka = kafka
        self.near_address = kafka.near.bootstrap_servers
        self.far_address = kafka.bootstrap_servers

    def set(self, row: Row | None) -> None:
        self._kafka.link.set(Line() if row is None else Line(row.mbit, row.round_trip_ms / 1000))

    def moved(self) -> tuple[int, int]:
        moved = self._kafka.link.moved
        return moved.fetched, moved.connections

    def near(self) -> AbstractContextManager[None]:
        return nullcontext()

    def far(self) -> AbstractContextManager[None]:
        return nullcontext()

    def stored_bytes(self, topic: str) -> int:
        return self._kafka.stored_bytes(topic)


class _Switched:
    """On hosts of their own, whose switch sees packets."""

    def __init__(self, network: Switched, broker: KafkaBroker, kafka: ExternalKafka) -> None:
        self._network = network
        self._broker = broker
        self._kafka_host, self._client_host = network.hosts
        self.near_address = self.far_address = kafka.bootstrap_servers

    def set(self, row: Row | None) -> None:
        packets = Packets() if row is None else Packets(row.mbit, row.round_trip_ms / 1000, row.loss)
        self._network.set(packets)

    def moved(self) -> tuple[int, int]:
        return (
            self._network.carried(self._kafka_host).tcp_bytes,
            self._network.carried(self._client_host).connections,
        )

    def near(self) -> AbstractContextManager[None]:
        return self._kafka_host.inside()

    def far(self) -> AbstractContextManager[None]:
        return self._client_host.inside()

    def stored_bytes(self, topic: str) -> int:
        return self._broker.stored_bytes(topic)


@contextmanager
def far_place(folder: Path) -> Iterator[Place]:
    """Run a Kafka behind a proxy."""
    with far_kafka(folder, Line()) as kafka:
        yield _Proxied(kafka)


@contextmanager
def packet_place(folder: Path) -> Iterator[Place]:
    """Run a Kafka on a host of its own."""
    ensure_hosts()
    with Switched(2) as network, distant_broker(network.hosts[0], folder) as (broker, kafka):
        yield _Switched(network, broker, kafka)
