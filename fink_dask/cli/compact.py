"""``fink-dask compact``: write a dataset of many small files once more, as one of few."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from fink_dask.cli.options import CONTEXT, json_option, typed_option, verbose_option
from fink_dask.cli.signals import SignalReceivedError
from fink_dask.cli.words import counted
from fink_dask.config import COMPRESSION, COMPRESSIONS


@click.command(
    context_settings=CONTEXT,
    epilog="Example: fink-dask compact alerts compacted, or fink-dask compact alerts compacted --unique candid",
)
@click.argument("outdir", type=click.Path(path_type=Path))
@click.argument("newdir", type=click.Path(path_type=Path))
@typed_option(
    "--file-size", default="256MiB", show_default=True, metavar="BYTES", help="Of a file and a partition key, about."
)
@typed_option(
    "--unique",
    metavar="COLUMN",
    help="Keep one of the alerts with the same value, such as candid or diaSourceId: the first in Kafka's order.",
)
@typed_option(
    "--compression", type=click.Choice(COMPRESSIONS), default=COMPRESSION, show_default=True, help="Codec of the files."
)
@json_option
@verbose_option
def compact(
    outdir: Path, newdir: Path, file_size: str, unique: str | None, compression: str, as_json: bool, verbose: bool
) -> int:
    """Write the dataset OUTDIR once more, as NEWDIR, with few large files; OUTDIR is left as it is.

    NEWDIR appears when it is complete, with a ledger of its own, which verify proves. The same command goes on with one
    that was stopped. Exit status: that of the dataset, so 3 where alerts were quarantined or lost.
    """
    from rich.console import Console
    from rich.progress import Progress

    from fink_dask.cli.log import log_to_stderr
    from fink_dask.cli.results import headline, print_json
    from fink_dask.cluster.local import parse_memory, usable_cores
    from fink_dask.dataset.compact import Caller, compact_dataset
    from fink_dask.dataset.compaction import Form
    from fink_dask.dataset.ledger import Ledger

    log_to_stderr(verbose)
    form = Form(parse_memory("--file-size", file_size), unique, compression)
    source, target = Ledger(outdir.resolve()), Ledger(newdir.resolve())
    console = Console(stderr=True, highlight=False)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("compacting", total=None)
        caller = Caller(
            note=lambda words: click.echo(f"fink-dask: {words}", err=True),
            plan=lambda size: bar.update(task, total=size),
            advance=lambda size: bar.advance(task, size),
        )
        try:
            found = compact_dataset(source, target, form, usable_cores(), caller)
        except SignalReceivedError as error:
            bar.stop()
            click.echo("fink-dask: stopped; run the same command again to go on", err=True)
            error.said = True
            raise
    if as_json:
        print_json(found.summary, files_before=found.files_before, form=asdict(form), is_new=found.is_new)
        return found.summary.exit_code
    click.echo(headline(found.summary))
    if not found.is_new:
        click.echo("  nothing to do: it was compacted already")
    click.echo(f"  compacted  {counted(found.files_before, 'file')} into {counted(found.summary.files, 'file')}")
    if unique is not None:
        click.echo(f"  unique     {counted(found.summary.duplicates, 'duplicate')} left out, by {unique}")
    click.echo(f"  dataset    {target.outdir}")
    click.echo(f"  ledger     {target.path}")
    return found.summary.exit_code
