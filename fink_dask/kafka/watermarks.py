"""What partitions hold: the first offset and the last stable one of many, in two requests to each broker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fink_dask.errors import BrokerError
from fink_dask.kafka.client import TopicPartition, broker_error
from fink_dask.kafka.connection import Connection
from fink_dask.kafka.offsets import Watermarks

#: Times that stand for the first offset of a partition, and for its last stable one:
#: https://kafka.apache.org/protocol#The_Messages_ListOffsets
_EARLIEST, _LATEST = -2, -1


def ask_watermarks(
    connection: Connection, partitions: Mapping[str, Sequence[int]]
) -> dict[str, dict[int, Watermarks] | BrokerError]:
    """Ask for the first offset and the last stable offset of partitions, now.

    Parameters
    ----------
    connection : Connection
        What to ask through; it reads committed records only.
    partitions : mapping of str to sequence of int
        Partitions of each topic, at least one.

    Returns
    -------
    dict of str to dict of int to Watermarks, or to BrokerError
        What each partition of a topic holds, or why that can't be said of one of them.

    Raises
    ------
    BrokerError
        If the broker refuses or does not answer.
    """
    lows, stables = _ask(connection, partitions, _EARLIEST), _ask(connection, partitions, _LATEST)
    found: dict[str, dict[int, Watermarks] | BrokerError] = {}
    for topic, numbers in partitions.items():
        low, stable = lows[topic], stables[topic]
        if isinstance(low, BrokerError):
            found[topic] = low
        elif isinstance(stable, BrokerError):
            found[topic] = stable
        else:
            found[topic] = {number: Watermarks(low[number], stable[number]) for number in numbers}
    return found


def _ask(
    connection: Connection, partitions: Mapping[str, Sequence[int]], which: int
) -> dict[str, dict[int, int] | BrokerError]:
    wanted = [TopicPartition(topic, number, which) for topic, numbers in partitions.items() for number in numbers]
    # Where there is only one topic, an error that concerns the whole request names it.
    topic = next(iter(partitions)) if len(partitions) == 1 else None
    answers = connection.ask(lambda timeout: connection.consumer.offsets_for_times(wanted, timeout=timeout), topic)
    found: dict[str, dict[int, int] | BrokerError] = {topic: {} for topic in partitions}
    for answer in answers:
        offsets = found[answer.topic]
        if answer.error is not None:
            found[answer.topic] = broker_error(answer.error, answer.topic, answer.partition)
        elif isinstance(offsets, dict):
            offsets[answer.partition] = answer.offset
    return found
