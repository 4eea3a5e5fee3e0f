"""The only importer of confluent_kafka: how a client is made, asked and closed, and what its errors mean."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from fink_dask.config import KafkaSettings
from fink_dask.errors import BrokerError, BrokerUnavailableError

__all__ = [
    "AdminClient",
    "Consumer",
    "ConsumerGroupTopicPartitions",
    "Errors",
    "IsolationLevel",
    "KafkaError",
    "KafkaException",
    "Message",
    "OffsetSpec",
    "Producer",
    "TopicCollection",
    "TopicPartition",
    "ask",
    "broker_error",
    "open_consumer",
]

log = logging.getLogger(__name__)
_librdkafka_log = logging.getLogger("fink_dask.kafka.librdkafka")

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
    config = {
        "bootstrap.servers": settings.bootstrap_servers,
        "client.id": "fink-dask",
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
        "reconnect.backoff.max.ms": 2000,
        "error_cb": errors,
        "logger": _librdkafka_log,
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
    while True:
        try:
            # Short calls, because Python sees no signal while librdkafka waits.
            return question(max(0.1, min(1.0, deadline - time.monotonic())))
        except KafkaException as exception:
            error: KafkaError = exception.args[0]
            consumer.poll(0)  # serves the error callback
            if errors.fatal is not None:
                raise broker_error(errors.fatal, topic) from exception
            if not is_passing(error):
                raise broker_error(error, topic) from exception
            if time.monotonic() >= deadline:
                reason = errors.last.str() if errors.last is not None else error.str()
                raise BrokerUnavailableError(
                    f"no answer from Kafka at {settings.bootstrap_servers} in {settings.request_timeout_s:g} s: "
                    f"{one_line(reason)}",
                    topic,
                ) from exception


def is_passing(error: KafkaError) -> bool:
    """Tell whether the same request may succeed a little later."""
    return bool(error.retriable()) or error.code() in {
        KafkaError._TRANSPORT,
        KafkaError._TIMED_OUT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
        KafkaError._WAIT_COORD,
        KafkaError._UNKNOWN_BROKER,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.REQUEST_TIMED_OUT,
    }


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
