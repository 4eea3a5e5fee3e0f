"""``fink-dask transfer``: move a topic into a dataset."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fink_dask.cli.cluster import cluster_options, cluster_settings, consumers
from fink_dask.cli.connection import connection_options, kafka_settings
from fink_dask.cli.following import follow_options, follow_settings
from fink_dask.cli.options import (
    CONTEXT,
    at_least_one,
    columns_option,
    config_option,
    dashboard_address_option,
    json_option,
    nconsumers_option,
    option,
    partitionby_option,
    typed_option,
    verbose_option,
)
from fink_dask.cli.schemas import dump_schemas_of
from fink_dask.cli.signals import SignalReceivedError
from fink_dask.config import BATCHSIZE, COMPRESSION, COMPRESSIONS, ON_BAD_RECORD, ON_LOSS, TransferSettings
from fink_dask.errors import FinkDaskError
from fink_dask.kafka.topics import SURVEYS, check_topic_name, survey_of

if TYPE_CHECKING:
    from fink_dask.cluster.joboptions import JobSpec
    from fink_dask.cluster.run import Where
    from fink_dask.dataset.ledger import Ledger
    from fink_dask.dataset.summary import State


#: When the program had loaded this, which is nearly when it began.
_BEGAN = time.monotonic()


#: Files as `dask worker` names them.
_TLS_FILE = click.Path(dir_okay=False, path_type=Path)


def _without_effect(_: click.Context, parameter: click.Parameter, value: object) -> None:
    """Take an option of Fink's own client that has nothing to decide here, and say so."""
    if value is not None:
        click.echo(f"fink-dask: --{str(parameter.name).replace('_', '-')} has nothing to decide here", err=True)


@click.command(
    context_settings=CONTEXT,
    epilog="Example: fink-dask transfer --topic ftransfer_ztf_2026-02-24_123456 --outdir alerts --partitionby time",
)
@option("--topic", required=True, metavar="NAME", help="The topic that the portal named.")
@option(
    "--outdir",
    required=True,
    type=click.Path(path_type=Path),
    help="Directory of the dataset; its ledger is OUTDIR.fink beside it.",
)
@option("--survey", type=click.Choice(SURVEYS), help="Otherwise read off the topic's name.")
@connection_options
@partitionby_option
@nconsumers_option
@option(
    "--batchsize",
    type=int,
    default=BATCHSIZE,
    show_default=True,
    callback=at_least_one,
    metavar="N",
    help="Alerts decoded at once, as far as they are 4 to 8 MiB together.",
)
@columns_option
@option(
    "--compression",
    type=click.Choice(COMPRESSIONS),
    default=COMPRESSION,
    show_default=True,
    help="Codec of the files; cutouts are compressed already and stay as they are.",
)
@option(
    "--memory-limit",
    metavar="BYTES",
    help="What all processes together may take, such as 4GB.  [default: half of what this process may use]",
)
@option("--limit", type=int, callback=at_least_one, metavar="N", help="The dataset ends with at most N alerts in all.")
@option("--schema", "schema_file", type=click.Path(path_type=Path), help="Avro schema, instead of the one in Kafka.")
@option(
    "--on-bad-record",
    type=click.Choice(ON_BAD_RECORD),
    default=ON_BAD_RECORD[0],
    show_default=True,
    help="What becomes of a record that can't be decoded: it is put aside, or the transfer fails.",
)
@option(
    "--on-loss",
    type=click.Choice(ON_LOSS),
    default=ON_LOSS[0],
    show_default=True,
    help="When Kafka has deleted alerts before they were read: declare them lost, or fail.",
)
@follow_options
@option("--group-id", metavar="NAME", help="Consumer group whose offsets are committed at the end, for other tools.")
@option("--dump-schemas", is_flag=True, help="Write avro_schema_TOPIC.json and arrow_schema_TOPIC.metadata here.")
@typed_option("--dry-run", is_flag=True, help="Say what would be done; write nothing.")
@typed_option(
    "--restart", "--restart-from-beginning", is_flag=True, help="Begin again; the old dataset goes when it is done."
)
@typed_option("--yes", "-y", is_flag=True, help="Do not ask before --restart.")
@option("--scheduler", metavar="ADDRESS", help="An existing Dask scheduler, instead of this machine's cores.")
@option("--tls-ca-file", type=_TLS_FILE, help="For --scheduler tls://…: the authority that signed its certificate.")
@option("--tls-cert", type=_TLS_FILE, help="For the same: the certificate to show there.")
@option("--tls-key", type=_TLS_FILE, help="For the same: the certificate's key.")
@cluster_options
@dashboard_address_option
@typed_option("--outformat", type=click.Choice(["parquet"]), hidden=True, expose_value=False)
@typed_option("--maxtimeout", type=float, hidden=True, expose_value=False, callback=_without_effect)
@typed_option("--number-partitions", type=int, hidden=True, expose_value=False, callback=_without_effect)
@option("--profile", is_flag=True, help="Print at the end where the time went.")
@json_option
@verbose_option
@config_option
def transfer(
    topic: str,
    outdir: Path,
    survey: str | None,
    partitionby: tuple[str, ...],
    nconsumers: int,
    batchsize: int,
    columns: tuple[str, ...] | None,
    compression: str,
    memory_limit: str | None,
    limit: int | None,
    schema_file: Path | None,
    on_bad_record: str,
    on_loss: str,
    group_id: str | None,
    dump_schemas: bool,
    dry_run: bool,
    restart: bool,
    yes: bool,
    scheduler: str | None,
    tls_ca_file: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    dashboard_address: str,
    profile: bool,
    as_json: bool,
    verbose: bool,
    follow: bool,
    roll_interval: str | None,
    idle_timeout: str | None,
    until_count: int | None,
    until: datetime | None,
    reconnect_timeout: str | None,
    **others: Any,
) -> int:
    """Move everything that a topic holds into a partitioned Parquet dataset, exactly once.

    Run the same command again to go on where it stopped, or to fetch what came since. Exit status: 0 complete,
    1 failed, 2 a wrong option or column, 3 finished but alerts were quarantined or lost, 130 and 143 interrupted.
    """
    check_topic_name(topic)
    jobs = cluster_settings(others, scheduler)
    kafka = kafka_settings(survey or survey_of(topic), **others)
    if scheduler is None and jobs is None and not dry_run:
        from fink_dask.cluster.forkserver import start_forkserver

        start_forkserver()  # it loads what workers need while this process loads the rest
    from fink_dask.cli.log import log_to_stderr
    from fink_dask.cluster.existing import Scheduler
    from fink_dask.cluster.local import parse_memory
    from fink_dask.cluster.run import Where

    log_to_stderr(verbose)  # after Dask's own set-up of logging, which its import is
    spec = None if jobs is None else jobs.resolve()
    settings = TransferSettings(
        topic=topic,
        outdir=outdir,
        kafka=kafka,
        survey=survey,
        partitionby=partitionby,
        nconsumers=consumers(nconsumers, spec),
        batchsize=batchsize,
        limit=limit,
        schema_file=schema_file,
        group_id=group_id,
        columns=columns,
        compression=compression,
        memory_limit=None if memory_limit is None else parse_memory(memory_limit),
        on_bad_record=on_bad_record,
        on_loss=on_loss,
        follow=follow_settings(
            follow=follow,
            roll_interval=roll_interval,
            idle_timeout=idle_timeout,
            until_count=until_count,
            until=until,
            reconnect_timeout=reconnect_timeout,
        ),
    )
    if restart and not dry_run and not yes:
        _ask_before_restart(settings)
    with _failure_as_json(settings, as_json):
        if dry_run:
            return _preview(settings, restart, as_json, spec)
        if dump_schemas:
            dump_schemas_of(settings)
        existing = None if scheduler is None else Scheduler(scheduler, tls_ca_file, tls_cert, tls_key)
        return _transfer(settings, Where(existing, dashboard_address, spec), restart, profile, as_json)


def _transfer(settings: TransferSettings, where: Where, restart: bool, profile: bool, as_json: bool) -> int:
    from fink_dask.cli.display import Display
    from fink_dask.cli.results import print_summary
    from fink_dask.cluster.run import run_transfer
    from fink_dask.dataset.ledger import Ledger

    with Display() as display:
        outcome = run_transfer(settings, display, where, restart, _BEGAN)
    print_summary(outcome.summary, Ledger(settings.outdir), as_json, outcome.profile if profile else None)
    return outcome.summary.exit_code


@contextmanager
def _failure_as_json(settings: TransferSettings, as_json: bool) -> Iterator[None]:
    """Print the summary also of a transfer that failed or was stopped, and tell how to go on."""
    from fink_dask.dataset.ledger import Ledger

    ledger = Ledger(settings.outdir)
    began = time.monotonic()
    before = _find_alerts(ledger) if as_json else Counter()
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        from fink_dask.cli.results import print_json
        from fink_dask.dataset.summary import Summary, summarise

        stopped = isinstance(error, KeyboardInterrupt)
        try:
            summary = summarise(ledger).summary if ledger.exists() else Summary(settings.topic, "failed")
        except FinkDaskError:
            summary = Summary(settings.topic, "failed")
        if stopped:
            where = f"{summary.alerts:,} alerts are safe in {ledger.outdir}; " if summary.alerts else ""
            click.echo(f"fink-dask: stopped; {where}run the same command again to go on", err=True)
            if isinstance(error, SignalReceivedError):
                error.said = True
        if as_json:
            now = _find_alerts(ledger)
            # A restart has put another ledger in the place of the one that was counted.
            added = sum((now - before).values())
            state: State = "interrupted" if stopped else "failed"
            seconds = time.monotonic() - began
            print_json(replace(summary, topic=settings.topic, state=state, run_alerts=added, run_seconds=seconds))
        raise


def _find_alerts(ledger: Ledger) -> Counter[int]:
    """Count the committed alerts, under the number that the file system gives the ledger."""
    from fink_dask.dataset.summary import summarise

    try:
        return Counter({ledger.path.stat().st_ino: summarise(ledger).summary.alerts})
    except (FinkDaskError, OSError):
        return Counter()


def _ask_before_restart(settings: TransferSettings) -> None:
    from fink_dask.dataset.ledger import Ledger
    from fink_dask.dataset.summary import summarise

    ledger = Ledger(settings.outdir)
    if ledger.exists():
        alerts = summarise(ledger).summary.alerts
        click.confirm(f"Replace the dataset in {settings.outdir} ({alerts:,} alerts)?", abort=True, err=True)


def _preview(settings: TransferSettings, restart: bool, as_json: bool, spec: JobSpec | None) -> int:
    from fink_dask.cli.results import print_outlook
    from fink_dask.cluster.jobqueue import job_script
    from fink_dask.dataset.ledger import Ledger
    from fink_dask.transfer.preview import preview

    script = None if spec is None else job_script(spec, Ledger(settings.outdir))
    print_outlook(preview(settings, restart), settings, as_json, script)
    return 0
