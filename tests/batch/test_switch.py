"""The switch does what the tests of lossy lines trust it to do."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from tests.harness.oracle import wait_for
from tests.harness.switch import Packets, Switched

PORT = 5000
SENT = bytes(range(256)) * 2000


@contextmanager
def serving(network: Switched) -> Iterator[None]:
    """Have the first host send the same half megabyte to whoever connects, and then all that it is told."""
    host = network.hosts[0]
    with host.inside():
        door = socket.create_server((host.address, PORT))

    def answer(peer: socket.socket) -> None:
        with closing(peer):
            peer.sendall(SENT)
            while data := peer.recv(2**16):
                peer.sendall(data)

    def serve() -> None:
        while True:
            try:
                peer, _ = door.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(peer,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield
    finally:
        door.close()


def connect(network: Switched, timeout_s: float = 20) -> socket.socket:
    with network.hosts[1].inside():
        return socket.create_connection((network.hosts[0].address, PORT), timeout_s)


def receive(client: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        found += client.recv(2**16)
    return found


@pytest.mark.parametrize(
    ("packets", "mtu"),
    [
        (Packets(loss=0.05, round_trip_s=0.01), 1500),
        (Packets(reorder=0.1, duplicate=0.1, round_trip_s=0.01), 1500),
        (Packets(round_trip_s=0.01), 576),
    ],
    ids=["lost", "reordered and doubled", "small"],
)
@pytest.mark.usefixtures("hosts")
def test_what_tcp_carries_is_whole_whatever_happens_to_packets(packets: Packets, mtu: int) -> None:
    with Switched(2, packets, mtu) as network, serving(network), closing(connect(network)) as client:
        assert receive(client, len(SENT)) == SENT
        carried = network.carried(network.hosts[0])
        assert carried.sent_bytes > len(SENT)
        assert (carried.dropped > 0) == (packets.loss > 0)
        assert network.carried(network.hosts[1]).connections == 1


@pytest.mark.usefixtures("hosts")
def test_a_handshake_takes_a_round_trip_and_a_line_no_more_than_its_rate() -> None:
    with Switched(2, Packets(mbit=8, round_trip_s=0.2)) as network, serving(network):
        begun = time.monotonic()
        with closing(connect(network)) as client:
            assert time.monotonic() - begun >= 0.2
            receive(client, len(SENT))
            assert time.monotonic() - begun >= 0.2 + len(SENT) / 1e6 * 0.9


@pytest.mark.usefixtures("hosts")
def test_a_cut_tells_nobody_and_what_was_sent_meanwhile_arrives_afterwards() -> None:
    with Switched(2) as network, serving(network), closing(connect(network)) as client:
        receive(client, len(SENT))
        network.cut(network.hosts[0])
        client.sendall(b"meanwhile")
        with pytest.raises(TimeoutError):
            connect(network, 0.5)
        network.heal(network.hosts[0])
        assert receive(client, 9) == b"meanwhile"


@pytest.mark.usefixtures("hosts")
def test_a_connection_that_was_silent_is_forgotten() -> None:
    with Switched(2, Packets(forget_s=0.3)) as network, serving(network), closing(connect(network)) as client:
        receive(client, len(SENT))
        time.sleep(0.5)  # nothing else makes it idle
        client.sendall(b"lost")
        wait_for(lambda: network.carried(network.hosts[1]).dropped > 0, "a packet to vanish")
        client.settimeout(0.5)
        with pytest.raises(TimeoutError):
            client.recv(1)
