"""A topic's id: the only thing that tells a topic from another one that was made later under its name."""

from __future__ import annotations

from fink_dask.errors import BrokerError
from fink_dask.kafka.client import KafkaError, KafkaException, TopicCollection
from fink_dask.kafka.connection import Admin

#: Stands for a topic's id where the broker can't say it, as librdkafka's mock and brokers before 2.8.
UNKNOWN_ID = "unknown"

#: What older brokers answer: a UUID of zeros.
_NO_ID = "A" * 22


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
    try:
        timeout_s, topics = admin.settings.request_timeout_s, TopicCollection([topic])
        found = admin.ask(lambda client: client.describe_topics(topics, request_timeout=timeout_s)[topic], topic)
    except BrokerError as error:
        cause = error.__cause__
        if isinstance(cause, KafkaException) and cause.args[0].code() in {
            KafkaError._UNSUPPORTED_FEATURE,
            KafkaError.UNSUPPORTED_VERSION,
        }:
            return UNKNOWN_ID
        raise
    known = str(found.topic_id or _NO_ID)
    return UNKNOWN_ID if known.rstrip("=") == _NO_ID else known
