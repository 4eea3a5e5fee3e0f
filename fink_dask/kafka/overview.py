"""What topics there are on a broker, how much they hold, and for how much longer; and the offsets of a consumer group.

A few requests tell it of all topics. The offsets of a group are for the user's other tools, and from them; the ledger
never reads them.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from fink_dask.errors import BrokerError, BrokerUnavailableError, SettingsError, parameter, spell
from fink_dask.kafka.admin import SETTLES_S, Admin
from fink_dask.kafka.confluent import (
    AdminClient,
    ConfigResource,
    ConsumerGroupTopicPartitions,
    KafkaError,
    OffsetSpec,
    TopicPartition,
    broker_error,
)
from fink_dask.kafka.connection import open_connection, open_glimpse
from fink_dask.kafka.inspect import Inspector, ask_watermarks
from fink_dask.kafka.offsets import Watermarks
from fink_dask.kafka.topics import FINK_PATTERNS, choose_topics, no_such_topic, no_such_topics
from fink_dask.settings import KafkaSettings, check_sendable

#: How Kafka says that the group has members at work.
_IN_USE = {KafkaError.UNKNOWN_MEMBER_ID, KafkaError.NON_EMPTY_GROUP, KafkaError.ILLEGAL_GENERATION}

#: Seconds before a refusal that may pass is tried again.
_PAUSE_S = 0.2

#: Stands for unlimited retention, as in Kafka's configuration.
FOREVER = -1
#: A retention of more than a thousand years counts as unlimited.
_MAX_MS = 1000 * 365 * 86_400_000


def commit_group_offsets(settings: KafkaSettings, topic: str, group_id: str, offsets: Mapping[int, int]) -> None:
    """Commit the next offset to read of each partition.

    `group_id`: the consumer group; its members, if it has any, make Kafka refuse.
    `offsets`: the next offset to read of each partition.
    Raises SettingsError if the group has no name, or one that can't be sent.
    """
    if not group_id:
        raise SettingsError("the consumer group has no name")
    check_sendable(parameter("group_id"), group_id)
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

    `group_id`: the consumer group; it is not joined.
    Raises SettingsError if the name of the group can't be sent.
    """
    check_sendable(parameter("group_id"), group_id)
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


@dataclass(frozen=True)
class TopicOverview:
    """What a topic holds."""

    #: Its name, as the broker has it.
    topic: str
    #: How many it has.
    partitions: int = 0
    #: Last stable minus first offset, summed over all partitions: an alert each, but for those that Kafka uses itself.
    offsets: int = 0
    #: oldest_ms, newest_ms: kafka's timestamps of the oldest record that is left and of the newest one, in milliseconds
    #: since 1970.
    oldest_ms: int | None = None
    newest_ms: int | None = None
    #: How long Kafka keeps a record, in milliseconds, or `FOREVER`; None where the broker does not say.
    retention_ms: int | None = None
    #: Offsets that the consumer group has not read; None where it has read nothing of this topic.
    lag: int | None = None
    #: Why none of this is known.
    error: str | None = None
    #: The newest one of each partition that has any.
    newest_each_ms: tuple[int, ...] = ()

    @property
    def removal_ms(self) -> int | None:
        """When Kafka may begin to remove records, in milliseconds since 1970; it removes whole segments."""
        if self.oldest_ms is None or self.retention_ms in {None, FOREVER}:
            return None
        return self.oldest_ms + (self.retention_ms or 0)


@dataclass(frozen=True)
class Overview:
    """The topics that are meant."""

    #: Each of them, by name.
    topics: tuple[TopicOverview, ...]
    #: How many other topics there are.
    others: int
    #: Patterns that match none.
    unmatched: tuple[str, ...] = ()
    #: Why the consumer group's offsets are not known.
    group_error: str | None = None


def look_at_topics(
    settings: KafkaSettings, patterns: Sequence[str] = (), everything: bool = False, group_id: str | None = None
) -> Overview:
    """Find out what topics hold, in no more requests for hundreds than for one.

    `patterns`: names or patterns; all of Fink's where there are none.
    `everything`: include schema topics, Kafka's own and, without patterns, those that are not Fink's.
    `group_id`: the consumer group whose lag is wanted.
    Raises SettingsError if a pattern is not one.
    Raises BrokerError if no topic matches, or the broker refuses or does not answer.
    """
    with open_glimpse(settings) as connection:
        inspector = Inspector(connection)
        listed, chosen, unmatched = _list(inspector, patterns, everything)
        partitions = {topic: found for topic in chosen if isinstance(found := listed.get(topic), list)}
        admin = connection.admin
        marks = ask_watermarks(admin, partitions)() if partitions else {}
        if any(isinstance(each, BrokerError) for each in marks.values()):
            # What was deleted since it was listed is not there, and nothing is wrong with it.
            listed = {topic: listed[topic] for topic in inspector.topics() if topic in listed}
            chosen, unmatched = _choose(listed, patterns, everything)
        oldest = _times(admin, partitions, OffsetSpec.for_timestamp(0))
        newest = _times(admin, partitions, OffsetSpec.max_timestamp())
        retention = _retentions(admin, list(partitions))
    committed, group_error = _committed(settings, group_id, partitions)
    topics = []
    for topic in chosen:
        held = marks.get(topic) or listed.get(topic) or no_such_topic(topic, listed)
        if not isinstance(held, dict):
            topics.append(
                TopicOverview(topic, error=spell(held.message) if isinstance(held, BrokerError) else "unknown")
            )
            continue
        topics.append(
            TopicOverview(
                topic,
                len(held),
                sum(each.last_stable_offset - each.low for each in held.values()),
                min(oldest[topic], default=None),
                max(newest[topic], default=None),
                retention[topic],
                _lag(topic, held, committed),
                newest_each_ms=tuple(newest[topic]),
            )
        )
    return Overview(tuple(topics), len(set(listed) - set(chosen)), unmatched, group_error)


def look_at_removal(admin: Admin, topic: str, partitions: Sequence[int]) -> int | None:
    """Find out when Kafka may begin to remove records of these partitions; see `TopicOverview.removal_ms`."""
    oldest = _times(admin, {topic: partitions}, OffsetSpec.for_timestamp(0))[topic]
    retention = _retentions(admin, [topic])
    return TopicOverview(topic, oldest_ms=min(oldest, default=None), retention_ms=retention[topic]).removal_ms


def _list(
    inspector: Inspector, patterns: Sequence[str], everything: bool
) -> tuple[Mapping[str, list[int] | BrokerError], tuple[str, ...], tuple[str, ...]]:
    """List all topics and choose; a moment in which one of the chosen has no leader is waited for to pass."""
    until = time.monotonic() + SETTLES_S
    while True:
        listed = inspector.topics()
        chosen, unmatched = _choose(listed, patterns, everything)
        if time.monotonic() > until or not any(isinstance(listed.get(topic), BrokerError) for topic in chosen):
            return listed, chosen, unmatched
        time.sleep(_PAUSE_S)


def _choose(
    listed: Collection[str], patterns: Sequence[str], everything: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Choose from what there is; returns the choice, and the patterns that match nothing."""
    if everything:
        matched = [name for name in listed if not patterns or any(fnmatchcase(name, each) for each in patterns)]
        missing = tuple(each for each in patterns if not any(fnmatchcase(name, each) for name in listed))
    else:
        choice = choose_topics(patterns or FINK_PATTERNS)
        matched = list(choice.of(listed, predictions=True))
        missing = tuple(choice.unmatched(listed)) if patterns else ()
    if patterns and not matched:
        raise no_such_topics(patterns, listed)
    return tuple(sorted(matched)), missing


def _times(admin: Admin, partitions: Mapping[str, Sequence[int]], spec: Any) -> dict[str, list[int]]:
    """Ask for a timestamp in each partition; returns those of each topic that are known, in milliseconds."""
    times: dict[str, list[int]] = {topic: [] for topic in partitions}
    asked = {TopicPartition(topic, number): spec for topic, numbers in partitions.items() for number in numbers}
    if not asked:
        return times
    timeout_s = admin.settings.request_timeout_s
    for place, answer in admin.ask_each(lambda client: client.list_offsets(asked, request_timeout=timeout_s)).items():
        if answer is not None and answer.timestamp >= 0:
            times[place.topic].append(answer.timestamp)
    return times


def _retentions(admin: Admin, topics: Sequence[str]) -> dict[str, int | None]:
    resources = [ConfigResource(ConfigResource.Type.TOPIC, topic) for topic in topics]
    if not resources:
        return {}
    timeout_s = admin.settings.request_timeout_s

    def question(client: AdminClient) -> Any:
        return client.describe_configs(resources, request_timeout=timeout_s)

    answers = admin.ask_each(question)
    return {resource.name: _retention(answer) for resource, answer in answers.items()}


def _retention(config: Mapping[str, Any] | None) -> int | None:
    """Read how long a topic's records are kept."""
    if config is None:
        return None
    said = {name: str(config[name].value) for name in ("cleanup.policy", "retention.ms") if name in config}
    if "delete" not in said.get("cleanup.policy", "delete"):
        return FOREVER
    try:
        retention_ms = int(said["retention.ms"])
    except (KeyError, ValueError):
        return None
    return retention_ms if 0 <= retention_ms < _MAX_MS else FOREVER


def _committed(
    settings: KafkaSettings, group_id: str | None, partitions: Mapping[str, Sequence[int]]
) -> tuple[dict[tuple[str, int], int], str | None]:
    if not group_id:
        return {}, None
    try:
        return read_group_offsets(settings, group_id, partitions), None
    except BrokerError as error:
        return {}, str(error)


def _lag(topic: str, held: Mapping[int, Watermarks], committed: Mapping[tuple[str, int], int]) -> int | None:
    """Count what a group has still to read; None where it has read nothing of this topic."""
    if not any((topic, partition) in committed for partition in held):
        return None
    return sum(
        max(0, marks.last_stable_offset - max(marks.low, committed.get((topic, partition), 0)))
        for partition, marks in held.items()
    )
