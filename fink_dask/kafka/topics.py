"""Fink's conventions for topic names. Pure: nothing here talks to Kafka."""

from __future__ import annotations

import hashlib
import re
from typing import Literal, get_args

from fink_dask.errors import SettingsError

Survey = Literal["ztf", "lsst"]
SURVEYS: tuple[Survey, ...] = get_args(Survey)
#: How the names of Fink's topics begin: those of the data transfer, of cross-matches, and of the livestream.
FINK_PATTERNS = ("ftransfer_*", "fxmatch_*", "fink_*")
#: What Fink adds to a topic's name for the topic that holds its schema.
SCHEMA_SUFFIX = "_schema"

#: https://kafka.apache.org/documentation/#topicconfigs: letters, digits, dot, underscore and hyphen, 249 at most.
MAX_LETTERS = 249
_LEGAL_NAME = re.compile(rf"[A-Za-z0-9._-]{{1,{MAX_LETTERS}}}")


def check_topic_name(topic: str) -> str:
    """Return `topic` if Kafka allows the name and it holds Avro alerts.

    Raises
    ------
    SettingsError
        If Kafka does not allow the name, or the topic is one of Fink's AI topics, whose records are not Avro.
    """
    if not _LEGAL_NAME.fullmatch(topic) or topic in {".", ".."}:
        raise SettingsError(
            f"{topic[:80]!r} is not a Kafka topic name (up to 249 letters, digits, dots, underscores and hyphens)"
        )
    if topic.startswith("fink_ai_"):
        raise SettingsError(
            f"{topic} is one of Fink's AI topics: its records are not Avro alerts, and fink-dask can't transfer it"
        )
    return topic


def survey_of(topic: str) -> Survey | None:
    """Read the survey off a topic's name (``ftransfer_ztf_2026-02-24_123456``), or None where the name has none."""
    words = re.split(r"[_.-]", topic)
    found = [survey for survey in SURVEYS if survey in words]
    return found[0] if len(found) == 1 else None


def schema_topic(topic: str) -> str:
    """Name the topic whose record keys hold the Avro schema of `topic`."""
    return f"{topic}{SCHEMA_SUFFIX}"


def topic_hash(topic: str) -> str:
    """Shorten a topic's name to 8 hex digits that are safe in file names."""
    return hashlib.sha256(topic.encode()).hexdigest()[:8]
