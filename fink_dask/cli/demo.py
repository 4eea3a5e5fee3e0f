"""``fink-dask demo``: the whole path on this machine, with nothing else installed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from shlex import quote

import click

from fink_dask.cli.command import Place, command, options_from, typed_option
from fink_dask.cli.output import say
from fink_dask.settings import KafkaSettings, TransferSettings
from fink_dask.units import pluralize

_MAX_ALERTS = 12_000


def _fitting(_: click.Context, parameter: click.Parameter, value: int) -> int:
    if not 1 <= value <= _MAX_ALERTS:
        raise click.BadParameter(
            f"must be between 1 and {_MAX_ALERTS:,}, the most that the embedded Kafka holds", param=parameter
        )
    return value


@command("fink-dask demo --alerts 5000 --outdir fink-dask-demo")
@typed_option(
    "--alerts",
    type=int,
    default=10_000,
    show_default=True,
    callback=_fitting,
    metavar="N",
    help="Alerts in the made-up night; at most 12,000.",
)
@typed_option(
    "--outdir",
    type=Place("demo"),
    default=Path("fink-dask-demo"),
    show_default=True,
    help="Directory for the dataset; that of an earlier demo is replaced.",
)
@options_from(TransferSettings, "nconsumers")
def demo(alerts: int, outdir: Path, nconsumers: int) -> int:
    """Publish a made-up night to an embedded Kafka, transfer it, verify it, and show how to read it."""
    from fink_dask.cli.read import lines_of
    from fink_dask.cli.results import print_summary
    from fink_dask.cli.stopped import run_apart
    from fink_dask.cluster.choice import ClusterChoice
    from fink_dask.cluster.local import usable_cores
    from fink_dask.demo.fill import DEMO_TOPIC, publish_night
    from fink_dask.errors import SettingsError
    from fink_dask.kafka.inspect import UNKNOWN_ID
    from fink_dask.kafka.publish import mock_broker
    from fink_dask.ledger.lease import hold_lease
    from fink_dask.ledger.outdir import find_ledger
    from fink_dask.ledger.restart import delete_old_dataset, old_datasets, set_aside
    from fink_dask.running.run import run_transfer
    from fink_dask.show.display import Display
    from fink_dask.verifying.files import verify_dataset

    ledger = find_ledger(outdir.resolve())
    if ledger.exists():
        identity = ledger.begun_with()
        # A real topic may have the demo's name, but it has an id, which the embedded Kafka does not give.
        if (identity.topic, identity.topic_id) != (DEMO_TOPIC, UNKNOWN_ID):
            raise SettingsError(f"{ledger.outdir} already holds a dataset of {identity.topic}: choose another --outdir")
        with hold_lease(ledger):
            set_aside(ledger)
        for old in old_datasets(ledger):
            delete_old_dataset(old)
    with mock_broker() as broker:
        say(f"1. publish: {alerts:,} made-up alerts to {DEMO_TOPIC} on {broker.bootstrap_servers}")
        run_apart(lambda stop: publish_night(broker, DEMO_TOPIC, alerts, seed=1, stopped=stop.is_set))
        settings = TransferSettings(
            topic=DEMO_TOPIC,
            outdir=outdir,
            kafka=KafkaSettings(broker.bootstrap_servers),
            partitionby=("time",),
            nconsumers=usable_cores() if nconsumers == -1 else nconsumers,
        )
        say(f"2. transfer, as 'fink-dask transfer --topic {DEMO_TOPIC} --outdir {outdir} --partitionby time' does")
        with Display() as progress:
            outcome = run_transfer(settings, progress, ClusterChoice())
    print_summary(outcome.summary, ledger, as_json=False)
    say(f"3. verify: fink-dask verify {outdir}")
    found = verify_dataset(ledger)
    for problem in found.problems:
        say(f"  {problem}")
    say(
        f"  {found.summary.state}: {pluralize(found.completeness.planned_offsets, 'offset')}, "
        f"{pluralize(found.summary.alerts, 'alert')}"
    )
    _show_files(ledger.outdir)
    say("Read it:\n")
    click.echo(lines_of(ledger.outdir, str(outdir), "pandas"))  # at the margin, to be copied
    say(f"'fink-dask read {outdir}' prints the lines of other readers")
    _say_where_programs_are()
    return found.summary.exit_code


def _say_where_programs_are() -> None:
    """Say what to type first where the lines above would find no fink-dask, or a Python without it."""
    programs = Path(sys.executable).parent
    found = shutil.which("fink-dask")
    if found is None or Path(found).parent != programs:
        say("fink-dask and its Python are in no directory of your PATH; this puts theirs there, in this terminal:\n")
        click.echo(f"export PATH={quote(str(programs))}:$PATH")


def _show_files(outdir: Path) -> None:
    from rich.filesize import decimal

    say(f"4. what was written to {outdir}:")
    for directory in sorted({path.parent for path in outdir.rglob("*.parquet")}):
        files = list(directory.glob("*.parquet"))
        size = decimal(sum(path.stat().st_size for path in files))
        say(f"  {directory.relative_to(outdir)}/  {pluralize(len(files), 'file')}, {size}")
