"""Commit offsets to a consumer group, for the user's other tools; the ledger never reads them back."""

from __future__ import annotations

from collections.abc import Mapping

from fink_dask.config import KafkaSettings
from fink_dask.errors import BrokerError
from fink_dask.kafka.client import KafkaException, TopicPartition, ask, broker_error, open_consumer


def commit_group_offsets(settings: KafkaSettings, topic: str, group_id: str, offsets: Mapping[int, int]) -> None:
    """Commit the next offset to read of each partition.

    Parameters
    ----------
    settings : KafkaSettings
        How to reach Kafka.
    topic : str
        The topic.
    group_id : str
        The consumer group; its members, if it has any, make Kafka refuse.
    offsets : mapping of int to int
        The next offset to read of each partition.

    Raises
    ------
    BrokerError
        If Kafka refuses or does not answer.
    """
    positions = [TopicPartition(topic, partition, offset) for partition, offset in sorted(offsets.items())]
    with open_consumer(settings, group_id=group_id) as (consumer, errors):
        # The coordinator is looked up in the background; asked too early, a commit fails at once.
        ask(
            lambda timeout: consumer.committed(positions, timeout=timeout),
            consumer,
            errors,
            settings,
            topic,
        )
        try:
            answers = consumer.commit(offsets=positions, asynchronous=False)
        except KafkaException as exception:
            raise broker_error(exception.args[0], topic) from exception
    refused = [answer for answer in answers if answer.error is not None]
    if refused:
        raise BrokerError(refused[0].error.str(), topic, refused[0].partition)
