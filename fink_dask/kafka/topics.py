"""Fink's conventions for topic names, and which topics are meant: names, and patterns to match a broker's list with.

Pure: nothing here talks to Kafka.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from fink_dask.errors import BrokerError, SettingsError, parameter
from fink_dask.settings import SURVEYS, Survey

#: How the names of Fink's topics begin: those of the data transfer, of cross-matches, and of the livestream.
FINK_PATTERNS = ("ftransfer_*", "fxmatch_*", "fink_*")
#: What Fink adds to a topic's name for the topic that holds its schema.
SCHEMA_SUFFIX = "_schema"
#: How the names of FinkAI's topics begin: those of predictions, of the alerts that were predicted from, and of what its
#: own jobs tell each other.
_AI, _AI_FEED, _AI_INNER = "fink_ai_", "fink_ai_feed_", "fink_ai_pre_"

#: https://kafka.apache.org/documentation/#topicconfigs: letters, digits, dot, underscore and hyphen, 249 at most.
MAX_LETTERS = 249
_LEGAL_NAME = re.compile(rf"[A-Za-z0-9._-]{{1,{MAX_LETTERS}}}")

#: The most topics that are transferred together: each has a ledger, a lease and a directory of its own.
MAX_TOPICS = 200

#: What Kafka allows in a name, and what patterns are made of, which it does not allow.
_LEGAL_PATTERN = re.compile(r"[A-Za-z0-9._\-*?\[\]!]{1,249}")
_WILD = frozenset("*?[")
#: How many patterns, and how many names like each, are shown where nothing matches.
_NEAR = 3
#: How alike (by difflib) two names are that differ in one or two characters; topics of one night are less alike.
_TYPING_ERROR = 0.9


def check_topic_name(topic: str) -> str:
    """Return `topic` if Kafka allows the name and it holds what can be transferred.

    Raises SettingsError if Kafka does not allow the name, or the topic holds a schema, or only jobs of FinkAI read it.
    """
    if not _LEGAL_NAME.fullmatch(topic) or topic in {".", ".."}:
        raise SettingsError(
            f"{topic[:80]!r} is not a Kafka topic name (up to 249 letters, digits, dots, underscores and hyphens)"
        )
    if topic.startswith(_AI_INNER):
        raise SettingsError(f"{topic} is what jobs of FinkAI tell each other: fink_ai_… without pre has the results")
    if topic.endswith(SCHEMA_SUFFIX) and (described := topic.removesuffix(SCHEMA_SUFFIX)):
        raise SettingsError(f"{topic} holds the schema of {described}, and no alerts: give {described}")
    return topic


def check_alert_topic(topic: str) -> str:
    """Return `topic` if `check_topic_name` does and it holds alerts.

    Raises SettingsError if it doesn't.
    """
    if holds_predictions(check_topic_name(topic)):
        raise SettingsError(
            f"{topic} holds predictions of FinkAI, no alerts: fink-dask transfer joins them with their alerts"
        )
    return topic


def holds_predictions(topic: str) -> bool:
    """Tell whether FinkAI writes predictions to a topic of this name."""
    return topic.startswith(_AI) and not topic.startswith((_AI_FEED, _AI_INNER))


def alert_topics(topic: str, survey: str | None) -> tuple[str, ...]:
    """Name the topics that may hold the alerts of a topic of predictions, the likeliest first."""
    suffix = topic.removeprefix(_AI)
    surveys = SURVEYS if survey is None else (survey,)
    return (f"{_AI_FEED}{suffix}", *(f"ftransfer_{each}_{suffix}" for each in surveys))


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


@dataclass(frozen=True)
class TopicChoice:
    """What was asked for."""

    #: Topics by their names, each once.
    names: tuple[str, ...]
    #: Patterns as a shell's: ``*``, ``?`` and ``[…]``.
    patterns: tuple[str, ...] = ()
    #: Whether a single topic joins others, whose datasets are there.
    joins: bool = False
    #: Topics that are there in datasets of other names, and which: a pattern leaves them out.
    elsewhere: Mapping[str, Path] = field(default_factory=dict)

    @property
    def is_several(self) -> bool:
        """Whether there may be more than one topic, so that each has a directory of its own."""
        return self.joins or not self.is_one

    @property
    def is_one(self) -> bool:
        """Whether a single topic was named, so that its failure is that of all."""
        return not self.patterns and len(self.names) == 1

    def of(self, listed: Iterable[str], predictions: bool = False) -> tuple[str, ...]:
        """Choose from what a broker has: the names, whether it has them or not, and what a pattern matches.

        Topics of predictions are only looked at together: each is transferred by its name, with its alerts.
        """
        left = {*self.names, *self.elsewhere}
        matched = {name for name in listed if name not in left and self._matches(name, self.patterns)}
        return (*self.names, *sorted(name for name in matched if predictions or not holds_predictions(name)))

    @property
    def left_out(self) -> dict[str, Path]:
        """What the patterns match and leave out, and where it is."""
        return {topic: path for topic, path in self.elsewhere.items() if self._matches(topic, self.patterns)}

    def unmatched(self, listed: Collection[str]) -> list[str]:
        """List the patterns that match nothing a broker has."""
        return [pattern for pattern in self.patterns if not any(self._matches(name, [pattern]) for name in listed)]

    @staticmethod
    def _matches(name: str, patterns: Sequence[str]) -> bool:
        # Kafka's own topics hold no alerts, nor does what --topic would refuse.
        if name.startswith("__"):
            return False
        try:
            check_topic_name(name)
        except SettingsError:
            return False
        return any(fnmatchcase(name, pattern) for pattern in patterns)


def choose_topics(values: Iterable[str]) -> TopicChoice:
    """Take what was typed: each value is a name or a pattern, and counts once.

    Raises SettingsError if one is neither, or there are too many or none.
    """
    values = tuple(dict.fromkeys(values))
    if not values:
        raise SettingsError(f"{parameter('topic')} is missing: give the name that the portal showed")
    if len(values) > MAX_TOPICS:
        raise SettingsError(f"{len(values):,} topics are too many: at most {MAX_TOPICS} are transferred together")
    patterns = tuple(value for value in values if _WILD & set(value))
    for pattern in patterns:
        if not _LEGAL_PATTERN.fullmatch(pattern):
            raise SettingsError(f"{pattern[:80]!r} can match no topic: it has characters that Kafka allows in no name")
    check = check_topic_name if len(values) == 1 else check_alert_topic
    return TopicChoice(tuple(check(value) for value in values if value not in patterns), patterns)


_NOT_THERE = (
    "check its name with fink-dask topics; it may have expired, and fink-dask transfer --wait-for-topic 10m waits for "
    "one that is to come"
)


def no_such_topic(topic: str, listed: Collection[str], has_rights: bool = False) -> BrokerError:
    """Say that there is no topic of a name, and which one is so like it that it must be the one.

    Where users have rights, Kafka does not name what they may not read.
    """
    from difflib import get_close_matches

    there = _transferable(listed)
    begun = [name for name in there if name.startswith(topic)]  # without what stands behind the date
    near = begun if len(begun) == 1 else get_close_matches(topic, begun or there, 1, cutoff=_TYPING_ERROR)
    what = f"did you mean {near[0]}?" if near else _NOT_THERE
    rights = ", or these credentials may not read it" if has_rights else ""
    return BrokerError(f"no such topic on this Kafka{rights} (nothing was created); {what}", topic)


def no_such_topics(patterns: Sequence[str], listed: Collection[str]) -> BrokerError:
    """Say that patterns match nothing, and what there is that looks like them."""
    from difflib import get_close_matches

    shown = " or ".join(patterns[:_NEAR])
    there = _transferable(listed)
    near = [name for pattern in patterns for name in get_close_matches(pattern, there, _NEAR, cutoff=0.3)]
    words = f"no topic of this Kafka matches {shown[:200]}"
    if near:
        return BrokerError(f"{words}; near it are {', '.join(dict.fromkeys(near[: 2 * _NEAR]))}")
    return BrokerError(f"{words}, and none has a similar name; fink-dask topics lists what there is")


def _transferable(listed: Iterable[str]) -> list[str]:
    return [name for name in sorted(listed) if TopicChoice._matches(name, ["*"])]
