"""Uploads: files on their way to an object store, several at once, however slow the line is.

A request has to end within a time-out that begins with the first byte of its body. So little is sent at once: a large
file goes in parts, and how many requests are under way follows from how long the last ones took; other processes, on
the same line, do the same. Whether the store is still there is asked apart, on a connection of its own: a line that is
slow answers, and one that was cut does not.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from fink_dask.errors import InterruptedTransferError, StorageError

#: A larger file is sent in parts of this many bytes; S3 takes no smaller ones.
PART_BYTES = 5 * 2**20
#: Requests that a process has under way: at first, and at most. Each holds a part in memory, and each file another.
_FIRST, _MOST = 2, 8
#: Seconds below which a part leaves room for more at once, and beyond which it asks for fewer.
_SOON_S, _LATE_S = 5.0, 20.0
#: Seconds between two questions whether the store is still there.
_ASK_S = 20.0
#: Seconds between two looks at whether this is still wanted.
_LOOK_S = 0.2
#: Seconds that requests may take to end which nobody waits for any more.
_END_S = 2.0


class Destination(Protocol):
    """What files are sent to: a bucket."""

    async def upload(self, key: str, path: Path, part_bytes: int, at_once: int) -> None:
        """Write a local file as an object, in parts of which some are under way at once."""

    async def look(self, key: str) -> object:
        """Ask for an object, which need not be there."""

    def remove_unfinished(self, prefix: str) -> None:
        """Remove what uploads in parts have left that were not completed, of objects whose names begin so."""


class Lanes:
    """How many requests may be under way at once; used in one event loop.

    It begins low. With eight requests of each process, on a machine with many cores, none would end in time.
    """

    def __init__(self) -> None:
        self.allowed = _FIRST
        self._taken = 0
        self._freed = asyncio.Event()

    async def take(self, wanted: int) -> int:
        """Wait until a request may be made; return for how many of those that are wanted there is room."""
        while self._taken >= self.allowed:
            self._freed.clear()
            await self._freed.wait()
        got = min(wanted, self.allowed - self._taken)
        self._taken += got
        return got

    def give(self, taken: int) -> None:
        """Make room."""
        self._taken -= taken
        self._freed.set()

    def learn(self, size: int, parts: int, at_once: int, seconds: float) -> None:
        """Draw conclusions from a file that was sent."""
        each_s = seconds * at_once / parts
        if each_s > _LATE_S:
            self.allowed = max(1, self.allowed // 2)
        elif each_s < _SOON_S * max(0.2, size / parts / PART_BYTES):  # a small request is no proof of a fast line
            self.allowed = min(_MOST, self.allowed + 1)
            self._freed.set()


class Uploads:
    """Sends files to a bucket, from all threads of this process."""

    def __init__(self, bucket: Destination) -> None:
        self._bucket = bucket
        self._lanes = Lanes()

    def send(self, prefix: str, files: Sequence[Path], should_stop: Callable[[], bool] = lambda: False) -> None:
        """Write local files as objects; each is there when all of it is, and all are when this returns.

        `prefix`: what comes before each file's name; nobody else sends anything there.
        `should_stop`: asked several times a second; True ends it.
        Raises StorageError if the store refuses, or does not answer any more.
        Raises InterruptedTransferError if `should_stop` said so.
        """
        if not files:
            return
        ended = threading.Event()
        sending = asyncio.run_coroutine_threadsafe(self._send_all(prefix, files, ended), _loop())
        try:
            while not wait({sending}, _LOOK_S).done:
                if should_stop():
                    raise InterruptedTransferError("stopped")
        except BaseException:
            sending.cancel()
            ended.wait(_END_S)
            self._bucket.remove_unfinished(prefix)
            raise
        try:
            sending.result()
        except StorageError as error:
            megabytes = sum(path.stat().st_size for path in files) / 1e6
            raise StorageError(f"while {megabytes:.1f} MB were being sent: {error}") from None

    async def _send_all(self, prefix: str, files: Sequence[Path], ended: threading.Event) -> None:
        # The largest first: it has the most parts that can be sent at once.
        sizes = sorted(((path.stat().st_size, path) for path in files), reverse=True)
        sending = [asyncio.create_task(self._send(size, f"{prefix}{path.name}", path)) for size, path in sizes]
        asking = asyncio.create_task(self._ask(f"{prefix}{files[0].name}"))
        together = asyncio.ensure_future(asyncio.gather(*sending))
        try:
            await asyncio.wait((together, asking), return_when=asyncio.FIRST_COMPLETED)
            (together if together.done() else asking).result()
        finally:
            for task in (*sending, asking):
                task.cancel()
            await asyncio.gather(*sending, asking, together, return_exceptions=True)
            ended.set()

    async def _send(self, size: int, key: str, path: Path) -> None:
        parts = max(1, -(-size // PART_BYTES))
        at_once = await self._lanes.take(parts)
        began = time.monotonic()
        try:
            await self._bucket.upload(key, path, PART_BYTES, at_once)
            self._lanes.learn(size, parts, at_once, time.monotonic() - began)
        finally:
            self._lanes.give(at_once)

    async def _ask(self, key: str) -> None:
        """Ask the store again and again for whatever, until it does not answer."""
        while True:
            await asyncio.sleep(_ASK_S)
            with suppress(FileNotFoundError):
                await self._bucket.look(key)


_starting = threading.Lock()


def _loop() -> asyncio.AbstractEventLoop:
    """Return the event loop in which this process sends; a caller's own may be busy, or not there."""
    with _starting:
        return _started_loop()


@lru_cache(maxsize=1)
def _started_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="fink-dask-uploads", daemon=True).start()
    return loop
