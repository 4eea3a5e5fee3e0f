"""The offsets of a consumer group, for the user's other tools and from them; the ledger never reads them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from fink_dask.config import KafkaSettings, check_sendable
from fink_dask.errors import BrokerError, BrokerUnavailableError, SettingsError
from fink_dask.kafka.client import (
    ConsumerGroupTopicPartitions,
    KafkaError,
    TopicPartition,
    broker_error,
)
from fink_dask.kafka.connection import Admin, open_connection

#: How Kafka says that the group has members at work.
_IN_USE = {KafkaError.UNKNOWN_MEMBER_ID, KafkaError.NON_EMPTY_GROUP, KafkaError.ILLEGAL_GENERATION}

#: Seconds before a refusal that may pass is tried again.
_PAUSE_S = 0.2


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
    SettingsError
        If the group has no name, or one that can't be sent.
    """
    if not group_id:
        raise SettingsError("the consumer group has no name")
    check_sendable("--group-id", group_id)
    if not offsets:
        return
    admin, deadline = Admin(settings), time.monotonic() + settings.request_timeout_s
    while True:
        try:
            _commit(admin, topic, group_id, offsets)
        except BrokerUnavailableError:
            # The first commit to a group may find its coordinator still being elected.
            if time.monotonic() + _PAUSE_S > deadline:
                raise
            time.sleep(_PAUSE_S)
        else:
            return


def read_group_offsets(
    settings: KafkaSettings, group_id: str, partitions: Mapping[str, Sequence[int]]
) -> dict[tuple[str, int], int]:
    """Read the offsets that a consumer group has committed: the next one to read of each topic and partition.

    Parameters
    ----------
    settings : KafkaSettings
        How to reach Kafka.
    group_id : str
        The consumer group; it is not joined.
    partitions : mapping of str to sequence of int
        Partitions of each topic.

    Raises
    ------
    BrokerError
        If Kafka refuses or does not answer.
    SettingsError
        If the name of the group can't be sent.
    """
    check_sendable("--group-id", group_id)
    wanted = [TopicPartition(topic, number) for topic, numbers in partitions.items() for number in numbers]
    if not wanted:
        return {}
    # Not through an admin client: its question ends the process where a group has no coordinator yet, as on a cluster
    # that has never seen one. https://github.com/confluentinc/confluent-kafka-javascript/issues/374
    with open_connection(settings, group_id=group_id) as connection:
        found = connection.ask(lambda timeout: connection.consumer.committed(wanted, timeout=timeout))
    return {(each.topic, each.partition): each.offset for each in found if each.offset >= 0}


def _commit(admin: Admin, topic: str, group_id: str, offsets: Mapping[int, int]) -> None:
    positions = [TopicPartition(topic, partition, offset) for partition, offset in sorted(offsets.items())]
    timeout_s, request = admin.settings.request_timeout_s, [ConsumerGroupTopicPartitions(group_id, positions)]
    answer = admin.ask(
        lambda client: client.alter_consumer_group_offsets(request, request_timeout=timeout_s)[group_id], topic
    )
    for position in answer.topic_partitions:
        if position.error is not None:
            if position.error.code() in _IN_USE:
                raise BrokerError(f"the consumer group {group_id} is in use; stop its members first", topic)
            raise broker_error(position.error, topic, position.partition)
