"""What a broker is asked through, and what records arrive through: two clients, each with sockets of its own.

A question never goes over the connection that records arrive on. There it would wait behind the response that is being
received; and librdkafka takes a connection down where a request on it runs into its time-out, together with whatever
has arrived of the response before it: `rd_kafka_broker_timeout_scan` in
https://github.com/confluentinc/librdkafka/blob/master/src/rdkafka_broker.c
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from fink_dask.kafka.admin import LOOK_S, Admin, AnswerWait, in_background
from fink_dask.kafka.confluent import (
    Consumer,
    Errors,
    KafkaException,
    TopicPartition,
    broker_error,
    client_config,
)
from fink_dask.kafka.line import FIRST_FETCH_BYTES, Line
from fink_dask.kafka.partition_queue import PartitionQueue, take_queue
from fink_dask.settings import KafkaSettings

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

#: Seconds for which librdkafka is trusted to know where a topic's partitions are; it forgets after 15 minutes.
_KNOWN_S = 300.0
#: Seconds after which librdkafka is left to find that out by itself.
_LEARN_S = 10.0
#: Seconds after which a consumer that does not come to its end is left to itself.
_CLOSE_S = 10.0
#: What is asked for at once where a few records are enough; a batch that is larger still comes.
_GLIMPSE_BYTES = 16 * 1024
#: Milliseconds between two statements of librdkafka on what has arrived; and where a look is short, and waits for one.
_STATED_MS, _STATED_SOON_MS = 500, 100
#: The most bytes of one response, decompressed or not, that is not taken for an error. What Kafka sends is at least one
#: batch of records, whatever was asked for; a batch has `message.max.bytes` at most, 1 MB by default.
_MAX_RESPONSE_BYTES = 100_000_000

#: What is so many times as large as on the line would burst the memory with its first response.
_BURSTS = 8.0
#: What a connection asks for at once misses what the line is known to carry by fewer times than that.
_FITS = 2


@dataclass(frozen=True)
class Arrived:
    """What has come over a consumer's connections, as librdkafka states it twice a second."""

    #: Bytes of all responses.
    wire_bytes: int = 0
    #: How many there were.
    responses: int = 0
    #: How many times a broker was connected to.
    connections: int = 0
    #: Records that have come, consumed or not, among what else waits for whoever consumes.
    records: int = 0
    #: Bytes of the records alone, after decompression.
    record_bytes: int = 0
    #: The same of all records that were in these responses, wanted or not.
    unpacked_bytes: int = 0
    #: Seconds for which brokers have made it wait, by a quota.
    throttled_s: float = 0.0
    #: The shortest time that any response took.
    round_trip_s: float = 0.0
    #: Requests that were given up, as no response had come within librdkafka's minute.
    timeouts: int = 0
    #: Where it fetches next, of each topic and partition.
    next_offsets: Mapping[tuple[str, int], int] = field(default_factory=dict)


class Connection:
    """A consumer that commits nothing, creates no topic and joins no group; for one thread at a time.

    A cluster that has never had a group makes its own `__consumer_offsets` when librdkafka looks for a coordinator.

    `ahead`: records that are fetched ahead, as far as the settings' `queue_bytes` allow.
    `group_id`: A name for brokers that want one; no group of this name is joined, nor its offsets are touched.
    `stated_ms`: milliseconds between two statements on what has arrived; 0 for none.
    Raises BrokerError if librdkafka refuses a property.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        fetch_bytes: int = FIRST_FETCH_BYTES,
        admin: Admin | None = None,
        ahead: int = 100_000,
        group_id: str = "fink-dask",
        stated_ms: int = _STATED_MS,
    ) -> None:
        # How to reach Kafka.
        self.settings = settings
        # The most that one fetch asks for. Kafka sends at least one batch of records, even if that is larger.
        self.fetch_bytes = fetch_bytes
        #: What librdkafka says of its connections.
        self.errors = Errors()
        if admin is not None:  # whoever has answered that speaks the same protocol here
            self.errors.has_answered = admin.errors.has_answered
        #: What has come, as it was last stated.
        self.arrived = Arrived()
        #: taken, taken_bytes: records that were consumed, and their bytes.
        self.taken = self.taken_bytes = 0
        # What questions go through, where one is there that others use as well.
        self._admin = admin
        self._learnt: dict[str, float] = {}
        self._learning: dict[str, Future[None]] = {}
        #: Whether it is at its end, and nothing is to be asked through it.
        self.is_closed = False
        #: What is still done through the consumer in the background.
        self._begun: set[Future[Any]] = set()
        # Of each topic and partition that was read from a queue of its own; and the one that is.
        self._queues: dict[tuple[str, int], PartitionQueue] = {}
        self._current: PartitionQueue | None = None
        config = client_config(settings, self.errors) | {
            # librdkafka wants a name even where partitions are assigned by hand, and looks for its coordinator; a
            # broker that refuses the group refuses nothing that is used here.
            "group.id": group_id,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "allow.auto.create.topics": False,
            "isolation.level": "read_committed",
            "check.crcs": True,
            # With the default of 500 ms a consumer waits that long at the end of a partition before it sees the next.
            "fetch.wait.max.ms": 10,
            "queued.max.messages.kbytes": max(1, settings.queue_bytes // 1024),
            "queued.min.messages": ahead,
            "fetch.message.max.bytes": fetch_bytes,
            "receive.message.max.bytes": _MAX_RESPONSE_BYTES,
            "fetch.queue.backoff.ms": 20,
            "statistics.interval.ms": stated_ms,
            "stats_cb": self._state,
        }
        try:
            self.consumer = Consumer(config)
        except KafkaException as error:
            raise broker_error(error.args[0]) from error

    @property
    def admin(self) -> Admin:
        """What questions go through."""
        if self._admin is None:
            self._admin = Admin(self.settings)
        return self._admin

    @property
    def expansion(self) -> float:
        """How many times as large as on the line records are; about 1 where they are not compressed."""
        # Of one statement both: what was consumed since may be thousands of times what had come when it was made.
        arrived = self.arrived
        # Where librdkafka has just closed the connection to a broker, its bytes are not stated any more.
        return arrived.unpacked_bytes / arrived.wire_bytes if arrived.unpacked_bytes and arrived.wire_bytes else 1.0

    def assign(self, topic: str, partition: int, offset: int, from_queue: bool = False) -> PartitionQueue | None:
        """Begin to fetch a partition from an offset on.

        `from_queue`: keep what comes in a queue of the partition's own, if that can be done.
        Returns: the queue; None where records come through the consumer.
        """
        place = topic, partition
        # librdkafka leaves a queue that was taken once where it is, so that the consumer would get nothing any more.
        queue = self._queues.get(place)
        if queue is None and from_queue and (queue := take_queue(self.consumer, topic, partition)) is not None:
            self._queues[place] = queue
        if self._current not in {None, queue}:
            self.unassign()
        if queue is not None:
            queue.begin()
        self._current = queue
        self.consumer.assign([TopicPartition(topic, partition, offset)])
        return queue

    def unassign(self) -> None:
        """Fetch nothing any more, and forget what was fetched and not taken."""
        queue, self._current = self._current, None
        if queue is not None:
            queue.end()
        self.consumer.unassign()
        if queue is not None:
            self.consumer.consume(num_messages=1, timeout=0)  # what is left over is destroyed as it is met

    def learn_soon(self, topics: Iterable[str]) -> None:
        """Begin to find out where the partitions of topics are, and do not wait for it."""
        for topic in topics:
            if not self._knows(topic):
                self._learnt[topic] = time.monotonic()
                self._learning[topic] = self.begin(partial(self._find, topic))

    def learn(self, topic: str, look: Callable[[], None] = lambda: None) -> None:
        """Make librdkafka find out where the partitions of a topic are, before one of them is assigned.

        It finds out by itself as well, but up to a second later where it is not the first topic of the consumer. What
        is wrong with the topic is said when it is read. `look` is called several times a second, and what it raises
        ends the wait.
        """
        self.learn_soon([topic])
        if (learning := self._learning.pop(topic, None)) is None:
            return
        until = time.monotonic() + 2 * _LEARN_S
        while wait([learning], timeout=LOOK_S).not_done and time.monotonic() < until:
            look()

    def close(self) -> None:
        """Close the consumer, once nobody asks through it any more: librdkafka would end the process otherwise.

        librdkafka waits until nobody refers to its brokers and partitions, and a few of its threads may wait for each
        other then, for ever and deaf to signals: https://github.com/confluentinc/librdkafka/issues/5476 and 4362. So it
        is waited for in a thread of its own, and not for ever.
        """
        if self.is_closed:
            return
        self.is_closed = True
        self._current = None
        while self._queues:
            self._queues.popitem()[1].close()
        begun = [*self._begun]
        try:
            closing = in_background(lambda: (wait(begun), self.consumer.close()))
        except RuntimeError:
            # As the process ends, Python 3.12.0 to 3.12.2 begin no thread any more. A consumer that is still asked
            # through ends with the process.
            if not begun:
                self.consumer.close()
            return
        if not begun and wait([closing], timeout=_CLOSE_S).not_done:
            log.debug("librdkafka has not ended a consumer in %.0f s", _CLOSE_S)

    def begin(self, function: Callable[[], Answer]) -> Future[Answer]:
        """Begin to do something through the consumer in a thread of its own; it is not closed before that has ended."""
        future = in_background(function)
        self._begun.add(future)
        future.add_done_callback(self._begun.discard)
        return future

    def ask(self, question: Callable[[float], Answer]) -> Answer:
        """Ask through the consumer, which has nothing assigned: for what an admin client can't ask.

        `question`: takes a time-out in seconds, and answers or raises KafkaException.
        Raises BrokerError, BrokerUnavailableError as `Admin.ask` does.
        """
        timeout_s = self.settings.request_timeout_s
        return AnswerWait(self.settings, self.errors, self.consumer.poll).ask(
            lambda: self.begin(lambda: question(timeout_s))
        )

    def _find(self, topic: str) -> None:
        """Find the leaders of a topic's partitions, and connect to each; nothing is being received from them yet."""
        # By its name, which creates nothing: the consumer's property forbids it to every broker since 0.11.
        partitions = self.consumer.list_topics(topic, timeout=_LEARN_S).topics[topic].partitions
        for number in {each.leader: number for number, each in partitions.items() if each.leader >= 0}.values():
            # librdkafka connects to a broker when it has a request for it.
            self.consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=_LEARN_S)

    def _knows(self, topic: str) -> bool:
        return time.monotonic() - self._learnt.get(topic, -_KNOWN_S) < _KNOWN_S

    def _state(self, statement: str) -> None:
        """Take a statement: https://github.com/confluentinc/librdkafka/blob/master/STATISTICS.md."""
        stated = json.loads(statement)
        brokers = stated.get("brokers", {}).values()
        places = {
            (topic, int(number)): each
            for topic, known in stated.get("topics", {}).items()
            for number, each in known.get("partitions", {}).items()
        }
        partitions = places.values()
        up = {broker.get("nodeid") for broker in brokers if broker.get("state") == "UP"}
        if any(each.get("fetch_state") == "active" and each.get("broker") in up for each in partitions):
            self.errors.accepted()
        self.arrived = Arrived(
            wire_bytes=stated.get("rx_bytes", 0),
            responses=stated.get("rx", 0),
            connections=sum(broker.get("connects", 0) for broker in brokers),
            # This is called while records are consumed, and what is being consumed was queued when this was stated.
            records=self.taken + sum(each.get("fetchq_cnt", 0) for each in partitions),
            record_bytes=self.taken_bytes + sum(each.get("fetchq_size", 0) for each in partitions),
            unpacked_bytes=sum(each.get("rxbytes", 0) for each in partitions),
            round_trip_s=min(
                [
                    *([self.arrived.round_trip_s] if self.arrived.round_trip_s else []),
                    *(rtt / 1e6 for broker in brokers if (rtt := broker.get("rtt", {}).get("min", 0)) > 0),
                ],
                default=0.0,
            ),
            timeouts=sum(broker.get("req_timeouts", 0) for broker in brokers),
            next_offsets={place: each.get("next_offset", -1) for place, each in places.items()},
            # Each statement has what came since the one before, and whoever looks now and then meets few of them.
            throttled_s=self.arrived.throttled_s
            + sum(broker.get("throttle", {}).get("sum", 0) for broker in brokers) / 1000,
        )


@contextmanager
def open_connection(settings: KafkaSettings, **options: Any) -> Iterator[Connection]:
    """Make a `Connection`, and close it at the end."""
    connection = Connection(settings, **options)
    try:
        yield connection
    finally:
        connection.close()


def open_glimpse(settings: KafkaSettings, is_stated: bool = True) -> AbstractContextManager[Connection]:
    """Open a connection for a few records here and there: what is fetched beyond them is thrown away.

    `is_stated`: state what has arrived. librdkafka keeps what it states until records are consumed, however long that
    is, so that a connection which stays open, and is looked through now and then, states nothing.
    """
    stated_ms = _STATED_SOON_MS if is_stated else 0
    return open_connection(settings, fetch_bytes=_GLIMPSE_BYTES, ahead=1, stated_ms=stated_ms)


#: Opens a connection, or takes one that is there, for as long as the block lasts.
Connect = Callable[[KafkaSettings], AbstractContextManager[Connection]]


class ConnectionPool:
    """Lends connections to the threads of a process, which ask for as much at once as the line is known to carry."""

    def __init__(self, idle_s: float = 60.0) -> None:
        #: The line that all of them share.
        self.line = Line()
        # Seconds after which a connection that nobody uses is closed: a worker may outlive its jobs by days.
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
            connection.unassign()
        except BaseException:
            connection.close()
            raise
        self._give_back(connection)

    def warm_up(self, settings: KafkaSettings, count: int, topics: Sequence[str] = ()) -> None:
        """Begin to connect, for as many readers as there may be at first, while there is nothing to read yet.

        Of short ranges more are read at once than of others, and over a long way a connection takes seconds.
        """
        for connection in [self._take(settings) for _ in range(min(count, 2 * int(self.line.readers)))]:
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
        if settings.expansion > _BURSTS:
            most = max(1, int(most / settings.expansion))
        if settings.limit_rate is not None:
            most = min(most, self.line.most_at_once(settings.limit_rate, settings.record_bytes))
            # The next response is asked for when this one is taken, and not before: more would come, whatever the rate.
            made_with = replace(settings, queue_bytes=1)
        fetch_bytes = min(most, self.line.fetch_for(settings.record_bytes))
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
    return replace(settings, limit_rate=None, queue_bytes=1, record_bytes=0, expansion=1.0)


def _fits(connection: Connection, settings: KafkaSettings, fetch_bytes: int) -> bool:
    made_for = connection.settings
    if made_for.queue_bytes != settings.queue_bytes or (made_for.limit_rate is None) != (settings.limit_rate is None):
        return False  # what keeps to a rate fetches nothing ahead, whoever it is lent to
    # Not the half of what is wanted: a line that asks for twice as much has just seen that the half wastes too much.
    return fetch_bytes / _FITS < connection.fetch_bytes < fetch_bytes * _FITS
