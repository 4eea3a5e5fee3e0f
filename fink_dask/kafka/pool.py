"""Connections that are reused: opening one costs more than reading a small range."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

from fink_dask.config import KafkaSettings
from fink_dask.kafka.connection import Admin, Connection
from fink_dask.kafka.line import Line

#: Opens a connection, or takes one that is there, for as long as the block lasts.
Connect = Callable[[KafkaSettings], AbstractContextManager[Connection]]

#: By how many times what a connection asks for at once may miss what the line is known to carry.
_FITS = 2


class ConnectionPool:
    """Lends connections to the threads of a process, which ask for as much at once as the line is known to carry.

    Parameters
    ----------
    idle_s : float
        Seconds after which a connection that nobody uses is closed: a worker may outlive its jobs by days.

    Attributes
    ----------
    line : Line
        The line that all of them share.
    """

    def __init__(self, idle_s: float = 60.0) -> None:
        self.line = Line()
        self._idle_s = idle_s
        self._idle: dict[KafkaSettings, list[tuple[Connection, threading.Timer]]] = {}
        #: One for each Kafka: any number of threads may ask through it.
        self._admins: dict[KafkaSettings, Admin] = {}
        self._lock = threading.Lock()

    @contextmanager
    def connect(self, settings: KafkaSettings) -> Iterator[Connection]:
        """Lend a connection. It comes back when the block ends, but not when that fails: its state is then unknown."""
        connection = self._take(settings)
        try:
            yield connection
            connection.consumer.unassign()
        except BaseException:
            connection.close()
            raise
        self._give_back(connection)

    def warm_up(self, settings: KafkaSettings, count: int, topics: Sequence[str] = ()) -> None:
        """Begin to connect, for as many readers as there may be at first, while there is nothing to read yet."""
        for connection in [self._take(settings) for _ in range(min(count, self.line.readers))]:
            connection.learn_soon(topics)
            self._give_back(connection)

    def close(self) -> None:
        """Close the connections that nobody uses."""
        with self._lock:
            idle = [pair for pairs in self._idle.values() for pair in pairs]
            self._idle.clear()
            self._admins.clear()
        for connection, timer in idle:
            timer.cancel()
            connection.close()

    def _take(self, settings: KafkaSettings) -> Connection:
        """Take an idle connection that fits the line and the settings, or make one."""
        most, made_with = settings.queue_bytes // 2, settings
        if settings.limit_rate is not None:
            most = min(most, self.line.most_at_once(settings.limit_rate))
            # The next response is asked for when this one is taken, and not before: more would come, whatever the rate.
            made_with = replace(settings, queue_bytes=1)
        fetch_bytes = min(most, self.line.fetch_bytes)
        with self._lock:
            admin = self._admins.get(_key(settings))
            if admin is None:
                admin = self._admins[_key(settings)] = Admin(settings)
            idle = self._idle.get(_key(settings), [])
            fitting = [pair for pair in idle if _fits(pair[0], settings, fetch_bytes)]
            if fitting:
                idle.remove(fitting[-1])
        if not fitting:  # those that do not fit are closed when nobody has wanted them for a while
            connection = Connection(made_with, fetch_bytes, admin)
            connection.settings = settings
            return connection
        connection, timer = fitting[-1]
        timer.cancel()
        connection.settings = settings
        connection.errors.forget()
        return connection

    def _give_back(self, connection: Connection) -> None:
        settings = connection.settings
        timer = threading.Timer(self._idle_s, self._close, (settings, connection))
        timer.daemon = True
        with self._lock:
            self._idle.setdefault(_key(settings), []).append((connection, timer))
        timer.start()

    def _close(self, settings: KafkaSettings, connection: Connection) -> None:
        admins: list[Admin] = []
        with self._lock:
            pairs = self._idle.get(_key(settings), [])
            found = [pair for pair in pairs if pair[0] is connection]
            for pair in found:
                pairs.remove(pair)
            if not any(self._idle.values()):
                # Whoever still reads through another connection holds on to the admin client that it asks through.
                # Those that nobody holds on to end with this function, and not while others wait for the lock.
                admins += self._admins.values()
                self._admins.clear()
        if found:  # else it was lent again at the same moment
            connection.close()


def _key(settings: KafkaSettings) -> KafkaSettings:
    """Leave out what does not say which Kafka it is."""
    return replace(settings, limit_rate=None, queue_bytes=1)


def _fits(connection: Connection, settings: KafkaSettings, fetch_bytes: int) -> bool:
    made_for = connection.settings
    if made_for.queue_bytes != settings.queue_bytes or (made_for.limit_rate is None) != (settings.limit_rate is None):
        return False  # what keeps to a rate fetches nothing ahead, whoever it is lent to
    return fetch_bytes / _FITS <= connection.fetch_bytes <= fetch_bytes * _FITS
