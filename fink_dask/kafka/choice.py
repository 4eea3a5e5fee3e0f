"""Which topics are meant: names, and patterns that a broker's list is held against. Pure: nothing here asks Kafka."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from fink_dask.errors import BrokerError, SettingsError
from fink_dask.kafka.topics import SCHEMA_SUFFIX, check_topic_name
from fink_dask.nouns import counted

#: Topics that are transferred together, at most: each has a ledger, a lease and a directory of its own.
MOST_TOPICS = 200

#: What Kafka allows in a name, and what patterns are made of, which it does not allow.
_LEGAL_PATTERN = re.compile(r"[A-Za-z0-9._\-*?\[\]!]{1,249}")
_WILD = frozenset("*?[")
#: Shown of what is there where nothing is what was meant.
_NEAR = 3


@dataclass(frozen=True)
class TopicChoice:
    """What was asked for.

    Parameters
    ----------
    names : tuple of str
        Topics by their names, each once.
    patterns : tuple of str
        Patterns as a shell's: ``*``, ``?`` and ``[…]``.
    """

    names: tuple[str, ...]
    patterns: tuple[str, ...] = ()

    @property
    def is_several(self) -> bool:
        """Whether there may be more than one topic, so that each has a directory of its own."""
        return bool(self.patterns) or len(self.names) > 1

    def of(self, listed: Iterable[str]) -> tuple[str, ...]:
        """Choose from what a broker has: the names, whether it has them or not, and what a pattern matches."""
        matched = sorted(name for name in listed if name not in self.names and self._matches(name, self.patterns))
        return (*self.names, *matched)

    def unmatched(self, listed: Collection[str]) -> list[str]:
        """List the patterns that match nothing a broker has."""
        return [pattern for pattern in self.patterns if not any(self._matches(name, [pattern]) for name in listed)]

    @staticmethod
    def _matches(name: str, patterns: Sequence[str]) -> bool:
        # Fink's schemas and Kafka's own topics are no alerts, and neither is what no --topic could name.
        if name.startswith("__") or name.endswith(SCHEMA_SUFFIX):
            return False
        try:
            check_topic_name(name)
        except SettingsError:
            return False
        return any(fnmatchcase(name, pattern) for pattern in patterns)


def choose_topics(values: Iterable[str]) -> TopicChoice:
    """Take what was typed: each value is a name or a pattern, and counts once.

    Raises
    ------
    SettingsError
        If one is neither, or there are too many or none.
    """
    values = tuple(dict.fromkeys(values))
    if not values:
        raise SettingsError("--topic is missing: give the name that the portal said")
    if len(values) > MOST_TOPICS:
        raise SettingsError(f"{len(values):,} topics are too many: {MOST_TOPICS} are transferred together at most")
    patterns = tuple(value for value in values if _WILD & set(value))
    for pattern in patterns:
        if not _LEGAL_PATTERN.fullmatch(pattern):
            raise SettingsError(f"{pattern[:80]!r} can match no topic: it holds what Kafka allows in no name")
    names = tuple(check_topic_name(value) for value in values if value not in patterns)
    return TopicChoice(names, patterns)


def no_such_topics(patterns: Sequence[str], listed: Collection[str]) -> BrokerError:
    """Say that patterns match nothing, and what there is that looks like them."""
    shown = " or ".join(patterns[:_NEAR])
    there = [name for name in sorted(listed) if TopicChoice._matches(name, ["*"])]
    near = [name for pattern in patterns for name in get_close_matches(pattern, there, _NEAR, cutoff=0.3)]
    words = f"no topic of this Kafka matches {shown[:200]}"
    if near:
        return BrokerError(f"{words}; near it are {', '.join(dict.fromkeys(near[: 2 * _NEAR]))}")
    return BrokerError(f"{words}; it has {counted(len(there), 'topic')}, and none with a similar name")
