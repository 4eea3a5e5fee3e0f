"""A topic's id: the only thing that tells a topic from another one that was made later under its name."""

from __future__ import annotations

import time

from fink_dask.errors import BrokerError
from fink_dask.kafka.client import KafkaError, KafkaException, TopicCollection
from fink_dask.kafka.connection import Admin
from fink_dask.kafka.suspicion import Suspicion

#: Stands for a topic's id where the broker can't say it, as librdkafka's mock and brokers before 2.8.
UNKNOWN_ID = "unknown"

#: Seconds before a broker that does not know the topic is asked again.
_PAUSE_S = 0.5
#: What older brokers answer: a UUID of zeros.
_NO_ID = "A" * 22


def is_other_topic(known: str, now: str) -> bool:
    """Tell whether two ids are of two topics; where one is not known, nobody can tell, and they are taken for one."""
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
    timeout_s, topics = admin.settings.request_timeout_s, TopicCollection([topic])
    suspicion = Suspicion()
    while True:
        try:
            found = admin.ask(lambda client: client.describe_topics(topics, request_timeout=timeout_s)[topic], topic)
            break
        except BrokerError as error:
            cause = error.__cause__
            code = cause.args[0].code() if isinstance(cause, KafkaException) else None
            if code in {KafkaError._UNSUPPORTED_FEATURE, KafkaError.UNSUPPORTED_VERSION}:
                return UNKNOWN_ID
            if code != KafkaError.UNKNOWN_TOPIC_OR_PART or suspicion.confirms("no topic"):
                raise
            time.sleep(_PAUSE_S)
    known = str(found.topic_id or _NO_ID)
    return UNKNOWN_ID if known.rstrip("=") == _NO_ID else known
