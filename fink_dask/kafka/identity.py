"""A topic's id: the only thing that tells a topic from a later one of the same name."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from fink_dask.errors import BrokerError
from fink_dask.kafka.client import AdminClient, KafkaError, KafkaException, TopicCollection
from fink_dask.kafka.connection import Admin
from fink_dask.kafka.suspicion import Suspicion

#: Stands for a topic's id where the broker can't tell it, as librdkafka's mock and Kafka before 2.8 can't.
UNKNOWN_ID = "unknown"

#: Seconds before a broker that does not know the topic is asked again.
_PAUSE_S = 0.5
#: What older brokers answer: a UUID of zeros.
_NO_ID = "A" * 22


def is_other_topic(known: str, now: str) -> bool:
    """Tell whether two ids belong to two topics; where one is unknown, they are taken to be the same."""
    return UNKNOWN_ID not in {known, now} and known != now


def ask_topic_id(admin: Admin, topic: str) -> str:
    """Ask for a topic's id.

    Returns
    -------
    str
        The id, or `UNKNOWN_ID` where the broker can't say.

    Raises
    ------
    BrokerError
        If there is no such topic, or the broker refuses or does not answer.
    """
    suspicion = Suspicion()
    while True:
        found = ask_topic_ids(admin, [topic])[topic]
        if isinstance(found, str):
            return found
        if found.transient or suspicion.confirms("no topic"):
            raise found
        time.sleep(_PAUSE_S)


def ask_topic_ids(admin: Admin, topics: Sequence[str]) -> dict[str, str | BrokerError]:
    """Ask for the ids of topics, in one request.

    Returns
    -------
    dict of str to str or BrokerError
        The id, `UNKNOWN_ID` where the broker can't say, or an error where there is no such topic.

    Raises
    ------
    BrokerError
        If the broker refuses or does not answer.
    """
    timeout_s, asked = admin.settings.request_timeout_s, TopicCollection(list(topics))
    answers: dict[str, Any] = {}

    def question(client: AdminClient, topic: str) -> Any:
        if not answers:
            answers.update(client.describe_topics(asked, request_timeout=timeout_s))
        return answers[topic]

    found: dict[str, str | BrokerError] = {}
    for topic in topics:
        try:
            known = str(admin.ask(partial(question, topic=topic), topic).topic_id or _NO_ID)
            found[topic] = UNKNOWN_ID if known.rstrip("=") == _NO_ID else known
        except BrokerError as error:
            cause = error.__cause__
            code = cause.args[0].code() if isinstance(cause, KafkaException) else None
            if code in {KafkaError._UNSUPPORTED_FEATURE, KafkaError.UNSUPPORTED_VERSION}:
                return dict.fromkeys(topics, UNKNOWN_ID)
            if code != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
            found[topic] = error
    return found
