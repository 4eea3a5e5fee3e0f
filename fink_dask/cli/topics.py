"""``fink-dask topics``: what is on the broker, how much, and how long Kafka will keep it."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from fink_dask.cli.command import (
    command,
    connection_options,
    json_option,
    kafka_settings,
    log_to_stderr,
    option,
    typed_option,
    verbose_option,
)
from fink_dask.cli.output import print_json, say
from fink_dask.errors import FinkDaskError
from fink_dask.kafka.topics import survey_of
from fink_dask.settings import SURVEYS

if TYPE_CHECKING:
    from fink_dask.kafka.overview import Overview, TopicOverview

#: Characters across the table where it goes into a file or a pipe.
_WIDE = 1000


@command("fink-dask topics 'ftransfer_ztf_*'")
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...")
@typed_option(
    "--all", "everything", is_flag=True, help="Also list schema topics, Kafka's own topics, and those of others."
)
@option("--survey", type=click.Choice(SURVEYS), help="Whose credentials file to read; by default PATTERN's.")
@option(
    "--group-id",
    metavar="NAME",
    help="The consumer group whose lag to show; by default the one in the credentials file.",
)
@connection_options
@json_option
@verbose_option
def topics(
    patterns: tuple[str, ...],
    everything: bool,
    survey: str | None,
    group_id: str | None,
    as_json: bool,
    verbose: bool,
    **connection: Any,
) -> int:
    """List Fink's topics on the broker, or those that match a name or a PATTERN such as 'ftransfer_lsst_*'.

    For each topic: how many alerts it holds, how old the oldest and the newest are, how long Kafka keeps alerts, how
    much time is left before Kafka may begin to remove them, and how many a consumer group has not read.
    """
    from fink_dask.kafka.overview import look_at_topics
    from fink_dask.show.display import doing
    from fink_dask.units import printable

    log_to_stderr(verbose)
    found = {survey_of(pattern) for pattern in patterns}
    survey = survey or (found.pop() if len(found) == 1 else None)
    kafka = kafka_settings(survey, **connection)
    group_id = group_id or _known_group(survey)
    with doing("asking Kafka"):
        overview = look_at_topics(kafka, patterns, everything, group_id)
    if overview.group_error is not None:
        say(f"fink-dask: the lag of group {group_id!r} is not known: {overview.group_error}", err=True)
    for pattern in overview.unmatched:
        say(f"fink-dask: no topic matches {printable(pattern)}", err=True)
    for topic in overview.topics:
        if topic.error is not None:
            say(f"fink-dask: {printable(topic.topic)}: {printable(topic.error)}", err=True)
    now_ms = time.time() * 1000
    if as_json:
        each = [_as_json(topic, now_ms) for topic in overview.topics]
        print_json({"group_id": group_id, "topics": each, "others": overview.others})
    elif any(topic.error is None for topic in overview.topics) or not overview.topics:
        _print(overview, group_id, now_ms)
    return int(any(topic.error for topic in overview.topics))


def _known_group(survey: str | None) -> str | None:
    from fink_dask.kafka.credentials import find_credentials

    try:
        credentials = find_credentials(survey)
    except FinkDaskError as error:  # the servers came from elsewhere, or this would have been said before
        say(f"fink-dask: the lag is not known: {error}", err=True)
        return None
    return None if credentials is None else credentials.group_id


def _as_json(topic: TopicOverview, now_ms: float) -> dict[str, Any]:
    left_ms = None if topic.removal_ms is None else topic.removal_ms - now_ms
    days_left = None if left_ms is None else round(left_ms / 86_400_000, 3)
    content = asdict(topic) | {"removal_ms": topic.removal_ms, "days_left": days_left}
    del content["newest_each_ms"]  # there may be thousands
    return content


def _print(overview: Overview, group_id: str | None, now_ms: float) -> None:
    """Print a table, or where the terminal is too narrow for it, two lines per topic."""
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

    from fink_dask.units import pluralize, printable

    others = f"{pluralize(overview.others, 'other topic')} on this Kafka (--all lists them)"
    if not overview.topics:
        say(f"no topics of Fink; {others}")
        return
    rows = {printable(topic.topic): _cells(topic, now_ms) for topic in overview.topics if topic.error is None}
    names = ["partitions", "alerts", "oldest", "newest", "kept", "left", *(["lag"] if group_id else [])]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("topic", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for topic, cells in rows.items():
        table.add_row(topic, *cells[: len(names)])
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = _WIDE
    if Measurement.get(console, console.options.update(max_width=_WIDE), table).maximum <= console.width:
        console.print(table)
    else:
        for topic, cells in rows.items():
            said = ", ".join(f"{name} {cell}" for name, cell in zip(names, cells, strict=False) if cell)
            say(f"{topic}\n  {said}")
    say("alerts: last stable minus first offset, also those that Kafka itself uses; ages by Kafka's timestamps")
    say("left: time before Kafka may begin to remove the oldest")
    if group_id:
        say(f"lag: what consumer group {printable(group_id)} has not read")
    if overview.others:
        say(others)


def _cells(topic: TopicOverview, now_ms: float) -> list[str]:
    from fink_dask.kafka.overview import FOREVER
    from fink_dask.units import duration_words

    def since(time_ms: int | None) -> str:
        return "" if time_ms is None else duration_words((now_ms - time_ms) / 1000)

    kept = "?" if topic.retention_ms is None else duration_words(topic.retention_ms / 1000)
    left = ""
    if topic.retention_ms == FOREVER:
        kept = "for ever"
    elif topic.removal_ms is not None:
        left = "0" if topic.removal_ms <= now_ms else duration_words((topic.removal_ms - now_ms) / 1000)
    lag = "" if topic.lag is None else f"{topic.lag:,}"
    return [
        f"{topic.partitions:,}",
        f"{topic.offsets:,}",
        since(topic.oldest_ms),
        since(topic.newest_ms),
        kept,
        left,
        lag,
    ]
