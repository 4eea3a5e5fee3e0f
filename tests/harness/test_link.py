"""The link does what the tests of slow and broken lines trust it to do."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from tests.harness.kafka_settings import HOST, free_ports
from tests.harness.link import Line, Link, dead_address
from tests.harness.oracle import wait_for


class Echo:
    """Send back what comes, on each connection by itself; a context manager."""

    def __init__(self, port: int) -> None:
        self._door = socket.create_server((HOST, port))

    def __enter__(self) -> Echo:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._door.close()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._door.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(peer,), daemon=True).start()

    def _answer(self, peer: socket.socket) -> None:
        with peer, suppress(ConnectionError):
            while data := peer.recv(2**16):
                peer.sendall(data)


@pytest.fixture
def ports() -> Iterator[tuple[int, int]]:
    """Yield where a link is to listen, and where an echo is that it is to lead to."""
    near, far = free_ports(2)
    with Echo(far):
        yield near, far


def connect(port: int, timeout_s: float = 20) -> socket.socket:
    return socket.create_connection((HOST, port), timeout_s)


def echo(client: socket.socket, data: bytes) -> float:
    """Send and get back; returns the seconds."""
    begun = time.monotonic()
    sender = threading.Thread(target=client.sendall, args=(data,))
    sender.start()
    back = b""
    while len(back) < len(data):
        back += client.recv(2**16)
    sender.join()
    assert back == data
    return time.monotonic() - begun


def test_all_connections_together_are_no_faster_than_the_line(ports: tuple[int, int]) -> None:
    with (
        Link(dict([ports]), Line(mbit=8)) as line,
        closing(connect(ports[0])) as one,
        closing(connect(ports[0])) as other,
    ):
        begun = time.monotonic()
        threads = [threading.Thread(target=echo, args=(client, bytes(300_000))) for client in (one, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - begun >= 0.58
        assert (line.moved.up, line.moved.down, line.moved.connections) == (600_000, 600_000, 2)


def test_a_connection_whose_client_goes_while_much_is_on_its_way_to_it_is_over(ports: tuple[int, int]) -> None:
    with Link(dict([ports]), Line(mbit=80, round_trip_s=0.01)) as line:
        with closing(connect(ports[0])) as client:

            def send() -> None:
                with suppress(OSError):
                    client.sendall(bytes(50_000_000))

            sender = threading.Thread(target=send)
            sender.start()
            client.recv(1)
            line.cut()
            client.settimeout(0.5)
            with suppress(TimeoutError):  # so that it goes in peace, and not with a reset that tells all
                while True:
                    client.recv(2**16)
            client.shutdown(socket.SHUT_WR)
            sender.join()
        line.heal()
        wait_for(lambda: line.moved.open == 0, "the end of the connection", 20)


def test_an_answer_takes_a_round_trip_and_the_first_one_the_handshake_as_well(ports: tuple[int, int]) -> None:
    with Link(dict([ports]), Line(round_trip_s=0.2)), closing(connect(ports[0])) as client:
        assert echo(client, b"first") >= 0.4
        assert echo(client, b"second") >= 0.2


def test_a_cut_line_keeps_everything_and_tells_nobody(ports: tuple[int, int]) -> None:
    with Link(dict([ports]), Line()) as line, closing(connect(ports[0])) as client:
        echo(client, b"before")
        line.cut()
        client.sendall(b"meanwhile")
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(1)
        with pytest.raises(TimeoutError):
            connect(ports[0], 0.3)
        line.heal()
        client.settimeout(20)
        assert client.recv(100) == b"meanwhile"
        with closing(connect(ports[0])) as another:
            echo(another, b"after")
        assert line.moved.connections == 2


def test_a_connection_that_was_silent_is_forgotten_and_a_new_one_works(ports: tuple[int, int]) -> None:
    with Link(dict([ports]), Line(forget_s=0.2)) as line, closing(connect(ports[0])) as client:
        echo(client, b"before")
        time.sleep(0.3)  # nothing else makes it idle
        client.sendall(b"lost")
        wait_for(lambda: line.moved.forgotten == 1, "the connection to be forgotten")
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(1)
        with closing(connect(ports[0])) as another:
            echo(another, b"after")


def test_connections_that_are_reset_end_for_both_sides(ports: tuple[int, int]) -> None:
    with Link(dict([ports]), Line()) as line, closing(connect(ports[0])) as client:
        echo(client, b"before")
        line.reset()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        wait_for(lambda: line.moved.open == 0, "the connection to be gone")


def test_a_dead_address_answers_nothing() -> None:
    (dead,) = free_ports(1)
    with dead_address("127.0.0.2", dead), pytest.raises(TimeoutError):
        socket.create_connection(("127.0.0.2", dead), 0.5)
