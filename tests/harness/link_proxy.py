"""The program behind `tests.harness.link`: forward ports of loopback over a line with a rate, a delay and faults.

It is a process of its own with nothing but the standard library, so that it starts at once and what a test computes
does not slow the line. It is told what to do, and answers, one JSON object a line; it ends with its standard input.

All connections share the rate, each way; whoever comes first is served first, a few kilobytes at a time. What is behind
the bottleneck is on its way for half a round trip. Before it, nothing waits but what small socket buffers hold, so that
the sender notices the rate. A handshake over loopback takes no time, so the first bytes of a connection wait a round
trip longer, which is when they would have left. Nothing is lost and windows don't grow: network namespaces have that.
"""

from __future__ import annotations

import asyncio
import json
import math
import socket
import struct
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator

FETCH = 1
_BUFFER_BYTES = 2**15
#: What may be on its way where no rate is set: the window of a fast line.
_WINDOW_BYTES = 2**22
_BACKLOG = 128
#: More than any Kafka takes: this is no request, but a TLS record.
_MAX_FRAME_BYTES = 2**28
#: More than a handshake, an error or a list of a few topics has: these are records.
_MUCH_BYTES = 2**13
#: The rate is kept over so many seconds; shorter waits are not worth a turn of the loop.
_GRAIN_S = 0.002


class Bottleneck:
    """What all connections go through one way; `take` returns when so many bytes are through."""

    def __init__(self, bytes_per_s: float) -> None:
        # Its rate; 0 for none.
        self.bytes_per_s = bytes_per_s
        self._free = 0.0

    async def take(self, count: int) -> None:
        if not self.bytes_per_s:
            return
        now = time.monotonic()
        self._free = max(self._free, now) + count / self.bytes_per_s
        if self._free - now > _GRAIN_S:
            await asyncio.sleep(self._free - now)


class Frames:
    """Follow Kafka's framing in a stream, whatever pieces it comes in."""

    def __init__(self, head_bytes: int) -> None:
        # Of a frame's first bytes, its size included, `begin` needs so many.
        self._head_bytes = head_bytes
        self._head = b""
        self._left = 0
        self._label: int | None = None
        self._is_kafka = True

    def begin(self, head: bytes) -> int | None:
        """Return the request that a frame belongs to."""
        raise NotImplementedError

    def feed(self, data: bytes) -> Iterator[tuple[int | None, int]]:
        """Take the next piece; yield how many bytes of it belong to which request."""
        at = 0
        while self._is_kafka and at < len(data):
            if not self._left:
                part = data[at : at + self._head_bytes - len(self._head)]
                self._head += part
                at += len(part)
                if len(self._head) < self._head_bytes:
                    return
                (size,) = struct.unpack(">i", self._head[:4])
                if not self._head_bytes - 4 <= size <= _MAX_FRAME_BYTES:
                    self._is_kafka = False
                    return
                self._label, self._left = self.begin(self._head), size - (self._head_bytes - 4)
                yield self._label, self._head_bytes
                self._head = b""
            part_bytes = min(self._left, len(data) - at)
            if part_bytes:
                yield self._label, part_bytes
            at += part_bytes
            self._left -= part_bytes


class Requests(Frames):
    """What a client asks on a connection, counted."""

    def __init__(self, counts: Counter[int]) -> None:
        super().__init__(12)
        self._counts = counts
        self.asked: dict[int, int] = {}

    def begin(self, head: bytes) -> int | None:
        key, _, correlation = struct.unpack(">hhi", head[4:])
        self.asked[correlation] = key
        self._counts[key] += 1
        return int(key)


class Responses(Frames):
    """What a broker answers on it."""

    def __init__(self, requests: Requests) -> None:
        super().__init__(8)
        self._requests = requests

    def begin(self, head: bytes) -> int | None:
        return self._requests.asked.pop(struct.unpack(">i", head[4:])[0], None)


class Proxy:
    """All ports of a link."""

    def __init__(self) -> None:
        self.up, self.down = Bottleneck(0), Bottleneck(0)
        self.delay_s = 0.0
        self.forget_s = math.inf
        self.whole = asyncio.Event()
        self.whole.set()
        self.counts: Counter[str] = Counter()
        self.asked: Counter[int] = Counter()
        self.open: set[Connection] = set()
        self.arrivals: deque[tuple[float, int]] = deque(maxlen=1000)
        self._doors: list[Door] = []

    def set(self, mbit: float, round_trip_s: float, forget_s: float) -> None:
        self.up.bytes_per_s = self.down.bytes_per_s = mbit * 1e6 / 8
        self.delay_s = round_trip_s / 2
        self.forget_s = forget_s or math.inf

    async def listen(self, host: str, port: int, target: int) -> None:
        door = Door(self, host, port, target)
        self._doors.append(door)
        if not self.whole.is_set():
            door.shut()

    def cut(self) -> None:
        self.whole.clear()
        for door in self._doors:
            door.shut()

    def heal(self) -> None:
        self.whole.set()
        for door in self._doors:
            door.reopen()

    def reset(self) -> None:
        for connection in list(self.open):
            connection.reset()

    def counters(self) -> dict[str, object]:
        return {
            **{name: self.counts[name] for name in ("up", "down", "fetched", "connections", "forgotten", "hung_up")},
            "open": len(self.open),
            "asked": dict(self.asked),
        }


class Door:
    """A port that is listened on; while it is shut, whoever calls gets no answer at all, as with a cut line."""

    def __init__(self, proxy: Proxy, host: str, port: int, target: int) -> None:
        self._proxy = proxy
        self._target = target
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit it, and a window is settled with the handshake.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        self._socket.setblocking(False)
        self._socket.bind((host, port))
        self._socket.listen(_BACKLOG)
        self._fillers: list[socket.socket] = []
        self._own: set[object] = set()
        self._accepting: asyncio.Task[None] = asyncio.ensure_future(self._accept())

    def shut(self) -> None:
        """Let the kernel drop whatever calls: its queue of those that wait to be accepted is full."""
        self._accepting.cancel()
        self._socket.listen(0)
        if not self._fillers:
            for _ in range(2):
                filler = socket.socket(self._socket.family, socket.SOCK_STREAM)
                filler.setblocking(False)
                filler.connect_ex(self._socket.getsockname())
                self._own.add(filler.getsockname())
                self._fillers.append(filler)

    def reopen(self) -> None:
        for filler in self._fillers:
            filler.close()
        self._fillers.clear()
        self._socket.listen(_BACKLOG)
        if self._accepting.done() or self._accepting.cancelling():
            self._accepting = asyncio.ensure_future(self._accept())

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client, address = await loop.sock_accept(self._socket)
            if address in self._own:  # one that filled the queue
                client.close()
                continue
            task = asyncio.ensure_future(Connection(self._proxy, client, self._target).run())
            task.add_done_callback(lambda done: done.cancelled() or done.exception())


class Connection:
    """One client's connection, and ours to the broker."""

    def __init__(self, proxy: Proxy, client: socket.socket, target: int) -> None:
        self._proxy = proxy
        self._client = client
        self._target = target
        self._broker = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._tasks: list[asyncio.Task[None]] = []
        self.is_new = True
        self.used = time.monotonic()

    async def run(self) -> None:
        loop, counts = asyncio.get_running_loop(), self._proxy.counts
        for each in (self._client, self._broker):
            each.setblocking(False)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        self._broker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        self._proxy.open.add(self)
        try:
            await loop.sock_connect(self._broker, ("127.0.0.1", self._target))
            counts["connections"] += 1
            requests = Requests(self._proxy.asked)
            up = Way(self._proxy, self, self._proxy.up, "up", requests)
            down = Way(self._proxy, self, self._proxy.down, "down", Responses(requests))
            async with asyncio.TaskGroup() as group:
                self._tasks = [
                    group.create_task(up.carry(self._client, self._broker)),
                    group.create_task(down.carry(self._broker, self._client)),
                ]
        except* OSError:
            pass
        finally:
            self.close()

    def reset(self) -> None:
        """End it without a farewell, both sides told."""
        for each in (self._client, self._broker):
            if each.fileno() >= 0:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for each in (self._client, self._broker):
            each.close()
        self._proxy.open.discard(self)


class Way:
    """One of the two ways of a connection."""

    def __init__(self, proxy: Proxy, connection: Connection, bottleneck: Bottleneck, name: str, frames: Frames) -> None:
        self._proxy = proxy
        self._connection = connection
        self._bottleneck = bottleneck
        self._name = name
        self._frames = frames
        self._flying: deque[tuple[float, bytes]] = deque()
        self._flying_bytes = 0
        self._moved = asyncio.Event()

    async def carry(self, source: socket.socket, sink: socket.socket) -> None:
        """Forward until all is said, or the sink takes no more; what was said arrives before its end does."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._leave(source))
            group.create_task(self._arrive(sink))

    async def _leave(self, source: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        data = b"-"
        while data:
            rate = self._bottleneck.bytes_per_s
            while self._flying_bytes > (rate * self._proxy.delay_s if rate else _WINDOW_BYTES) + _BUFFER_BYTES:
                self._moved.clear()
                await self._moved.wait()
            # Some milliseconds of the line at once: connections take turns.
            data = await loop.sock_recv(source, int(min(2**16, max(1448, rate * 0.004))) if rate else 2**16)
            if data and self._is_forgotten():
                continue
            await self._bottleneck.take(len(data))
            await self._proxy.whole.wait()
            self._count(data)
            self._flying.append((time.monotonic() + self._delay_s(), data))
            self._flying_bytes += len(data)
            self._moved.set()
        self._proxy.counts["hung_up"] += self._name == "down"

    async def _arrive(self, sink: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while not self._flying:
                self._moved.clear()
                await self._moved.wait()
            due, data = self._flying[0]
            wait = due - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            await self._proxy.whole.wait()
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            await loop.sock_sendall(sink, data)
            self._flying.popleft()
            self._flying_bytes -= len(data)
            self._moved.set()

    def _delay_s(self) -> float:
        if self._connection.is_new and self._name == "up":
            self._connection.is_new = False
            return 3 * self._proxy.delay_s
        return self._proxy.delay_s

    def _is_forgotten(self) -> bool:
        """Tell whether the connection was silent for too long: from then on nothing passes, and nobody is told."""
        now = time.monotonic()
        if self._connection.used < 0:
            return True
        if now - self._connection.used > self._proxy.forget_s:
            self._connection.used = -1.0
            self._proxy.counts["forgotten"] += 1
            return True
        self._connection.used = now
        return False

    def _count(self, data: bytes) -> None:
        self._proxy.counts[self._name] += len(data)
        if self._name == "down" and len(data) >= _MUCH_BYTES:
            self._proxy.arrivals.append((time.time() + self._proxy.delay_s, len(data)))
        for key, size in self._frames.feed(data):
            if key == FETCH and self._name == "down":
                self._proxy.counts["fetched"] += size


async def main() -> None:
    """Serve until standard input ends."""
    proxy = Proxy()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        order = json.loads(line)
        answer: object = None
        match order.pop("do"):
            case "listen":
                await proxy.listen(**order)
            case "set":
                proxy.set(**order)
            case "cut":
                proxy.cut()
            case "heal":
                proxy.heal()
            case "reset":
                proxy.reset()
            case "count":
                answer = proxy.counters()
            case "arrivals":
                answer = list(proxy.arrivals)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
