"""The queue that librdkafka keeps of one partition's records, read without a Python object for each.

confluent-kafka has no call for that, but the library that it brings along has: the functions of its public interface
are called by ctypes, on the client that confluent-kafka has made. So TLS, passwords, properties and callbacks are those
of the same client. Everything that a callback is called for stays on the client's own queue: there confluent-kafka has
to be the caller, or the process would be aborted. A partition's queue holds its records, its errors and its ends, and
all of them are taken as events, for which librdkafka calls nothing. `rd_kafka_consume_batch_queue` is not used: it
calls the error callback where the topic is deleted.

Where anything is not as expected, `take_queue` returns None, and `Consumer.consume` does the same as ever.
"""

from __future__ import annotations

import ctypes
import logging
import os
import struct
import sys
import time
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from fink_dask.kafka.confluent import Consumer, KafkaError, client_library, librdkafka_version
from fink_dask.kafka.offsets import Interval
from fink_dask.kafka.records import RecordAccumulator

log = logging.getLogger(__name__)

#: The largest part of a client's memory in which it keeps what it was made with.
_CLIENT_BYTES = 2**15
#: The most records of a call, the bytes of their different keys, and the holes between them.
_RECORDS, _KEY_BYTES, _HOLES = 1000, 2**16, 256


class _Place(ctypes.Structure):
    """The beginning of `rd_kafka_topic_partition_t`."""

    _fields_ = (("topic", ctypes.c_char_p), ("partition", ctypes.c_int32), ("offset", ctypes.c_int64))


class _Library:
    """The functions of librdkafka's public interface that are needed; AttributeError where one is missing."""

    def __init__(self, path: str) -> None:
        pointer, text = ctypes.c_void_p, ctypes.c_char_p
        # It is loaded already, and what it was linked with is searched as well.
        self._loaded = ctypes.CDLL(path)
        self.version = self._find("version_str", text)
        self.opaque = self._find("opaque", pointer, pointer)
        self.partition_queue = self._find("queue_get_partition", pointer, pointer, text, ctypes.c_int32)
        self.consumer_queue = self._find("queue_get_consumer", pointer, pointer)
        self.forward = self._find("queue_forward", None, pointer, pointer)
        self.destroy_queue = self._find("queue_destroy", None, pointer)
        self.poll = self._find("queue_poll", pointer, pointer, ctypes.c_int)
        self.message_of = self._find("event_message_next", pointer, pointer)
        self.timestamp = self._find("message_timestamp", ctypes.c_int64, pointer, pointer)
        self.error = self._find("event_error", ctypes.c_int, pointer)
        self.words = self._find("event_error_string", text, pointer)
        self.place = self._find("event_topic_partition", ctypes.POINTER(_Place), pointer)
        self.destroy_place = self._find("topic_partition_destroy", None, ctypes.POINTER(_Place))
        self.destroy = self._find("event_destroy", None, pointer)

    def _find(self, name: str, returns: Any, *takes: Any) -> Any:
        function = self._loaded[f"rd_kafka_{name}"]
        function.restype, function.argtypes = returns, takes
        return function


@cache
def _library() -> _Library | None:
    """Return confluent-kafka's own librdkafka; None where this is not one of those that were tried."""
    version = librdkafka_version()
    is_known = sys.implementation.name == "cpython" and struct.calcsize("P") == 8 and version.startswith("2.")
    try:
        found = _Library(client_library()) if is_known else None
    except (OSError, AttributeError) as error:
        log.debug("librdkafka is not as expected: %s", error)
        return None
    return found if found is not None and found.version() == version.encode() else None


def _client_of(consumer: Consumer, library: _Library) -> int | None:
    """Return the address of a consumer's client, `rd_kafka_t`; None where it is not found.

    It is the first that the object has of its own. A client refers to the object for its callbacks, and says so.
    """
    head, own = object.__basicsize__, id(consumer)
    if type(consumer).__basicsize__ < head + struct.calcsize("P"):
        return None
    address: int = ctypes.c_void_p.from_address(own + head).value or 0
    if address == 0 or address % struct.calcsize("P") != 0 or not _may_refer(address, own):
        return None
    return address if library.opaque(address) == own else None


def _may_refer(address: int, to: int) -> bool:
    """Tell whether there is memory at an address that refers to another one; to look does no harm, whatever is there.

    Where the system shows no process its own memory, it is not looked at.
    """
    try:
        memory = os.open("/proc/self/mem", os.O_RDONLY)
    except OSError:
        return True
    try:
        return struct.pack("P", to) in os.pread(memory, _CLIENT_BYTES, address)
    except (OSError, OverflowError):
        return False
    finally:
        os.close(memory)


@dataclass
class Proof:
    """What this process knows of whether a record is the same, whichever way it comes."""

    #: Whether one was.
    is_given: bool = False
    #: Whether one was not: then no other is taken from a queue.
    is_refuted: bool = False


proof = Proof()


@dataclass(frozen=True)
class Event:
    """What a partition's queue holds beside records."""

    #: What it says, such as that the partition ends here.
    error: KafkaError
    #: Which offset it is about, if it is about one.
    offset: int
    #: Whether it is about what brokers know of the topic, and not about an answer to a fetch.
    is_of_topic: bool


@dataclass(frozen=True)
class Taken:
    """What became of the events of a queue."""

    #: Records, and bytes of their values and keys.
    records: int
    size: int
    #: The next offset, and where nothing was before it.
    position: int
    holes: list[Interval]
    #: What came after them, if it is no record.
    event: Event | None


class UnfitQueueError(Exception):
    """What came from a queue is no record of its partition: librdkafka is not what this was made for."""


class PartitionQueue:
    """The queue of a partition, apart from the client's own; of the thread that reads the partition.

    `client`: the address of the client, which lives longer.
    """

    def __init__(self, library: _Library, client: int, topic: str, partition: int) -> None:
        # numba takes a while to load, and what is small is read without it.
        from fink_dask.kafka import copying

        self._kernel = copying
        self._library, self._client = library, client
        self._name = f"{topic} [{partition}]: "
        queue: int | None = library.partition_queue(client, topic.encode(), partition)
        if queue is None:
            raise OSError(f"librdkafka has no queue of {topic} [{partition}]")
        self._queue = queue
        calls = (library.poll, library.message_of, library.timestamp, library.destroy)
        addresses = [ctypes.cast(call, ctypes.c_void_p).value for call in calls]
        self._calls = np.array([self._queue, *addresses], np.int64)
        self._state = np.zeros(copying.NUMBERS, np.int64)
        self._state[copying.PARTITION] = partition
        self._keys, self._holes = np.empty((_RECORDS, 2), np.int64), np.empty((_HOLES, 2), np.int64)
        self._key_data = np.empty(_KEY_BYTES, np.uint8)

    def begin(self) -> None:
        """Keep what is fetched from now on here; to be called before the partition is assigned."""
        self._drop()
        # librdkafka leaves such a queue where it is when the partition is assigned, and from then on.
        self._library.forward(self._queue, None)

    def end(self) -> None:
        """Leave what was fetched, and what librdkafka still has to say of the partition, to the client's own queue.

        It would be kept here, and a client can't be ended that keeps something of a topic that was deleted.
        """
        self._drop()
        queue = self._library.consumer_queue(self._client)
        self._library.forward(self._queue, queue)
        self._library.destroy_queue(queue)

    def close(self) -> None:
        """End it for good, before the client is closed."""
        self.end()
        self._library.destroy_queue(self._queue)
        self._queue = 0

    def wait(self, seconds: float) -> bool | None:
        """Wait until something is there; returns whether it is a record, and None where nothing came."""
        if not self._queue:
            raise RuntimeError("the connection was closed")
        kernel, state = self._kernel, self._state
        if not state[kernel.HELD]:
            state[kernel.HELD] = self._library.poll(self._queue, int(1000 * seconds)) or 0
            state[kernel.MESSAGE] = 0
        if not state[kernel.HELD]:
            return None
        if not state[kernel.MESSAGE]:
            state[kernel.MESSAGE] = self._library.message_of(int(state[kernel.HELD])) or 0
        return bool(state[kernel.MESSAGE])

    def take(self, pending: RecordAccumulator, position: int, end: int) -> Taken:
        """Take what is there of a range, up to the end of a batch.

        Raises UnfitQueueError if what is there is no record of this partition.
        """
        began = time.perf_counter()
        kernel, state = self._kernel, self._state
        state[kernel.POSITION], state[kernel.END] = position, end
        records = size = 0
        holes: list[Interval] = []
        while True:
            state[kernel.RECORDS], state[kernel.USED], state[kernel.SIZE] = pending.records, pending.used, pending.size
            why = kernel.copy_records(
                self._calls, state, pending.bounds, pending.offsets, pending.timestamps_ms, pending.ends,
                pending.missing, pending.data, self._keys, self._key_data, self._holes,
            )  # fmt: skip
            count, added = int(state[kernel.TAKEN]), int(state[kernel.SIZE]) - pending.size
            pending.add(count, int(state[kernel.USED]) - pending.used, added, self._keys_of_call())
            records, size = records + count, size + added
            holes += map(tuple, self._holes[: state[kernel.HOLES]].tolist())
            if why == kernel.NO_ROOM:
                pending.make_room(int(state[kernel.NEEDED]))
            elif why == kernel.NO_KEY_ROOM:
                self._key_data = np.empty(2 * max(len(self._key_data), int(state[kernel.NEEDED])), np.uint8)
            elif why == kernel.COMPLETE:
                pending.finish()
                if records:
                    break
            else:
                break
        if why == kernel.FOREIGN:
            proof.is_refuted = True
            raise UnfitQueueError(f"what librdkafka has of {self._name[:-2]} is no record")
        pending.join_seconds += time.perf_counter() - began
        return Taken(records, size, int(state[kernel.POSITION]), holes, self._event() if why == kernel.EVENT else None)

    def _keys_of_call(self) -> list[tuple[bytes | None, int]]:
        """Return the keys of what was copied, and how many records in a row have each."""
        found, at = [], 0
        for count, size in self._keys[: self._state[self._kernel.KEYS]].tolist():
            found.append((None if size < 0 else self._key_data[at : at + size].tobytes(), count))
            at += max(0, size)
        return found

    def _event(self) -> Event | None:
        """Take the event that is held; None where it says nothing."""
        event = int(self._state[self._kernel.HELD])
        code, words = self._library.error(event), self._library.words(event).decode(errors="replace")
        place = self._library.place(event)
        offset = place.contents.offset if place else -1
        if place:
            self._library.destroy_place(place)
        self._drop()
        return Event(KafkaError(code, words), offset, words.startswith(self._name)) if code else None

    def _drop(self) -> None:
        """Destroy the event that is held: a record of it comes again, once the partition is assigned again."""
        if event := int(self._state[self._kernel.HELD]):
            self._state[self._kernel.HELD] = self._state[self._kernel.MESSAGE] = 0
            self._library.destroy(event)


def take_queue(consumer: Consumer, topic: str, partition: int) -> PartitionQueue | None:
    """Take a partition's queue apart from a consumer's own; None where that can't be done safely."""
    library = None if proof.is_refuted else _library()
    client = None if library is None else _client_of(consumer, library)
    try:
        if library is not None and client is not None:
            return PartitionQueue(library, client, topic, partition)
    except OSError as error:
        log.debug("%s", error)
    log.debug("%s[%d]: its records are consumed as messages", topic, partition)
    return None
