"""What a dataset was begun with is what it goes on with. Pure: settings and the ledger's first plan go in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from fink_dask.errors import FinkDaskError, LedgerError, SettingsError, parameter
from fink_dask.kafka.inspect import is_other_topic
from fink_dask.ledger.outdir import or_a_season
from fink_dask.ledger.records import JOINED, Identity
from fink_dask.settings import FRAMINGS, OUTFORMATS, TransferSettings
from fink_dask.units import Moment
from fink_dask.where.language import parse_condition

#: Settings that a dataset keeps, as identities name them too; None in settings stands for one that is not given.
_KEPT = ("partitionby", "survey", "columns", "where", "outformat", "since")
#: The most characters shown of a condition that is refused.
_SHOWN_CHARS = 200


def go_on_with(settings: TransferSettings, before: Identity | None) -> TransferSettings:
    """Take what the user did not give from the dataset that is continued, or else the defaults.

    `before`: what the dataset was begun with; None for a new one.
    Raises SettingsError if something was given that differs, or the dataset is of another topic; it names the first
    difference.
    """
    if before is None:
        return replace(settings, partitionby=settings.partitionby or (), outformat=settings.outformat or OUTFORMATS[0])
    if settings.topic != before.topic:
        # Not a restart: that would give up the alerts of another topic.
        remedy = f"give another {parameter('outdir')}{or_a_season(settings.outdir)}"
        raise _refusal(_differs("topic", before.topic, settings.topic), remedy)
    if before.schema_source == JOINED:
        what = "its alerts were joined with predictions"
        raise _refusal(what, f"give {parameter('topic')} fink_ai_… to go on with it, or another {parameter('outdir')}")
    taken: dict[str, Any] = {}
    for name in _KEPT:
        old, new = _begun(before, name), _comparable(name, getattr(settings, name))
        if new is None or _is_same(name, old, new, before):
            taken[name] = old
        elif name != "survey" or old is not None:  # None where no time is read
            raise _refusal(_differs(name, old, new), f"leave {parameter(name)} out to go on with it, or {_BEGIN}")
    framing = before.framing.partition(":")[0]
    if settings.framing not in {FRAMINGS[0], framing}:
        words = f"leave {parameter('framing')} out to go on with it, or {_BEGIN}"
        raise _refusal(_differs("framing", framing, settings.framing), words)
    return replace(settings, **taken)


def like_the_others(settings: TransferSettings, others: Sequence[Identity]) -> TransferSettings:
    """Begin the datasets of further topics as all that are there already were begun, where these are alike."""
    asked = [replace(other, partitionby=other.partitionby_asked or other.partitionby) for other in others]
    kept = {tuple(_begun(other, name) for name in _KEPT) for other in asked}
    if len(kept) != 1:
        return settings
    begun = dict(zip(_KEPT, kept.pop(), strict=True))
    return replace(settings, **{name: old for name, old in begun.items() if getattr(settings, name) is None})


def check_same_topic(before: Identity, now: Identity) -> None:
    """Refuse to continue a ledger with a topic that was made anew, or that has another schema.

    Raises LedgerError if it is so.
    """
    if is_other_topic(before.topic_id, now.topic_id):
        raise _refusal("the topic was deleted and made again since", _BEGIN, LedgerError)
    if before.schema_sha256 != now.schema_sha256:
        raise _refusal("the schema is not the one that it was begun with", _BEGIN, LedgerError)


def canonical_condition(where: str | None) -> str | None:
    """Bring a condition into the one form that it has in a ledger.

    Raises SettingsError if it is not a condition.
    """
    if where is None:
        return None
    try:
        return str(parse_condition(where))
    except SettingsError as error:
        raise SettingsError(f"{parameter('where')}: {error}") from error


def canonical_columns(columns: Sequence[str] | None) -> tuple[str, ...] | None:
    """Bring columns into the order that they have in a ledger."""
    return None if columns is None else tuple(sorted(columns))


_BEGIN = f"begin another with another {parameter('outdir')} or {parameter('restart', True)}"


def _begun(before: Identity, name: str) -> Any:
    """Return what a dataset was begun with, as settings have it."""
    if name != "since" or before.since is None:
        return getattr(before, name)
    return Moment(before.since_asked or before.since, datetime.fromisoformat(before.since), bool(before.since_asked))


def _is_same(name: str, old: Any, new: Any, before: Identity) -> bool:
    if name == "since":
        return old is not None and bool(new.is_same(old))
    return bool(new == old or (name == "partitionby" and new == before.partitionby_asked))


def _comparable(name: str, given: Any) -> Any:
    if name == "where":
        return canonical_condition(given)
    return canonical_columns(given) if name == "columns" else given


def _differs(name: str, old: Any, new: Any) -> str:
    nothing = "all" if name in {"columns", "since"} else "none"
    old, new = (value.text if isinstance(value, Moment) else value for value in (old, new))
    shown = [",".join(value) if isinstance(value, tuple) else value for value in (old, new)]
    if name == "where":
        shown = [repr(value[:_SHOWN_CHARS]) if value else value for value in shown]
    return f"it was begun with {parameter(name)} {shown[0] or nothing}, not {shown[1] or nothing}"


def _refusal(what: str, remedy: str, kind: type[FinkDaskError] = SettingsError) -> FinkDaskError:
    return kind(f"this dataset can't be continued: {what}; {remedy}")
