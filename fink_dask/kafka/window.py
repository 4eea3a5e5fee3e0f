"""Which of the records that topics hold came at a time: Kafka finds the offsets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fink_dask.errors import BrokerError, BrokerUnavailableError
from fink_dask.kafka.admin import Admin
from fink_dask.kafka.confluent import IsolationLevel, KafkaError, OffsetSpec, TopicPartition, broker_error
from fink_dask.kafka.offsets import Watermarks
from fink_dask.units import Moment, Window

Answer = Callable[[], dict[Any, Any]]
#: All records, whenever they came.
EVERYTHING = Window()
#: Kafka's offset of the first record at or after a time, where there is none.
_NONE = -1


def ask_offsets(admin: Admin, places: Sequence[TopicPartition], spec: Any) -> Answer:
    """Ask for an offset of each partition, as it is for who reads what is committed; returns what waits for it."""
    return admin.begin(
        lambda client: client.list_offsets(
            dict.fromkeys(places, spec),
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=admin.settings.request_timeout_s,
        )
    )


def ask_window(
    admin: Admin, held: Mapping[str, dict[int, Watermarks] | BrokerError], window: Window
) -> dict[str, dict[int, Watermarks] | BrokerError]:
    """Ask which of the offsets that topics hold are of a time, after it is known what they hold.

    Kafka finds the first record at or after a time. Only an answer that is younger than the last stable offset says of
    all offsets before that one that there is none; asked at once, a record might come in between, and be left out.

    Returns: what each topic holds, with `Watermarks.begin` and `Watermarks.until`; or why that can't be said.
    """
    known = {topic: marks for topic, marks in held.items() if isinstance(marks, dict)}
    places = [TopicPartition(topic, number) for topic, marks in known.items() for number in marks]

    def ask(time: Moment | None) -> Answer:
        if time is None or not places:
            return dict
        return ask_offsets(admin, places, OffsetSpec.for_timestamp(time.milliseconds))

    since, until = ask(window.since), ask(window.until)
    firsts, lasts = since(), until()
    found: dict[str, dict[int, Watermarks] | BrokerError] = {**held, **{topic: {} for topic in known}}
    for place in places:
        marks, within = known[place.topic][place.partition], found[place.topic]
        first, last = firsts.get(place), lasts.get(place)
        refusal = next((each for each in (first, last) if isinstance(each, KafkaError)), None)
        if refusal is not None:
            found[place.topic] = broker_error(refusal, place.topic, place.partition)
        elif any(each is not None and each.offset < _NONE for each in (first, last)):  # the connection broke meanwhile
            found[place.topic] = BrokerUnavailableError(
                "Kafka has not said what is of that time", place.topic, place.partition
            )
        elif isinstance(within, dict):
            within[place.partition] = replace(
                marks,
                begin=0 if first is None else _begin(first.offset, marks),
                until=None if last is None or last.offset == _NONE else last.offset,
            )
    return found


def _begin(first: int, marks: Watermarks) -> int:
    if first == _NONE:
        return marks.last_stable_offset
    # If even the oldest record that is left is new enough, what Kafka has removed before it may have been wanted.
    return 0 if first <= marks.low else min(first, marks.last_stable_offset)
