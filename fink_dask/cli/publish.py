"""``fink-dask publish``: fill a topic as Fink does, for tests and demonstrations."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path
from typing import Any

import click

from fink_dask.cli.command import (
    UserPath,
    at_least_one,
    command,
    connection_options,
    json_option,
    kafka_settings,
    log_to_stderr,
    option,
    typed_connection,
    typed_option,
    verbose_option,
)
from fink_dask.cli.output import print_json, say
from fink_dask.demo.alerts import AlertKind
from fink_dask.errors import SettingsError
from fink_dask.kafka.topics import survey_of

#: More than any Kafka cluster has room for.
_MAX_PARTITIONS = 10_000


def _partitions(_: click.Context, parameter: click.Parameter, value: int) -> int:
    if not 1 <= value <= _MAX_PARTITIONS:
        raise click.BadParameter(f"must be between 1 and {_MAX_PARTITIONS:,}", param=parameter)
    return value


def _rate(_: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value < math.inf:
        raise click.BadParameter("must be more than 0 alerts a second", param=parameter)
    return value


def _seed(_: click.Context, parameter: click.Parameter, value: int) -> int:
    if value < 0:
        raise click.BadParameter("must not be negative", param=parameter)
    return value


@command("fink-dask publish --topic ftransfer_ztf_2026-02-24_1 --synthetic 10000 --rate 2000")
@click.argument("files", nargs=-1, type=UserPath(dir_okay=False, path_type=Path))
@typed_option("--topic", required=True, metavar="NAME", help="The topic to fill; its schema goes to NAME_schema.")
@typed_option("--synthetic", type=int, callback=at_least_one, metavar="N", help="Make up N alerts instead of FILES.")
@option(
    "--kind",
    type=click.Choice([kind.value for kind in AlertKind]),
    default=AlertKind.ZTF_LIGHT.value,
    show_default=True,
    help="What kind of alerts to make up.",
)
@option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    callback=_seed,
    help="Random seed for the made-up alerts, and for the partition that each alert goes to.",
)
@option(
    "--rate", type=float, callback=_rate, metavar="R", help="Alerts a second; by default as fast as Kafka takes them."
)
@option(
    "--partitions",
    type=int,
    default=10,
    show_default=True,
    callback=_partitions,
    metavar="N",
    help="Number of partitions of a new topic.",
)
@typed_option(
    "--append", is_flag=True, help="Add to an existing topic; made-up alerts get ids that it does not have yet."
)
@connection_options
@json_option
@verbose_option
def publish(
    files: tuple[Path, ...],
    topic: str,
    synthetic: int | None,
    kind: str,
    seed: int,
    rate: float | None,
    partitions: int,
    append: bool,
    as_json: bool,
    verbose: bool,
    **connection: Any,
) -> int:
    """Fill a topic as Fink does, for tests and demonstrations.

    FILES are Avro container files with the same schema, whose alerts are published byte for byte. The topic is created;
    an existing one is refused unless --append is given. Exit status: 0 once Kafka has confirmed every alert.
    """
    from fink_dask.avro.schema import parse_schema
    from fink_dask.cli.stopped import SignalReceivedError, run_apart
    from fink_dask.demo.alerts import play_alerts, recorded_schema
    from fink_dask.demo.files import open_files
    from fink_dask.demo.fill import fill_topic, prepare_topic
    from fink_dask.kafka.publish import open_publisher, paced
    from fink_dask.show.bar import CountBar
    from fink_dask.show.display import doing
    from fink_dask.units import per_second, pluralize

    if bool(files) == (synthetic is not None):
        raise SettingsError("give either FILES, or --synthetic N for made-up alerts")
    log_to_stderr(verbose)
    kafka = kafka_settings(survey_of(topic), **connection)
    opened = open_files(files) if files else None
    text = opened.text if opened is not None else recorded_schema(kind)
    total = opened.alerts if opened is not None else synthetic or 0
    with doing("connecting to Kafka, and looking for the topic"):
        where = prepare_topic(kafka, topic, parse_schema(text), partitions, append)
    values = opened.values() if opened is not None else play_alerts(kind, total, seed=seed, first_number=where.offsets)
    done, began = 0, time.monotonic()
    with open_publisher(kafka) as publisher, CountBar("publishing", total, noun="alert") as bar:

        def note(alerts: int) -> None:
            nonlocal done
            done += alerts
            bar.advance(alerts)

        def fill(stop: threading.Event) -> None:
            paced_values = paced(values, rate, stop.wait) if rate else values
            fill_topic(publisher, where, text, paced_values, seed, note, stop.is_set)

        try:
            run_apart(fill)
        except KeyboardInterrupt as error:
            bar.stop()
            say(f"fink-dask: stopped; {done:,} of {pluralize(total, 'alert')} published to {topic}", err=True)
            if isinstance(error, SignalReceivedError):
                error.said = True
            raise
    seconds = time.monotonic() - began
    if as_json:
        content = {"topic": topic, "alerts": done, "partitions": where.partitions, "run_seconds": round(seconds, 3)}
        print_json(content)
        return 0
    speed = per_second(done / max(seconds, 1e-3), "alert")
    say(f"{topic}: {pluralize(done, 'alert')} published in {seconds:.1f} s ({speed})")
    say(f"  partitions {where.partitions}")
    click.echo(f"  transfer   {_transfer_of(topic, None if files else kind)}{typed_connection(connection)}")
    return 0


def _transfer_of(topic: str, kind: str | None) -> str:
    """Return the command that transfers a topic; where its name has no survey, the kind of the alerts says it."""
    command = f"fink-dask transfer --topic {topic} --outdir {topic}"
    if survey_of(topic) is not None:
        return f"{command} --partitionby time"
    return command if kind is None else f"{command} --partitionby time --survey {kind.partition('-')[0]}"
