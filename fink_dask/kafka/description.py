"""What a broker says of a topic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fink_dask.kafka.offsets import Watermarks

#: Where a writer schema came from.
SchemaSource = Literal["file", "schema topic", "record key"]


@dataclass(frozen=True)
class TopicDescription:
    """A topic as the broker describes it.

    Parameters
    ----------
    topic : str
        Its name.
    topic_id : str
        Kafka's id, which changes when the topic is deleted and made again; `UNKNOWN_ID` where the broker can't say.
    watermarks : mapping of int to Watermarks
        What each partition holds.
    """

    topic: str
    topic_id: str
    watermarks: Mapping[int, Watermarks]


@dataclass(frozen=True)
class TopicSchema:
    """A writer schema and where it came from.

    Parameters
    ----------
    text : bytes
        The schema as JSON, not yet checked.
    source : {"file", "schema topic", "record key"}
        Where it was found.
    """

    text: bytes
    source: SchemaSource
