"""``fink-dask doctor``: what is wrong, and what to type."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fink_dask.cli.command import (
    Place,
    command,
    connection_options,
    json_option,
    kafka_settings,
    log_to_stderr,
    option,
    verbose_option,
)
from fink_dask.cli.output import fold, print_json
from fink_dask.errors import SettingsError
from fink_dask.kafka.topics import check_alert_topic, survey_of
from fink_dask.settings import SURVEYS
from fink_dask.units import printable

if TYPE_CHECKING:
    from fink_dask.doctor.machine import Check

#: When this was loaded, which is nearly when the program began.
_BEGAN = time.monotonic()
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}
#: Characters shown of what was found; what a broker says, or a name, may be of any length.
_MOST = 500
#: Columns of what stands before it.
_LABEL = 19


@command("fink-dask doctor ftransfer_ztf_2026-02-24_123456 --outdir alerts")
@click.argument("topic", required=False)
@option("--outdir", type=Place(), help="Where a dataset is to be: also check its file system, clock and free space.")
@option("--survey", type=click.Choice(SURVEYS), help="Whose credentials file to read; by default TOPIC's.")
@connection_options
@json_option
@verbose_option
def doctor(
    topic: str | None, outdir: Path | None, survey: str | None, as_json: bool, verbose: bool, **connection: Any
) -> int:
    """Check everything that a transfer needs, one line each, and say what to do where something is wrong.

    Versions, the decoder's compiler, cores, memory, credentials, Kafka and clocks; with TOPIC, how many alerts it holds
    and how long Kafka will keep them; with --outdir, whether a commit is safe there; with both, whether there is room.
    Exit status: 0, or 1 if any check fails.
    """
    log_to_stderr(verbose)
    if topic is not None:
        check_alert_topic(topic)
    found = []
    for check in _checks(topic, outdir, survey or survey_of(topic or ""), connection):
        found.append(check)
        if not as_json:
            _print(check)
    failed = any(check.state == "fail" for check in found)
    if as_json:
        print_json(
            {
                "state": "failed" if failed else "complete",
                "error": "; ".join(check.found for check in found if check.state == "fail") or None,
                "failed": failed,
                "checks": [_as_json(check) for check in found],
            }
        )
    return int(failed)


def _checks(topic: str | None, outdir: Path | None, survey: str | None, connection: dict[str, Any]) -> Iterator[Check]:
    from fink_dask.doctor.kafka import KafkaChecks, advice_on_servers, check_credentials, check_kafka
    from fink_dask.doctor.machine import (
        Check,
        check_compiler,
        check_cores,
        check_disk,
        check_memory,
        check_place,
        check_room,
        check_versions,
    )
    from fink_dask.settings import TransferSettings
    from fink_dask.show.display import doing

    loaded_s = time.monotonic() - _BEGAN
    yield check_versions()
    compiler = check_compiler()
    yield compiler
    yield check_cores()
    yield check_memory()
    kafka, lack = None, None
    try:
        kafka = kafka_settings(survey, **connection)
    except SettingsError as error:
        lack = error
    yield check_credentials(survey, is_needed=kafka is None)
    if lack is not None:
        yield Check("broker", "fail", str(lack), advice_on_servers(survey))
    seen = KafkaChecks(())
    if kafka is not None:
        with doing("asking Kafka, and measuring the line"):
            seen = check_kafka(kafka, topic)
    yield from seen.checks
    if outdir is None:
        return
    outdir = outdir.resolve()
    yield from check_place(outdir)
    is_topic_known = any(check.name == "topic" and check.state != "fail" for check in seen.checks)
    if kafka is not None and topic is not None and is_topic_known and compiler.state == "ok":
        with doing("reading some alerts, to know how large their files are"):
            began = time.monotonic()
            import fink_dask.running.run  # noqa: F401 - what a transfer loads is a part of its time

            loaded_s = loaded_s + time.monotonic() - began
            room = check_room(TransferSettings(topic=topic, outdir=outdir, kafka=kafka), seen.line, loaded_s)
        yield room
    else:
        yield check_disk(outdir, topic)


def _as_json(check: Check) -> dict[str, Any]:
    content = asdict(check)
    figures: dict[str, float | str | None] = content.pop("figures")
    return {**content, **figures}


def _print(check: Check) -> None:
    words = fold(f"{check.state:<5} {check.name:<12} {printable(check.found, _MOST)}", sys.stdout, _LABEL)
    state = click.style(check.state, fg=_COLOURS[check.state], bold=True)
    click.echo(state + words.removeprefix(check.state))
    if check.advice:
        click.echo(fold(f"{'':{_LABEL - 1}} -> {printable(check.advice, _MOST)}", sys.stdout, _LABEL + 3))
