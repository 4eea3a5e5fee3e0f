"""``fink-dask peek``: show a few alerts of a topic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fink_dask.cli.command import (
    UserPath,
    command,
    connection_options,
    kafka_settings,
    line_options,
    log_to_stderr,
    option,
    options_from,
    take,
    typed_option,
    verbose_option,
)
from fink_dask.cli.output import save, say
from fink_dask.errors import SettingsError
from fink_dask.kafka.topics import check_alert_topic, survey_of
from fink_dask.settings import TransferSettings
from fink_dask.units import pluralize

if TYPE_CHECKING:
    from rich.console import Console

    from fink_dask.show.peek import Peeked

#: Exit status where a record can't be decoded.
_PARTIAL = 3


@command("fink-dask peek ftransfer_ztf_2026-02-24_123456 -n 1")
@click.argument("topic")
@typed_option("--count", "-n", type=int, default=3, show_default=True, metavar="N", help="How many alerts, up to 100.")
@typed_option("--partition", type=click.IntRange(0), metavar="P", help="Only alerts of this partition.")
@typed_option("--offset", type=click.IntRange(0), metavar="O", help="Start at this offset of --partition.")
@typed_option("--newest", is_flag=True, help="The alerts with the newest timestamps instead of the first.")
@option("--json", "as_json", is_flag=True, help="Print each alert as a JSON object, one per line.")
@typed_option(
    "--cutouts",
    type=UserPath(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write the cutouts to DIR as PNG files.",
)
@options_from(TransferSettings, "survey", "since", "until", "schema_file", "framing")
@connection_options
@line_options
@verbose_option
def peek(
    topic: str,
    count: int,
    partition: int | None,
    offset: int | None,
    newest: bool,
    as_json: bool,
    cutouts: Path | None,
    verbose: bool,
    **given: Any,
) -> int:
    """Show a few alerts of TOPIC as they are in Kafka; nothing is written, and no offset is committed.

    Long lists are shortened, bytes shown as their size, and null fields listed by name; --json prints everything.
    --cutouts needs astropy: pip install 'fink-dask[report]'. Exit status: 0, 1 failed, 3 if a record can't be decoded.
    """
    from rich.console import Console

    from fink_dask.cluster.forkserver import do_without_pandas
    from fink_dask.dataset.cutouts import HINT, can_read_stamps
    from fink_dask.kafka.connection import open_glimpse
    from fink_dask.show.display import doing
    from fink_dask.show.peek import Peek
    from fink_dask.show.peek import peek as look

    log_to_stderr(verbose)
    do_without_pandas()
    wanted = Peek(count, partition, offset, newest)
    if cutouts is not None and not can_read_stamps():
        raise SettingsError(f"--cutouts needs astropy and Pillow, which are not installed: {HINT}")
    check_alert_topic(topic)
    asked = take(TransferSettings, given)
    kafka = kafka_settings(asked["survey"] or survey_of(topic), **given)
    settings = TransferSettings(topic, Path("peek"), kafka, **asked)
    with doing("looking at the topic"), open_glimpse(kafka) as opened:
        found = look(settings, wanted, opened)
    # Colours where there is a terminal, unless NO_COLOR is set.
    console = Console(highlight=False, markup=False, emoji=False)
    for record in found:
        if record.alert is None:
            where = f"{topic}[{record.partition}] at offset {record.offset}"
            say(f"fink-dask: warning: {where} can't be decoded: {record.reason}", err=True)
        else:
            _show(record, console, as_json)
            if cutouts is not None:
                _save(record, cutouts)
    return 0 if all(record.alert is not None for record in found) else _PARTIAL


def _show(record: Peeked, console: Console, as_json: bool) -> None:
    import numpy as np

    from fink_dask.show import alert

    if as_json:
        click.echo(json.dumps(alert.as_json(record.alert)))
        return
    title = f"partition {record.partition}, offset {record.offset}"
    if record.timestamp_ms >= 0:
        # A producer may give any time, and Python's own years end with 9999.
        time = np.datetime64(record.timestamp_ms, "ms").astype("datetime64[s]")
        title += f", {str(time).replace('T', ' ')} UTC"
    console.print(alert.alert_tree(title, record.alert))


def _save(record: Peeked, folder: Path) -> None:
    """Write the cutouts of an alert; file names say where it is in the topic, and hold nothing from outside."""
    from fink_dask.dataset.cutouts import png, read_stamp
    from fink_dask.dataset.partitioning import column_of
    from fink_dask.dataset.surveys import find_fields

    assert record.alert is not None
    paths = find_fields(record.alert.schema).cutouts
    if not paths:
        raise SettingsError("--cutouts: these alerts have no cutouts; those of full packets do")
    written = 0
    for shown, path in paths.items():
        image = read_stamp(column_of(record.alert, path)[0].as_py())
        if image is None:
            say(f"fink-dask: warning: the {shown} cutout can't be read", err=True)
            continue
        save(folder / f"{record.partition}-{record.offset}-{shown}.png", png(image))
        written += 1
    say(f"{pluralize(written, 'picture')} in {folder}", err=True)
