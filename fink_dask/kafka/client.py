"""The only importer of confluent_kafka: how a client is made, asked and closed, and what its errors mean."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from fink_dask.config import KafkaSettings
from fink_dask.errors import BrokerError, BrokerUnavailableError

__all__ = [
    "AdminClient",
    "Consumer",
    "ConsumerGroupTopicPartitions",
    "Errors",
    "KafkaError",
    "KafkaException",
    "Message",
    "Producer",
    "TopicCollection",
    "TopicPartition",
    "ask",
    "ask_admin",
    "broker_error",
    "is_passing",
    "one_line",
    "open_consumer",
]

log = logging.getLogger(__name__)
_librdkafka_log = logging.getLogger("fink_dask.kafka.librdkafka")
# librdkafka calls every reconnection that it survives an error; nobody reads them who has not set a level here.
if _librdkafka_log.level == logging.NOTSET:
    _librdkafka_log.setLevel(logging.CRITICAL + 1)

Answer = TypeVar("Answer")

#: No retry helps against these: the user has to change something.
_FATAL = {
    KafkaError._AUTHENTICATION: "the broker refused the credentials",
    KafkaError.SASL_AUTHENTICATION_FAILED: "the broker refused the credentials",
    KafkaError._SSL: "TLS with the broker failed",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "these credentials may not read it",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "these credentials may not use the consumer group",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "these credentials may not do this",
}

#: The same request may succeed a little later.
_PASSING = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._TRANSPORT,
        KafkaError._UNKNOWN_BROKER,
        KafkaError._WAIT_CACHE,
        KafkaError._WAIT_COORD,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.UNKNOWN_LEADER_EPOCH,
    }
)


class Errors:
    """Remember what librdkafka said last, for the question that then times out."""

    def __init__(self) -> None:
        self.last: KafkaError | None = None
        self.fatal: KafkaError | None = None

    def __call__(self, error: KafkaError) -> None:
        """Take one error event."""
        log.info("librdkafka: %s", error.str())
        # "All brokers down" follows the reason that brought the last one down; the reason is the better word.
        if self.last is None or error.code() != KafkaError._ALL_BROKERS_DOWN:
            self.last = error
        if error.code() in _FATAL:
            self.fatal = error


@contextmanager
def open_consumer(settings: KafkaSettings, **options: Any) -> Iterator[tuple[Consumer, Errors]]:
    """Make a consumer that commits nothing, creates no topic and joins no group; close it at the end.

    Parameters
    ----------
    settings : KafkaSettings
        How to reach Kafka.
    **options
        More librdkafka properties, with underscores for dots.

    Yields
    ------
    tuple of Consumer and Errors
        The consumer, and what librdkafka says of its connections.
    """
    errors = Errors()
    config = _client_config(settings, errors) | {
        # librdkafka wants a name even of those who assign by hand; no group of this name is joined.
        "group.id": "fink-dask",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "enable.partition.eof": True,
        "allow.auto.create.topics": False,
        "isolation.level": "read_committed",
        "check.crcs": True,
        # The default of 500 ms is what a consumer waits at the end of one partition before it sees the next.
        "fetch.wait.max.ms": 10,
        "queued.max.messages.kbytes": 32 * 1024,
        "fetch.queue.backoff.ms": 20,
        **{name.replace("_", "."): value for name, value in options.items()},
    }
    try:
        consumer = Consumer(config)
    except KafkaException as error:
        raise broker_error(error.args[0]) from error
    try:
        yield consumer, errors
    finally:
        consumer.close()


def ask(
    question: Callable[[float], Answer], consumer: Consumer, errors: Errors, settings: KafkaSettings, topic: str | None
) -> Answer:
    """Ask a broker something until it answers, a refusal is final, or the request's time is over.

    Parameters
    ----------
    question : callable
        Takes a time-out in seconds and answers or raises KafkaException.
    consumer, errors
        The client that asks and what it says of its connections.
    settings : KafkaSettings
        Holds the time.
    topic : str, optional
        What the question is about, for the error.

    Raises
    ------
    BrokerError
        If the answer is no.
    BrokerUnavailableError
        If there is no answer in time.
    """
    deadline = time.monotonic() + settings.request_timeout_s
    patience = 1.0
    while True:
        try:
            # Python sees no signal while librdkafka waits, so it asks in short calls; they grow for a slow broker.
            return question(max(0.1, min(patience, deadline - time.monotonic())))
        except KafkaException as exception:
            consumer.poll(0)  # serves the error callback
            error = errors.fatal or exception.args[0]
            if not is_passing(error):
                raise broker_error(error, topic) from exception
            if time.monotonic() >= deadline:
                raise _no_answer(settings, errors.last or error, topic) from exception
            patience *= 2


def ask_admin(
    question: Callable[[AdminClient], Future[Answer]], settings: KafkaSettings, topic: str | None = None
) -> Answer:
    """Ask what only an admin client may, and wait for the answer where a signal is seen at once.

    Parameters
    ----------
    question : callable
        Takes the client and returns a future that is bounded by `request_timeout`.
    settings : KafkaSettings
        How to reach Kafka.
    topic : str, optional
        What the question is about, for the error.

    Raises
    ------
    BrokerError
        If the answer is no.
    BrokerUnavailableError
        If there is no answer in time.
    """
    errors = Errors()
    admin = AdminClient(_client_config(settings, errors))  # in a variable: a collected client answers nothing
    try:
        return question(admin).result()
    except KafkaException as exception:
        admin.poll(0)
        error = errors.fatal or exception.args[0]
        if is_passing(error):
            raise _no_answer(settings, errors.last or error, topic) from exception
        raise broker_error(error, topic) from exception


def is_passing(error: KafkaError) -> bool:
    """Tell whether the same request may succeed a little later."""
    return bool(error.retriable()) or error.code() in _PASSING


def broker_error(
    error: KafkaError, topic: str | None = None, partition: int | None = None, offset: int | None = None
) -> BrokerError:
    """Say a KafkaError in one line; one that may pass is a `BrokerUnavailableError`."""
    kind = BrokerUnavailableError if is_passing(error) else BrokerError
    meaning = _FATAL.get(error.code())
    detail = one_line(error.str())
    return kind(f"{meaning} ({detail})" if meaning else detail, topic, partition, offset)


def one_line(text: str) -> str:
    """Fold white space and bound the length of a text from outside."""
    return " ".join(text.split())[:300]


def _client_config(settings: KafkaSettings, errors: Errors) -> dict[str, Any]:
    """Return what every client is made with."""
    return {
        "bootstrap.servers": settings.bootstrap_servers,
        "client.id": "fink-dask",
        "reconnect.backoff.max.ms": 2000,
        # A connection that is silent for so long is made anew: a cut network tells neither side.
        "socket.timeout.ms": 20_000,
        "socket.keepalive.enable": True,
        "error_cb": errors,
        "logger": _librdkafka_log,
    }


def _no_answer(settings: KafkaSettings, reason: KafkaError, topic: str | None) -> BrokerUnavailableError:
    where = f"{settings.bootstrap_servers} in {settings.request_timeout_s:g} s"
    return BrokerUnavailableError(f"no answer from Kafka at {where}: {one_line(reason.str())}", topic)
