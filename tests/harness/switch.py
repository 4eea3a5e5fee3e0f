"""Hosts whose network loses, delays, reorders and doubles packets: namespaces with a switch in user space between them.

Here TCP does what it does on a real line: a handshake takes a round trip, windows grow, what is lost is sent again. The
proxy of `tests.harness.link` needs no root and less of a processor, and has none of that.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.harness.hosts import Host
from tests.harness.kafka import ExternalKafka, KafkaBroker, make_nodes
from tests.harness.kafka_install import HarnessError

_PROGRAM = Path(__file__).with_name("switch_program.py")
#: A private network that is nowhere but between these hosts.
_NETWORK = "10.78.0"


@dataclass(frozen=True)
class Packets:
    """What happens to packets, on every line of a switch."""

    #: The rate in 10^6 bits a second, for each sender; 0 for no bound.
    mbit: float = 0.0
    #: How long it takes to hear back.
    round_trip_s: float = 0.0
    #: loss, reorder, duplicate: the shares of packets that are lost, overtaken by others, and come twice.
    loss: float = 0.0
    reorder: float = 0.0
    duplicate: float = 0.0
    #: A connection that is silent for longer is forgotten: its packets vanish. 0 for never.
    forget_s: float = 0.0
    #: Larger packets vanish, and nobody is told; 0 for none.
    largest: int = 0


@dataclass(frozen=True)
class Carried:
    """What a host's line has carried."""

    #: sent_bytes, received_bytes: of whole frames, those that were dropped included.
    sent_bytes: int = 0
    received_bytes: int = 0
    #: Frames that did not go on.
    dropped: int = 0
    #: connections, tcp_bytes: TCP connections that it has asked for, and what TCP has sent in all, what was sent again
    #: included.
    connections: int = 0
    tcp_bytes: int = 0


class Switched:
    """Hosts on such a switch; a context manager. Needs root."""

    def __init__(self, count: int = 2, packets: Packets = Packets(), mtu: int = 1500, seed: int = 0) -> None:
        self._count = count
        # What happens to packets, to begin with.
        self._packets = packets
        self._first = {"mtu": mtu, "seed": seed}
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self.hosts: list[Host] = []

    def __enter__(self) -> Switched:
        try:
            for number in range(1, self._count + 1):
                self.hosts.append(Host(f"s{number}", f"{_NETWORK}.{number}"))
                self.hosts[-1].ip("link", "set", "lo", "up")
                # As most servers do, it slows down for what is lost; any namespace may choose it, which cubic is not.
                with self.hosts[-1].inside():
                    Path("/proc/sys/net/ipv4/tcp_congestion_control").write_text("reno")
            command = [sys.executable, "-I", "-S", str(_PROGRAM)]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self._say({**self._first, "hosts": [{"pid": each.pid, "address": each.address} for each in self.hosts]})
            self.set(self._packets)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for host in reversed(self.hosts):
            host.close()
        self.hosts = []
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def set(self, packets: Packets) -> None:
        """Change what happens to packets that are yet to be sent."""
        self._say({"do": "set", **asdict(packets)})

    def cut(self, host: Host) -> None:
        """Let all packets from and to a host vanish."""
        self._say({"do": "cut", "port": self.hosts.index(host)})

    def heal(self, host: Host) -> None:
        """Let them through again."""
        self._say({"do": "heal", "port": self.hosts.index(host)})

    def carried(self, host: Host) -> Carried:
        """Tell what a host's line has carried until now."""
        return Carried(**self._say({"do": "count"})[self.hosts.index(host)])

    def _say(self, order: dict[str, Any]) -> Any:
        with self._lock:
            assert self._process is not None
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
            if not answer:
                raise HarnessError("the switch has ended: it needs /dev/net/tun, and root")
            return json.loads(answer)


@contextmanager
def distant_broker(
    host: Host, folder: Path, extra: Mapping[str, str] | None = None
) -> Iterator[tuple[KafkaBroker, ExternalKafka]]:
    """Run a broker on a host; yields it and the address that other hosts know it by.

    `extra`: server properties that win over the harness's.
    """
    (node,) = make_nodes(1)
    (listener,) = node.listeners
    addresses = {
        "listeners": f"PLAINTEXT://0.0.0.0:{listener.port},CONTROLLER://127.0.0.1:{node.controller_port}",
        "advertised.listeners": f"PLAINTEXT://{host.address}:{listener.port}",
    }
    broker = KafkaBroker(folder, {**addresses, **(extra or {})}, [node])
    try:
        with host.inside():
            broker.start()
        yield broker, ExternalKafka(f"{host.address}:{listener.port}")
    finally:
        broker.discard()
