"""The program behind `tests.harness.switch`: a switch in user space between network namespaces.

Each namespace has a TAP device as its ``eth0``; frames are read from one, and written to the others when they would
have arrived. It is a process of its own with nothing but the standard library, is told what to do and answers one JSON
object a line, and ends with its standard input, and its devices with it. Linux has ``netem`` for this, which not every
kernel is built with.

Its ceiling on a machine of two cores, for one TCP connection: 77 MB/s with packets of 1,500 bytes, 450 MB/s with
9,000, for half a core each; with 1 Gbit/s and 20 ms set, 34 and 93 MB/s. At 100 Mbit/s and 20 ms it carries 11 MB/s
for a sixth of a core; at 8 Mbit/s it takes a twentieth. So more than 100 Mbit/s are for the proxy, or for large
packets. Time is kept to a millisecond. What ARP says is passed on at once and whole: a real client's router has been
asked long before.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TAP_NO_PI = 0x1002
_ETHERNET_BYTES = 14
_ARP = b"\x08\x06"
#: What waits before the bottleneck of a line; what comes when it is full is dropped.
_QUEUE_S, _QUEUE_BYTES = 0.2, 100_000
#: How much later a frame comes that others overtake, in seconds.
_OVERTAKEN_S = 0.01
_AT_ONCE = 64


@dataclass
class Settings:
    """What all lines are like."""

    mbit: float = 0.0
    round_trip_s: float = 0.0
    loss: float = 0.0
    reorder: float = 0.0
    duplicate: float = 0.0
    forget_s: float = 0.0
    largest: int = 0


@dataclass
class Port:
    """A device and the line to it."""

    device: int
    free_at: float = 0.0
    is_cut: bool = False
    counts: Counter[str] = field(default_factory=Counter)


class Switch:
    """All ports, and what is on its way between them."""

    def __init__(self, settings: Settings, ports: list[Port], seed: int) -> None:
        self.settings = settings
        self.ports = ports
        self._chance = random.Random(seed)
        self._where: dict[bytes, Port] = {}
        self._used: dict[bytes, float] = {}
        self._flying: list[tuple[float, int, Port, bytes]] = []
        self._sent = 0

    def due_in(self) -> float | None:
        """Return the seconds until the next frame arrives; None if there is none on its way."""
        return max(0.0, self._flying[0][0] - time.monotonic()) if self._flying else None

    def deliver(self) -> None:
        """Write what has arrived by now."""
        now = time.monotonic()
        while self._flying and self._flying[0][0] <= now:
            _, _, port, frame = heapq.heappop(self._flying)
            self._write(port, frame)

    def receive(self, port: Port) -> None:
        """Take what a device sends."""
        for _ in range(_AT_ONCE):
            try:
                frame = os.read(port.device, 2**16)
            except BlockingIOError:
                return
            self._where[frame[6:12]] = port
            to = None if frame[0] & 1 else self._where.get(frame[:6])
            receivers = [to] if to else [each for each in self.ports if each is not port]
            if frame[12:14] == _ARP:
                for receiver in receivers:
                    self._write(receiver, frame)
            else:
                self._send(port, receivers, frame)

    def _send(self, port: Port, receivers: list[Port], frame: bytes) -> None:
        now, settings = time.monotonic(), self.settings
        port.counts["sent_bytes"] += len(frame)
        _count_tcp(port.counts, frame)
        if port.is_cut or self._is_lost(frame, now):
            port.counts["dropped"] += 1
            return
        at = now
        if settings.mbit:
            takes = len(frame) * 8 / (settings.mbit * 1e6)
            waits = max(port.free_at, now) - now
            if waits > max(_QUEUE_S, _QUEUE_BYTES * 8 / (settings.mbit * 1e6)):
                port.counts["dropped"] += 1
                return
            at = port.free_at = now + waits + takes
        at += settings.round_trip_s / 2
        if settings.reorder and self._chance.random() < settings.reorder:
            at += _OVERTAKEN_S
        copies = 1 + (settings.duplicate > 0 and self._chance.random() < settings.duplicate)
        for receiver in receivers * copies:
            if receiver.is_cut:
                continue
            if at <= now:
                self._write(receiver, frame)
            else:
                self._sent += 1
                heapq.heappush(self._flying, (at, self._sent, receiver, frame))

    def _is_lost(self, frame: bytes, now: float) -> bool:
        settings = self.settings
        if settings.loss and self._chance.random() < settings.loss:
            return True
        if settings.largest and len(frame) - _ETHERNET_BYTES > settings.largest:
            return True
        return bool(settings.forget_s) and self._is_forgotten(frame, now)

    def _is_forgotten(self, frame: bytes, now: float) -> bool:
        """Tell whether a TCP connection was silent for too long, and nobody knows it any more."""
        found = _tcp(frame)
        if found is None:
            return False
        one, other, flags, _ = found
        flow = min(one, other) + max(one, other)
        if flags & 2:  # SYN
            self._used[flow] = now
            return False
        used = self._used.get(flow, now)
        if now - used > self.settings.forget_s:
            self._used[flow] = float("-inf")
            return True
        self._used[flow] = now
        return False

    def _write(self, port: Port, frame: bytes) -> None:
        if port.is_cut:
            return
        port.counts["received_bytes"] += len(frame)
        try:
            os.write(port.device, frame)
        except OSError:  # its queue is full, as that of a card can be
            port.counts["dropped"] += 1


def _tcp(frame: bytes) -> tuple[bytes, bytes, int, int] | None:
    """Return the two ends of a TCP segment over IPv4, its flags, and how many bytes it carries."""
    if frame[12:14] != b"\x08\x00" or frame[23] != 6:
        return None
    at = _ETHERNET_BYTES + 4 * (frame[14] & 15)
    if len(frame) < at + 14:
        return None
    carried = _ETHERNET_BYTES + int.from_bytes(frame[16:18], "big") - at - 4 * (frame[at + 12] >> 4)
    return frame[26:30] + frame[at : at + 2], frame[30:34] + frame[at + 2 : at + 4], frame[at + 13], carried


def _count_tcp(counts: Counter[str], frame: bytes) -> None:
    found = _tcp(frame)
    if found is not None:
        _, _, flags, carried = found
        counts["connections"] += flags & 18 == 2  # SYN without ACK
        counts["tcp_bytes"] += carried


def _tap(pid: int, address: str, mtu: int) -> int:
    """Make the device of a namespace, which another process holds; returns its descriptor."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    if libc.setns(there, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
    try:
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"eth0", _IFF_TAP_NO_PI))
        for command in (
            f"ip link set eth0 mtu {mtu} txqueuelen 5000",
            f"ip address add {address}/24 dev eth0",
            "ip link set eth0 up",
        ):
            subprocess.run(command.split(), check=True, capture_output=True, stdin=subprocess.DEVNULL)
    finally:
        if libc.setns(home, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        os.close(home)
        os.close(there)
    return device


def _obey(switch: Switch, order: dict[str, object]) -> object:
    do = order.pop("do")
    if do == "set":
        switch.settings = Settings(**order)  # type: ignore[arg-type]
    elif do in ("cut", "heal"):
        switch.ports[int(str(order["port"]))].is_cut = do == "cut"
    return [dict(port.counts) for port in switch.ports]


def main() -> None:
    """Switch until standard input ends."""
    first = json.loads(sys.stdin.buffer.readline())
    devices = [_tap(host["pid"], host["address"], first["mtu"]) for host in first["hosts"]]
    ports = {device: Port(device) for device in devices}
    switch = Switch(Settings(), list(ports.values()), first["seed"])
    waiting = select.epoll()
    for device in (*devices, 0):
        waiting.register(device, select.EPOLLIN)
    os.set_blocking(0, False)
    os.write(1, b"null\n")
    orders = b""
    while True:
        for device, _ in waiting.poll(switch.due_in()):
            if device:
                switch.receive(ports[device])
                continue
            said = os.read(0, 2**16)
            if not said:
                return
            orders += said
            while b"\n" in orders:
                line, _, orders = orders.partition(b"\n")
                os.write(1, json.dumps(_obey(switch, json.loads(line))).encode() + b"\n")
        switch.deliver()


if __name__ == "__main__":
    main()
