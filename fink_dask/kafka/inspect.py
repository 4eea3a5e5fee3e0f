"""What a topic is and holds, asked of the broker without creating, joining or committing anything."""

from __future__ import annotations

import re
import threading
import time
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeVar

from fink_dask.errors import BrokerError, BrokerUnavailableError, MissingSchemaError, SchemaError, parameter
from fink_dask.kafka.admin import Admin, in_background
from fink_dask.kafka.confluent import (
    Debounce,
    KafkaError,
    Message,
    OffsetSpec,
    TopicCollection,
    TopicPartition,
    broker_error,
    in_words,
    is_of_groups,
    is_transient,
)
from fink_dask.kafka.connection import Arrived, Connection, open_glimpse
from fink_dask.kafka.offsets import Watermarks
from fink_dask.kafka.topics import no_such_topic, schema_topic
from fink_dask.kafka.window import EVERYTHING, ask_offsets, ask_window
from fink_dask.settings import KafkaSettings, has_sasl
from fink_dask.units import Window

#: Where a writer schema came from.
SchemaSource = Literal["file", "schema topic", "record key"]


@dataclass(frozen=True)
class TopicDescription:
    """A topic as the broker describes it."""

    topic: str
    #: Kafka's id, which changes when the topic is deleted and made again; `UNKNOWN_ID` where the broker can't say.
    topic_id: str
    #: What each partition holds.
    watermarks: Mapping[int, Watermarks]
    #: The same of ``<topic>_schema``; empty where there is none.
    schema_watermarks: Mapping[int, Watermarks] = field(default_factory=dict)

    @property
    def spans(self) -> dict[int, tuple[int, int]]:
        """The offsets ``[start, end)`` that are wanted, of each partition that holds any."""
        held = {partition: (marks.start, marks.end) for partition, marks in self.watermarks.items()}
        return {partition: (start, end) for partition, (start, end) in held.items() if start < end}


@dataclass(frozen=True)
class Sample:
    """A few records of a topic."""

    #: Mean bytes of a value in each partition; those that yielded nothing in time are absent.
    sizes: Mapping[int, float]
    #: The same of what Kafka sends for a record before compression: value, key, and what frames them.
    wire_sizes: Mapping[int, float]
    #: How long it took to get them, without the round trips that this takes on any line.
    seconds: float
    #: Bytes of all responses that came meanwhile.
    wire_bytes: int
    #: The values; of those that seem to be records alone, the first bytes.
    values: tuple[bytes, ...] = ()
    #: How many times as large as on the line they are; 0 where that is not known.
    expansion: float = 0.0

    @property
    def plain_bytes(self) -> int:
        """Mean bytes of a record on the line, where none is compressed; 0 where that is not known."""
        is_plain = 0 < self.expansion < _COMPRESSED
        return int(sum(self.wire_sizes.values()) / len(self.wire_sizes)) if is_plain and self.wire_sizes else 0


@dataclass(frozen=True)
class TopicSchema:
    """A writer schema and where it came from."""

    #: The schema as JSON, not yet checked.
    text: bytes
    #: Where it was found.
    source: SchemaSource


#: Offsets at the end of a schema topic that are searched for its last copy: after a transaction a marker comes last.
_TAIL = 10
#: Records whose sizes are looked at, in the middle of a partition, and whose keys are, at either end.
_SAMPLED_SIZES, _SAMPLED_KEYS = 5, 3
#: Bytes of records that are enough in a partition, however few records they are: of full packets, each is a batch.
_ENOUGH_BYTES = 2**18
#: What is so many times as large as it came was compressed.
_COMPRESSED = 1.2
#: The most partitions whose sizes are looked at: producers choose partitions by chance, and each look costs a batch.
_SAMPLED_PARTITIONS = 4
#: Seconds after which the sizes in one partition stand for those in all.
_LONG_S = 0.5
#: Round trips until a connection of TCP carries what the line does: it begins with 14 kB, and doubles that each time.
_SLOW_START_TRIPS = 6
#: Bytes of a record's frame: lengths, offset, time, and its share of the batch's header.
_FRAME_BYTES = 12
#: Bytes of different keys that are kept; a schema has some 50 kB.
_SAMPLED_BYTES = 32 * 2**20
#: What a value begins with that may have something around it, or be text; `fink_dask.avro.framing` knows what.
_FRAMED = re.compile(rb"\0|\xc3\x01|Obj\x01|\x1f\x8b\x08|\x28\xb5\x2f\xfd|\x03[\0\x05]|[\s!-~]{16}")
#: The partition has ended, or its head was removed meanwhile: either way there is nothing to read.
_OVER = {KafkaError._PARTITION_EOF, KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}

#: Seconds after which what was opened to look at a topic is closed, where there was nothing to look at.
_SPARE_S = 60.0
#: Seconds before a partition that has just lost its leader is asked again.
_PAUSE_S = 0.1

#: The partitions of each topic, or why it can't be used now; and what each is, or why that can't be said.
_Listed = dict[str, list[int] | BrokerError]
_Described = dict[str, TopicDescription | BrokerError]

Sampled = TypeVar("Sampled")
Answer = TypeVar("Answer")


class Glimpse:
    """Reads a few records here and there, through one consumer."""

    def __init__(self, connection: Connection) -> None:
        # What to read through.
        self._connection = connection
        self._settings = connection.settings
        self._consumer = connection.consumer
        self._errors = connection.errors

    def sizes(self, topic: str, spans: Mapping[int, tuple[int, int]]) -> Sample:
        """Look at the sizes of a few records in the middle of the span of a few partitions."""
        numbers = sorted(partition for partition, (start, end) in spans.items() if start < end)
        # Where a rate is set, others use the line as well.
        most = _SAMPLED_PARTITIONS if self._settings.limit_rate is None else 1
        step = max(1, -(-len(numbers) // most))
        middles = {number: (sum(spans[number]) // 2, spans[number][1]) for number in numbers[::step]}

        values: list[bytes] = []

        def size(message: Message) -> tuple[int, int]:
            value = message.value() or b""
            values.append(value if _FRAMED.match(value) else value[:1])
            return len(value), len(message.key() or b"")

        self._connection.learn(topic)
        began, before = time.monotonic(), self._connection.arrived
        found = self.sample(topic, middles, _SAMPLED_SIZES, size, _LONG_S)
        took = time.monotonic() - began
        came = sum(value + key for sizes in found.values() for value, key in sizes)

        def expansion() -> float:
            stated = self._connection.arrived
            wire, unpacked = stated.wire_bytes - before.wire_bytes, stated.unpacked_bytes - before.unpacked_bytes
            return unpacked / wire if wire and unpacked >= max(1, came) else 0.0

        # How fast it came, and whether it is compressed, is stated a little later. A response that comes while a
        # statement is made is in what was unpacked alone: so a statement of compressed records has to be the second.
        first: Arrived | None = None
        while took > _LONG_S or came >= _ENOUGH_BYTES:
            if expansion():
                first = first or self._connection.arrived
                if expansion() < _COMPRESSED or first is not self._connection.arrived:
                    break
            if time.monotonic() - began > took + 2 * _LONG_S:
                break
            self._consumer.poll(_PAUSE_S)
        # What takes a few round trips, as TCP begins slowly, says nothing of how much the line carries.
        seconds = took - _SLOW_START_TRIPS * self._connection.arrived.round_trip_s
        wire_bytes = self._connection.arrived.wire_bytes - before.wire_bytes
        held = {partition: sizes for partition, sizes in found.items() if sizes}
        return Sample(
            {number: sum(value for value, _ in sizes) / len(sizes) for number, sizes in held.items()},
            {number: sum(map(sum, sizes)) / len(sizes) + _FRAME_BYTES for number, sizes in held.items()},
            max(0.0, seconds),
            wire_bytes,
            tuple(filter(None, values)),
            expansion=expansion(),
        )

    def last_key(self, topic: str, partition: int, marks: Watermarks) -> list[bytes]:
        """Read the key of the last record that has one; after a transaction a marker comes last."""
        end = marks.last_stable_offset
        last = self.keys(topic, partition, max(marks.low, end - 1), end)
        return last or self.keys(topic, partition, max(marks.low, end - _TAIL), end, _TAIL)[-1:]

    def sample(
        self,
        topic: str,
        spans: Mapping[int, tuple[int, int]],
        count: int,
        take: Callable[[Message], Sampled],
        long_s: float | None = None,
    ) -> dict[int, list[Sampled]]:
        """Take something from the first records of each span, `count` or enough bytes, from all partitions at once.

        After `long_s` seconds, one partition is enough: a response holds the batches of a single one, where they are
        larger than what is asked for.
        """
        wanted = {partition for partition, (start, end) in spans.items() if start < end}
        taken: dict[int, list[Sampled]] = {partition: [] for partition in wanted}
        came = dict.fromkeys(wanted, 0)
        self._connection.learn(topic)
        self._consumer.assign([TopicPartition(topic, partition, spans[partition][0]) for partition in sorted(wanted)])
        began = time.monotonic()
        while wanted and (waited_s := time.monotonic() - began) < self._settings.request_timeout_s / 2:
            if long_s is not None and waited_s > long_s and len(wanted) < len(taken):
                break
            for message in self._consumer.consume(num_messages=100, timeout=0.05):
                if is_of_groups(message):
                    continue
                partition, error = message.partition(), message.error()
                if error is not None:
                    if not is_transient(error):
                        wanted.discard(partition)  # the partition's end, or the offset is gone
                elif message.offset() >= spans[partition][1]:
                    wanted.discard(partition)
                elif partition in wanted:
                    taken[partition].append(take(message))
                    came[partition] += len(message)
                    if len(taken[partition]) == count or came[partition] >= _ENOUGH_BYTES:
                        wanted.discard(partition)
        self._consumer.unassign()
        return taken

    def keys(self, topic: str, partition: int, start: int, end: int, count: int = 1) -> list[bytes]:
        """Read the keys of the first `count` records of ``[start, end)``, without those that are empty."""
        keys: list[bytes] = []
        for message in self._records(topic, partition, start, end):
            if message.key():
                keys.append(message.key())
            count -= 1
            if count == 0:
                break
        return keys

    def _records(self, topic: str, partition: int, start: int, end: int) -> Iterator[Message]:
        """Yield the records of ``[start, end)`` up to the partition's end."""
        if start >= end:
            return
        self._connection.learn(topic)
        self._consumer.assign([TopicPartition(topic, partition, start)])
        deadline = time.monotonic() + self._settings.request_timeout_s
        try:
            while time.monotonic() < deadline:
                message = self._consumer.poll(0.2)
                if message is None or is_of_groups(message):
                    continue
                error = message.error()
                if error is None and message.offset() < end:
                    yield message
                    if message.offset() == end - 1:
                        return
                elif error is None or error.code() in _OVER:
                    return
                elif not is_transient(error):
                    raise broker_error(error, topic, partition, start)
        finally:
            self._consumer.unassign()
        reason = "no record came" if self._errors.last is None else in_words(self._errors.last)
        raise BrokerUnavailableError(f"can't read the schema: {reason}", topic, partition, start)


class Inspector:
    """Asks a broker about topics."""

    def __init__(self, connection: Connection, spare: Sequence[Connection] = (), window: Window = EVERYTHING) -> None:
        # The times of the records that are wanted.
        self._window = window
        # What to ask through.
        self._connection = connection
        self._settings = connection.settings
        self._admin = connection.admin
        self._glimpse = Glimpse(connection)
        self._has_controller = True  # until `topics` knows
        # More, for what is looked at at the same time: the last copies of the schema, and sizes, where these are
        # wanted.
        self._spare = list(spare)
        #: What is looked at before anybody asks: the last copies of the schemas of a topic, and its sizes.
        self._last_keys: dict[str, Future[list[bytes]]] = {}
        self._sizes: dict[str, Future[Sample]] = {}
        #: The first answers, where they were asked for before anybody needed them.
        self._listed: Future[_Listed] | None = None
        self._described: Future[_Described] | None = None

    @property
    def _rights(self) -> str:
        """Say what may be wrong where users have rights: Kafka does not name what they may not read."""
        return ", or these credentials may not read it" if has_sasl(self._settings.security.protocol) else ""

    @property
    def admin(self) -> Admin:
        """What questions go through."""
        return self._admin

    @property
    def is_refused(self) -> bool:
        """Whether Kafka has refused who we are, which it is asked once more before that is said."""
        return self._admin.errors.fatal is not None

    def begin(self, function: Callable[[], Answer]) -> Future[Answer]:
        """Begin to ask in a thread of its own; the connection is not closed before that has ended."""
        return self._connection.begin(function)

    def ask_ahead(self, choose: Callable[[Iterable[str]], Sequence[str]]) -> Future[list[TopicDescription]]:
        """Begin to list all topics, and to describe some of them: who asks for that first gets these answers.

        Returns: what can be described of those that were chosen.
        """
        listed = self._listed = self.begin(self._list)

        def describe() -> _Described:
            found = listed.result()
            return self._describe(found, choose(found))

        described = self._described = self.begin(describe)
        return in_background(
            lambda: [each for each in described.result().values() if isinstance(each, TopicDescription)]
        )

    def mean_bytes(self, topic: str) -> float:
        """Say how large a record of a topic is, where that is looked at before anybody asks; 0 otherwise."""
        if (ahead := self._sizes.get(topic)) is None:
            return 0.0
        sizes = _result(ahead).wire_sizes
        return sum(sizes.values()) / len(sizes) if sizes else 0.0

    def describe(self, topic: str, partitions: Sequence[int] = ()) -> TopicDescription:
        """Describe a topic.

        `partitions`: those that it had when it was last described: then only these are looked at, in a single round
        trip.
        Raises BrokerError if there is no such topic, or the broker refuses or does not answer.
        """
        if partitions:
            found = self.describe_each({topic: [*partitions]}, [topic])[topic]
            if isinstance(found, TopicDescription):
                return found  # otherwise it is not what it was
        deadline = time.monotonic() + self._settings.request_timeout_s
        while True:
            found = self.describe_each(self.topics(), [topic])[topic]
            if isinstance(found, TopicDescription):
                return found
            if not found.transient or time.monotonic() >= deadline:
                raise found
            time.sleep(_PAUSE_S)

    def topics(self) -> _Listed:
        """List all topics with their partitions, or with an error where one has no leader just now."""
        if (ahead := self._listed) is not None:
            self._listed = None
            return _result(ahead)
        return self._list()

    def _list(self) -> _Listed:
        # All of them, because asking for one by name lets some brokers create it; and so a wrong name is answered with
        # what may be meant.
        timeout_s = self._settings.request_timeout_s
        metadata = self._admin.ask(lambda client: in_background(lambda: client.list_topics(timeout=timeout_s)))
        self._has_controller = metadata.controller_id in metadata.brokers
        found: _Listed = {}
        for name, topic in metadata.topics.items():
            if topic.error is not None or not topic.partitions:
                continue
            leaderless = min((number for number, each in topic.partitions.items() if each.leader < 0), default=None)
            if leaderless is None:
                found[name] = sorted(topic.partitions)
            else:  # asking for its offsets would keep all other topics waiting
                found[name] = BrokerUnavailableError("the partition has no leader now", name, leaderless)
        return found

    def describe_each(self, listed: Mapping[str, list[int] | BrokerError], topics: Sequence[str]) -> _Described:
        """Describe several topics, in no more requests than for one.

        Returns: what each is, or why it can't be described; an error that may pass is a `BrokerUnavailableError`.
        """
        if (ahead := self._described) is not None:
            self._described = None
            found = _result(ahead)
            if found.keys() >= set(topics):
                return found
        return self._describe(listed, topics)

    def _describe(self, listed: Mapping[str, list[int] | BrokerError], topics: Sequence[str]) -> _Described:
        found: _Described = {}
        partitions: dict[str, list[int]] = {}
        for topic in topics:
            each = listed.get(topic)
            if isinstance(each, list):
                partitions[topic] = each
            else:
                found[topic] = each or no_such_topic(topic, listed, bool(self._rights))
        if not partitions:
            return found
        schemas: dict[str, list[int]] = {}
        for topic in partitions:
            each = listed.get(schema_topic(topic))
            if isinstance(each, list):
                schemas[schema_topic(topic)] = each
        offsets = ask_watermarks(self._admin, partitions | schemas)
        # librdkafka's mock has no controller and no ids, and would let the question time out.
        named = ask_topic_ids(self._admin, list(partitions)) if self._has_controller else None
        marks, ids = offsets(), dict.fromkeys(partitions, UNKNOWN_ID) if named is None else named()
        if self._window != EVERYTHING:
            marks |= ask_window(self._admin, {topic: marks[topic] for topic in partitions}, self._window)
        for topic in partitions:
            watermarks, topic_id = marks[topic], ids[topic]
            if isinstance(watermarks, BrokerError):
                found[topic] = watermarks
            elif isinstance(topic_id, BrokerError):
                # It is listed: it is being created or deleted, and the next look tells which.
                found[topic] = BrokerUnavailableError(topic_id.message, topic)
            else:
                held = marks.get(schema_topic(topic), {})
                description = TopicDescription(
                    topic, topic_id, watermarks, held if not isinstance(held, BrokerError) else {}
                )
                self._look_ahead(description)
                found[topic] = description
        return found

    def _look_ahead(self, description: TopicDescription) -> None:
        """Begin to look at what a plan needs: far away, one after the other would take seconds."""
        topic = description.topic
        if not self._spare or not description.spans:
            return  # of an empty topic, what is found now would be wrong when it is planned
        last, *sizes = self._spare
        self._spare = []  # once, for the first topic: whoever follows has time
        copies = sorted(description.schema_watermarks.items())
        name = schema_topic(topic)
        glimpse = Glimpse(last)
        self._last_keys[topic] = last.begin(
            lambda: [key for number, marks in copies for key in glimpse.last_key(name, number, marks)]
        )
        for each in sizes:
            self._sizes[topic] = _then_close(each, each.begin(partial(Glimpse(each).sizes, topic, description.spans)))

    def forget(self) -> None:
        """Look at nothing before somebody asks: close what that would have been looked at through."""
        spare, self._spare = self._spare, []
        for each in spare:
            each.close()

    def _look_at_sizes(self, topic: str, spans: Mapping[int, tuple[int, int]]) -> Sample:
        with open_glimpse(self._settings) as connection:
            return Glimpse(connection).sizes(topic, spans)

    def watermarks(self, topic: str, partition: int) -> Watermarks:
        """Ask for the first offset and the last stable offset of a partition, now."""
        found = ask_watermarks(self._admin, {topic: [partition]})()[topic]
        if isinstance(found, BrokerError):
            raise found
        return found[partition]

    def schema(self, topic: str, description: TopicDescription) -> TopicSchema:
        """Read the writer schema from ``<topic>_schema``, or else from the keys of the topic's own records.

        Raises MissingSchemaError if neither holds one.
        Raises SchemaError if ``<topic>_schema`` holds schemas that differ.
        """
        name = schema_topic(topic)
        # The copies should be identical; the first and the last one of each partition tell whether they are. There are
        # about a thousand, so no more is read.
        keys: set[bytes] = set()
        copies = sorted(description.schema_watermarks.items())
        for partition, marks in copies:
            keys.update(self._glimpse.keys(name, partition, marks.low, marks.last_stable_offset))
        if (ahead := self._last_keys.pop(topic, None)) is not None:
            keys.update(each for each in _result(ahead))
        else:
            keys.update(*(self._glimpse.last_key(name, partition, marks) for partition, marks in copies))
        if len(keys) > 1:
            raise SchemaError(f"{name} holds schemas that differ; choose one with {parameter('schema', 'FILE')}", topic)
        if keys:
            return TopicSchema(keys.pop(), "schema topic")
        for key in self.sample_keys(topic, description.spans):
            if key.removeprefix(BOM_UTF8).lstrip()[:1] == b"{":
                return TopicSchema(key, "record key")
        raise MissingSchemaError(
            f"no schema: {name} is absent or empty{self._rights}, and the records' keys hold none; give one with "
            f"{parameter('schema', 'FILE')}",
            topic,
        )

    def sample(self, topic: str, spans: Mapping[int, tuple[int, int]]) -> Sample:
        """Look at the sizes of a few records in the middle of the span of a few partitions.

        Partitions that yield nothing in time (holes, a slow broker) are absent from the result.
        """
        if (ahead := self._sizes.pop(topic, None)) is not None:
            return _result(ahead)
        return self._look_at_sizes(topic, spans)

    def values(self, topic: str, spans: Mapping[int, tuple[int, int]]) -> tuple[bytes, ...]:
        """Look at a few records; their sizes, where these are asked for next, are of the same look."""
        if topic in self._sizes:
            return _result(self._sizes[topic]).values
        if (found := self._look_at_sizes(topic, spans)).values:
            self._sizes[topic] = Future()
            self._sizes[topic].set_result(found)
        return found.values

    def sample_keys(self, topic: str, spans: Mapping[int, tuple[int, int]]) -> list[bytes]:
        """Read the keys of the first and the last records of each span, each key once, the first ones first.

        Partitions that yield nothing in time (holes, a slow broker) are left out.
        """
        tails = {partition: (max(start, end - _SAMPLED_KEYS), end) for partition, (start, end) in spans.items()}
        kept: dict[bytes, bytes] = {}

        def take(message: Message) -> bytes:
            key: bytes = message.key() or b""
            if sum(map(len, kept)) + len(key) <= _SAMPLED_BYTES:
                kept.setdefault(key, key)
            return kept.get(key, b"")

        found = [self._glimpse.sample(topic, places, _SAMPLED_KEYS, take) for places in (spans, tails)]
        keys = (key for sample in found for partition in sorted(sample) for key in sample[partition])
        return list(dict.fromkeys(filter(None, keys)))


@contextmanager
def open_inspector(
    settings: KafkaSettings, topics: Sequence[str] = (), is_resumed: bool = False, window: Window = EVERYTHING
) -> Iterator[Inspector]:
    """Open an `Inspector`, and close its consumers at the end.

    `topics`: topics that are going to be planned, if there are such: what that takes is then asked for all at once.
    `is_resumed`: whether the first one was planned before, so that there may be nothing to plan, and no sizes are
    wanted.
    `window`: the times of the records that are wanted.
    """
    with ExitStack() as stack:
        connections = [stack.enter_context(open_glimpse(settings, is_stated=False))]
        for topic in topics[:1]:
            name = schema_topic(topic)
            reads = [name, name] if is_resumed else [name, name, topic]
            for read in reads[1:]:
                connections.append(stack.enter_context(open_glimpse(settings, is_stated=read == topic)))
            for connection, read in zip(connections, reads, strict=True):
                connection.learn_soon([read])
        inspector = Inspector(connections[0], connections[1:], window)
        # Whoever waits for a topic's first alert may do so for hours.
        timer = threading.Timer(_SPARE_S, inspector.forget)
        timer.daemon = True
        timer.start()
        stack.callback(timer.cancel)
        yield inspector


def _then_close(connection: Connection, future: Future[Answer]) -> Future[Answer]:
    """Close a connection once something has been done through it."""
    future.add_done_callback(lambda _: connection.close())
    return future


def _result(future: Future[Answer]) -> Answer:
    """Wait for what is looked at in the background, in a way that lets signals through."""
    while True:
        try:
            return future.result(timeout=_PAUSE_S)
        except TimeoutError:
            continue


def ask_watermarks(
    admin: Admin, partitions: Mapping[str, Sequence[int]]
) -> Callable[[], dict[str, dict[int, Watermarks] | BrokerError]]:
    """Ask for the first offset and the last stable offset of partitions, now: one request each to each broker.

    `partitions`: partitions of each topic, at least one.
    Returns: waits for the answer: what each partition of a topic holds, or why that can't be said of one of them. It
    raises a BrokerError where there is no answer.
    """
    places = [TopicPartition(topic, number) for topic, numbers in partitions.items() for number in numbers]
    earliest, latest = (ask_offsets(admin, places, spec) for spec in (OffsetSpec.earliest(), OffsetSpec.latest()))

    def answer() -> dict[str, dict[int, Watermarks] | BrokerError]:
        lows, stables = earliest(), latest()
        found: dict[str, dict[int, Watermarks] | BrokerError] = {topic: {} for topic in partitions}
        for place in places:
            low, stable, marks = lows[place], stables[place], found[place.topic]
            refusal = next((each for each in (low, stable) if isinstance(each, KafkaError)), None)
            if refusal is not None:
                found[place.topic] = broker_error(refusal, place.topic, place.partition)
            elif min(low.offset, stable.offset) < 0:  # librdkafka's -1001, where the connection broke meanwhile
                found[place.topic] = BrokerUnavailableError("Kafka has not said what it holds", *_where(place))
            elif isinstance(marks, dict):
                marks[place.partition] = Watermarks(low.offset, stable.offset)
        return found

    return answer


#: Stands for a topic's id where the broker can't tell it, as librdkafka's mock and Kafka before 2.8 can't.
UNKNOWN_ID = "unknown"

#: Seconds before a broker that does not know the topic is asked again.
_ID_PAUSE_S = 0.5
#: What older brokers answer: a UUID of zeros.
_NO_ID = "A" * 22


def is_other_topic(known: str, now: str) -> bool:
    """Tell whether two ids belong to two topics; where one is unknown, they are taken to be the same."""
    return UNKNOWN_ID not in {known, now} and known != now


def _where(place: TopicPartition) -> tuple[str, int]:
    return place.topic, place.partition


def ask_topic_id(admin: Admin, topic: str) -> str:
    """Ask for a topic's id.

    Returns: the id, or `UNKNOWN_ID` where the broker can't say.
    Raises BrokerError if there is no such topic, or the broker refuses or does not answer.
    """
    suspicion = Debounce()
    while True:
        found = ask_topic_ids(admin, [topic])()[topic]
        if isinstance(found, str):
            return found
        if found.transient or suspicion.confirms("no topic"):
            raise found
        time.sleep(_ID_PAUSE_S)


def ask_topic_ids(admin: Admin, topics: Sequence[str]) -> Callable[[], dict[str, str | BrokerError]]:
    """Ask for the ids of topics, in one request.

    Returns: waits for the answer: the id of each topic, `UNKNOWN_ID` where the broker can't say, or an error where
    there is no such topic. It raises a BrokerError where the broker refuses or does not answer.
    """
    timeout_s = admin.settings.request_timeout_s
    asked: Callable[[], dict[str, Any]] = admin.begin(
        lambda client: client.describe_topics(TopicCollection(list(topics)), request_timeout=timeout_s)
    )

    def answer() -> dict[str, str | BrokerError]:
        found: dict[str, str | BrokerError] = {}
        for topic, known in asked().items():
            if not isinstance(known, KafkaError):
                topic_id = str(known.topic_id or _NO_ID)
                found[topic] = UNKNOWN_ID if topic_id.rstrip("=") == _NO_ID else topic_id
            elif known.code() in {KafkaError._UNSUPPORTED_FEATURE, KafkaError.UNSUPPORTED_VERSION}:
                return dict.fromkeys(topics, UNKNOWN_ID)
            elif known.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                found[topic] = broker_error(known, topic)
            else:
                raise broker_error(known, topic)
        return found

    return answer


def is_missing(admin: Admin, topic: str, partition: int) -> bool:
    """Tell whether a broker says that there is no such partition; silence does not count as saying so.

    librdkafka itself says so after a while where it can reach no broker.
    """
    timeout_s = admin.settings.request_timeout_s
    # All topics, because asking for one by name lets some brokers create it.
    topics = admin.ask(lambda client: in_background(lambda: client.list_topics(timeout=timeout_s)), topic).topics
    return topic not in topics or partition not in topics[topic].partitions
