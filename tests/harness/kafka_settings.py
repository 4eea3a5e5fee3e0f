"""What a node of a Kafka cluster on loopback is told: its ports, its listeners, its properties."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.harness.kafka_install import HarnessError

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Listener:
    """One port that clients connect to: its name, its protocol (``PLAINTEXT``, ``SASL_SSL``, …) and its number."""

    name: str
    protocol: str
    port: int


@dataclass(frozen=True)
class Node:
    """One broker that is a controller as well; the first listener is also for the other brokers."""

    node_id: int
    controller_port: int
    listeners: tuple[Listener, ...]


def server_properties(node: Node, quorum: Sequence[Node], log_dir: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of one node of a cluster.

    `quorum`: all nodes of the cluster, this one among them.
    """
    replicas = str(min(3, len(quorum)))
    addresses = [f"{listener.name}://{HOST}:{listener.port}" for listener in node.listeners]
    protocols = [f"{listener.name}:{listener.protocol}" for listener in node.listeners]
    return {
        "process.roles": "broker,controller",
        "node.id": str(node.node_id),
        "controller.quorum.voters": ",".join(f"{n.node_id}@{HOST}:{n.controller_port}" for n in quorum),
        "controller.listener.names": "CONTROLLER",
        "listeners": ",".join([*addresses, f"CONTROLLER://{HOST}:{node.controller_port}"]),
        "advertised.listeners": ",".join(addresses),
        "inter.broker.listener.name": node.listeners[0].name,
        "listener.security.protocol.map": ",".join(["CONTROLLER:PLAINTEXT", *protocols]),
        "log.dirs": str(log_dir),
        "num.partitions": "10",
        "message.max.bytes": "20000000",
        "auto.create.topics.enable": "false",
        "group.initial.rebalance.delay.ms": "0",
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": "1",
        # Kafka makes 50 partitions of each, which one loopback client waits for and never needs.
        "offsets.topic.num.partitions": "5",
        "transaction.state.log.num.partitions": "5",
        # The controller refuses a restarted node until the killed one's session is over, which takes 9 s by default.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        # What a broker does while nobody asks it anything adds up in a run of minutes: records that say nothing, and
        # threads that look whether there is work.
        "metadata.max.idle.interval.ms": "0",
        "num.io.threads": "4",
        "num.network.threads": "1",
        **extra,
    }


#: Locks of the ports that this process has chosen; the system lets them go with it.
_RESERVED: list[IO[str]] = []


def _reserve(port: int) -> bool:
    """Keep a port from other test processes; False where one of them, or this one, has it."""
    folder = Path(tempfile.gettempdir()) / f"fink-dask-test-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    lock = (folder / str(port)).open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return False
    _RESERVED.append(lock)
    return True


def free_ports(count: int) -> list[int]:
    """Choose loopback ports that nobody listens on.

    They lie below the ephemeral range (32768 on Linux, 49152 on macOS): a client that keeps connecting to a stopped
    broker's port in that range ends up connected to itself, and the broker can't come back. No other test process
    chooses them as long as this one lives.
    """
    chosen: list[int] = []
    for port in random.SystemRandom().sample(range(20000, 32000), 1000):
        if not _reserve(port):
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        chosen.append(port)
        if len(chosen) == count:
            return chosen
    raise HarnessError("no free port between 20000 and 32000")
