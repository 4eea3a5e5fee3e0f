"""What a broker is asked through: a consumer, and an admin client where one is needed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from fink_dask.config import KafkaSettings
from fink_dask.errors import BrokerUnavailableError
from fink_dask.kafka.client import (
    AdminClient,
    Consumer,
    Errors,
    KafkaError,
    KafkaException,
    broker_error,
    client_config,
    is_passing,
    one_line,
)

Answer = TypeVar("Answer")
Key = TypeVar("Key")

#: Seconds for which librdkafka is trusted to know where a topic's partitions are; it forgets after 15 minutes.
_KNOWN_S = 300.0
#: Seconds for a broker to list its topics, before it counts as silent.
_LIST_S = 2.0
#: What librdkafka says where a question got no answer.
_SILENT = {KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN}
#: Bounds of what one fetch asks for, in bytes; a record that is larger still comes.
_MIN_FETCHED, _MAX_FETCHED = 2**20, 8 * 2**20


class Admin:
    """An admin client, for questions that a consumer can't ask.

    Parameters
    ----------
    settings : KafkaSettings
        How to reach Kafka.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings
        self._errors = Errors()
        self._client = AdminClient(client_config(settings, self._errors))

    def ask(self, question: Callable[[AdminClient], Future[Answer]], topic: str | None = None) -> Answer:
        """Ask, and wait for the answer in a way that lets signals through at once.

        Parameters
        ----------
        question : callable
            Takes the client and returns a future that is bounded by `request_timeout`.
        topic : str, optional
            What the question is about, for the error.

        Raises
        ------
        BrokerError
            If the answer is no.
        BrokerUnavailableError
            If there is no answer in time.
        """
        self._errors.forget()
        try:
            return question(self._client).result()
        except KafkaException as exception:
            self._client.poll(0)
            error = self._errors.fatal or exception.args[0]
            if is_passing(error):
                raise _no_answer(self.settings, self._errors.last or error, topic) from exception
            raise broker_error(error, topic) from exception

    def ask_each(self, question: Callable[[AdminClient], Mapping[Key, Future[Answer]]]) -> dict[Key, Answer | None]:
        """Ask about many things at once, and wait for all answers.

        Parameters
        ----------
        question : callable
            Takes the client and returns a future for each, which are bounded by `request_timeout`.

        Returns
        -------
        dict
            The answers; None where the broker can't or won't say.

        Raises
        ------
        BrokerUnavailableError
            If there is no answer in time.
        """
        self._errors.forget()
        found: dict[Key, Answer | None] = {}
        for key, future in question(self._client).items():
            try:
                found[key] = future.result()
            except KafkaException as exception:
                error = exception.args[0]
                if error.code() in _SILENT:
                    self._client.poll(0)
                    raise _no_answer(self.settings, self._errors.last or error, None) from exception
                found[key] = None
        return found


class Connection:
    """A consumer that commits nothing, creates no topic and joins no group; for one thread at a time.

    Parameters
    ----------
    settings : KafkaSettings
        How to reach Kafka.
    **options
        More librdkafka properties, with underscores for dots.

    Attributes
    ----------
    consumer : confluent_kafka.Consumer
        The consumer.
    errors : Errors
        What librdkafka says of its connections.

    Raises
    ------
    BrokerError
        If librdkafka refuses a property.
    """

    def __init__(self, settings: KafkaSettings, **options: Any) -> None:
        self.settings = settings
        self.errors = Errors()
        self._admin: Admin | None = None
        self._learnt: dict[str, float] = {}
        config = client_config(settings, self.errors) | {
            # librdkafka wants a name even where partitions are assigned by hand; no group of this name is joined.
            "group.id": "fink-dask",
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
            # There is one fetch at a time: over a long distance, a small one is mostly waiting.
            "fetch.message.max.bytes": min(_MAX_FETCHED, max(_MIN_FETCHED, settings.queue_bytes // 2)),
            "fetch.queue.backoff.ms": 20,
            **{name.replace("_", "."): value for name, value in options.items()},
        }
        try:
            self.consumer = Consumer(config)
        except KafkaException as error:
            raise broker_error(error.args[0]) from error

    @property
    def admin(self) -> Admin:
        """The admin client, made when it is first needed."""
        if self._admin is None:
            self._admin = Admin(self.settings)
        return self._admin

    def ask(self, question: Callable[[float], Answer], topic: str | None) -> Answer:
        """Ask a broker until it answers, refuses for good, or the time for the request is over.

        Parameters
        ----------
        question : callable
            Takes a time-out in seconds and answers or raises KafkaException.
        topic : str, optional
            What the question is about, for the error.

        Raises
        ------
        BrokerError
            If the answer is no.
        BrokerUnavailableError
            If there is no answer in time.
        """
        deadline = time.monotonic() + self.settings.request_timeout_s
        patience = 1.0
        while True:
            try:
                # Python sees no signal while librdkafka waits, so it asks in short calls; they grow for a slow broker.
                answer = question(max(0.1, min(patience, deadline - time.monotonic())))
            except KafkaException as exception:
                self.consumer.poll(0)  # serves the error callback
                error = self.errors.fatal or exception.args[0]
                if not is_passing(error):
                    raise broker_error(error, topic) from exception
                if time.monotonic() >= deadline:
                    raise _no_answer(self.settings, self.errors.last or error, topic) from exception
                patience *= 2
            else:
                # What was said until now, served or not yet, must not be the reason for a silence hours later.
                self.consumer.poll(0)
                self.errors.forget()
                return answer

    def learn(self, topic: str) -> None:
        """Make librdkafka find out where the partitions of a topic are, before one of them is assigned.

        It finds out by itself for the first topic; for any other one it waits up to a second until it asks.

        Raises
        ------
        BrokerUnavailableError
            If there is no answer in time.
        """
        now = time.monotonic()
        if topic in self._learnt and now - self._learnt[topic] < _KNOWN_S:
            return
        if self._learnt:
            # All topics, because asking for one by name lets some brokers create it.
            self.ask(lambda timeout: self.consumer.list_topics(timeout=timeout), topic)
        self._learnt[topic] = now

    def lacks(self, topic: str, partition: int) -> bool:
        """Tell whether a broker says that there is no such partition; silence does not count as saying so.

        librdkafka itself says so after a while where it can reach no broker.
        """
        try:
            # All topics, as above.
            topics = self.consumer.list_topics(timeout=_LIST_S).topics
        except KafkaException:
            return False
        return topic not in topics or partition not in topics[topic].partitions

    def close(self) -> None:
        """Close the consumer."""
        self.consumer.close()


@contextmanager
def open_connection(settings: KafkaSettings, **options: Any) -> Iterator[Connection]:
    """Make a `Connection`, and close it at the end."""
    connection = Connection(settings, **options)
    try:
        yield connection
    finally:
        connection.close()


def _no_answer(settings: KafkaSettings, reason: KafkaError, topic: str | None) -> BrokerUnavailableError:
    where = f"{settings.bootstrap_servers} in {settings.request_timeout_s:g} s"
    return BrokerUnavailableError(f"no answer from Kafka at {where}: {one_line(reason.str())}", topic)
