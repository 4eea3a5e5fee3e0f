"""Connections that are reused: opening one costs more than reading a small range."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from fink_dask.config import KafkaSettings
from fink_dask.kafka.connection import Connection

#: Opens a connection, or takes one that is there, for as long as the block lasts.
Connect = Callable[[KafkaSettings], AbstractContextManager[Connection]]


class ConnectionPool:
    """Lends connections to the threads of a process.

    Parameters
    ----------
    idle_s : float
        Seconds after which a connection that nobody uses is closed: a worker may outlive its jobs by days.
    """

    def __init__(self, idle_s: float = 10.0) -> None:
        self._idle_s = idle_s
        self._idle: dict[KafkaSettings, list[tuple[Connection, threading.Timer]]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def connect(self, settings: KafkaSettings) -> Iterator[Connection]:
        """Lend a connection. It comes back when the block ends, but not when that fails: its state is then unknown."""
        with self._lock:
            idle = self._idle.get(settings)
            connection, timer = idle.pop() if idle else (None, None)
        if connection is None or timer is None:
            connection = Connection(settings)
        else:
            timer.cancel()
            connection.errors.forget()
        try:
            yield connection
            connection.consumer.unassign()
        except BaseException:
            connection.close()
            raise
        timer = threading.Timer(self._idle_s, self._close, (settings, connection))
        timer.daemon = True
        with self._lock:
            self._idle.setdefault(settings, []).append((connection, timer))
        timer.start()

    def close(self) -> None:
        """Close the connections that nobody uses."""
        with self._lock:
            idle = [pair for pairs in self._idle.values() for pair in pairs]
            self._idle.clear()
        for connection, timer in idle:
            timer.cancel()
            connection.close()

    def _close(self, settings: KafkaSettings, connection: Connection) -> None:
        with self._lock:
            pairs = self._idle.get(settings, [])
            found = [pair for pair in pairs if pair[0] is connection]
            for pair in found:
                pairs.remove(pair)
        if found:  # else it was lent again at the same moment
            connection.close()
