"""The offsets of a consumer group, for the user's other tools and from them; the ledger never reads them."""

from __future__ import annotations

import time
from collections.abc import Mapping

from fink_dask.config import KafkaSettings
from fink_dask.errors import BrokerError, BrokerUnavailableError, SettingsError
from fink_dask.kafka.client import (
    ConsumerGroupTopicPartitions,
    KafkaError,
    TopicPartition,
    broker_error,
)
from fink_dask.kafka.connection import Admin

#: How Kafka says that somebody else is at work in the group.
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
        If the group has no name.
    """
    if not group_id:
        raise SettingsError("the consumer group has no name")
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


def read_group_offsets(admin: Admin, group_id: str) -> dict[tuple[str, int], int]:
    """Read the next offset to read of each topic and partition that a consumer group has committed.

    Raises
    ------
    BrokerError
        If Kafka refuses or does not answer.
    """
    timeout_s, request = admin.settings.request_timeout_s, [ConsumerGroupTopicPartitions(group_id)]
    answer = admin.ask(lambda client: client.list_consumer_group_offsets(request, request_timeout=timeout_s)[group_id])
    return {(each.topic, each.partition): each.offset for each in answer.topic_partitions if each.offset >= 0}


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
