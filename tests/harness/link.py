"""A link like a user's between a client and Kafka: slow, far, cut, or forgetful. It counts what goes through it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.harness.kafka import KafkaBroker, make_nodes
from tests.harness.kafka_settings import HOST

_PROGRAM = Path(__file__).with_name("link_proxy.py")
#: The name of the listener that is reached through the link.
FAR = "FAR"


@dataclass(frozen=True)
class Line:
    """What a line is like."""

    #: Its rate in 10^6 bits a second, each way, shared by all connections; 0 for no bound.
    mbit: float = 0.0
    #: How long it takes to hear back.
    round_trip_s: float = 0.0
    #: A connection that is silent for longer is forgotten: nothing passes any more, and neither side is told. 0 for
    #: never.
    forget_s: float = 0.0


@dataclass(frozen=True)
class Moved:
    """What went through a link since it was made, in bytes and counts."""

    #: up, down: bytes from the client to Kafka, and from Kafka.
    up: int
    down: int
    #: Of those from Kafka, bytes of fetch responses, complete or not; 0 where TLS hides them.
    fetched: int
    #: connections, open, forgotten, hung_up: connections that were made, are there, were silently dropped, and were
    #: ended by Kafka.
    connections: int
    open: int
    forgotten: int
    hung_up: int
    #: How many requests of each API key went to Kafka, where TLS does not hide them.
    asked: Mapping[int, int]

    def since(self, before: Moved) -> Moved:
        """Return what went through after `before`; what is open is what is open now."""
        return Moved(
            self.up - before.up,
            self.down - before.down,
            self.fetched - before.fetched,
            self.connections - before.connections,
            self.open,
            self.forgotten - before.forgotten,
            self.hung_up - before.hung_up,
            {key: count - before.asked.get(key, 0) for key, count in self.asked.items()},
        )


class Link:
    """Ports of loopback that lead to others over one line, in a process of its own; a context manager."""

    def __init__(self, ports: Mapping[int, int], line: Line = Line(), host: str = HOST) -> None:
        # Where each port leads.
        self._ports = dict(ports)
        # What the line is like, to begin with.
        self._line = line
        # The address of loopback that the ports are on.
        self._host = host
        self._lock = threading.Lock()

    def __enter__(self) -> Link:
        # Without site-packages, which it needs nothing of.
        command = [sys.executable, "-I", "-S", str(_PROGRAM)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            self.set(self._line)
            for port, target in self._ports.items():
                self._order("listen", host=self._host, port=port, target=target)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def set(self, line: Line) -> None:
        """Change what the line is like, for what is yet to come."""
        self._order("set", **asdict(line))

    def cut(self) -> None:
        """Hold back everything from now on; who connects gets no answer, and neither side is told."""
        self._order("cut")

    def heal(self) -> None:
        """Let everything through again, what was held back first."""
        self._order("heal")

    def reset(self) -> None:
        """End all connections at once, both sides told; new ones can be made."""
        self._order("reset")

    @property
    def moved(self) -> Moved:
        """What went through until now."""
        found: dict[str, Any] = self._order("count")
        asked = {int(key): count for key, count in found.pop("asked").items()}
        return Moved(**found, asked=asked)

    def first_records_after(self, moment: float) -> float:
        """Return when the first records arrived after a moment, both in seconds of the Unix epoch; TLS hides it not."""
        found: list[tuple[float, int]] = self._order("arrivals")
        return next(at for at, _ in found if at > moment)

    def _order(self, do: str, **what: Any) -> Any:
        with self._lock:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps({"do": do, **what}) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
            assert answer, "the link's process is gone"
            return json.loads(answer)


@dataclass(frozen=True)
class FarKafka:
    """A Kafka that is reached through a link, and directly by those who fill it."""

    #: Its address at the far end of the link.
    bootstrap_servers: str
    #: The broker itself, whose own address has no link before it.
    near: KafkaBroker
    link: Link

    def stored_bytes(self, topic: str) -> int:
        """Measure the batches that Kafka keeps of a topic, in its own files."""
        return self.near.stored_bytes(topic)


@contextmanager
def far_kafka(
    folder: Path,
    line: Line,
    extra: Mapping[str, str] | None = None,
    *,
    protocol: str = "PLAINTEXT",
    host: str = HOST,
    name: str = "",
) -> Iterator[FarKafka]:
    """Run a broker that tells those who come through a link to come back the same way.

    `line`: what the link is like, to begin with.
    `extra`: server properties that win over the harness's.
    `host, name`: the address of loopback that the link is on, and what Kafka calls it.
    """
    # The listener that clients see is the link's port; Kafka listens on another one.
    (node,) = make_nodes(1, {"PLAINTEXT": "PLAINTEXT", FAR: protocol, "BEHIND": protocol})
    near, far, behind = node.listeners
    addresses = {
        "listeners": ",".join(
            [
                f"{near.name}://{HOST}:{near.port}",
                f"{far.name}://{HOST}:{behind.port}",
                f"CONTROLLER://{HOST}:{node.controller_port}",
            ]
        ),
        "advertised.listeners": f"{near.name}://{HOST}:{near.port},{far.name}://{name or host}:{far.port}",
    }
    broker = KafkaBroker(folder, {**addresses, **(extra or {})}, [node])
    try:
        broker.start()
        with Link({far.port: behind.port}, line, host) as link:
            yield FarKafka(f"{name or host}:{far.port}", broker, link)
    finally:
        broker.discard()


@contextmanager
def dead_address(host: str, port: int) -> Iterator[None]:
    """Have an address that is there and answers nothing: who connects waits until he gives up."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as door, socket.socket(family) as first, socket.socket(family) as second:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind((host, port))
        door.listen(0)
        # The kernel drops who calls while the queue of those that wait to be accepted is full.
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex((host, port))
        yield


def with_names(names: Path, command: Sequence[str]) -> list[str]:
    """Spell a command whose names lead where a file says that has the form of ``/etc/hosts``, and all others too."""
    script = 'mount --bind "$0" /etc/hosts && exec "$@"'
    return ["unshare", "--map-root-user", "--mount", "--", "/bin/sh", "-c", script, str(names), *command]
