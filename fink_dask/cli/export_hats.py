"""``fink-dask export-hats``: write a dataset's objects with their light curves as a HATS catalog."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fink_dask.cli.options import CONTEXT, FinkCommand, Place, json_option, typed_option, verbose_option
from fink_dask.cli.output import print_json
from fink_dask.cli.say import say
from fink_dask.cli.stopped import SignalReceivedError
from fink_dask.errors import parameter
from fink_dask.settings import parse_names
from fink_dask.units import counted

if TYPE_CHECKING:
    from fink_dask.catalog.hats import Exported
    from fink_dask.ledger.progress import Progress

#: Exit status of a catalog that lacks alerts which the topic had.
_PARTIAL = 3


@click.command(
    "export-hats",
    cls=FinkCommand,
    context_settings=CONTEXT,
    epilog="Example: fink-dask export-hats alerts catalog, then in Python: lsdb.open_catalog('catalog')",
)
@click.argument("outdir", type=Place("export-hats"))
@click.argument("catalog", type=Place("export-hats"))
@typed_option(
    "--columns",
    callback=lambda _, __, value: None if value is None else parse_names(parameter("columns"), value),
    metavar="NAME,…",
    help="Columns of the light curves, such as candid,jd,fid,magpsf; by default all with a single value.",
)
@json_option
@verbose_option
def export_hats(outdir: Path, catalog: Path, columns: tuple[str, ...] | None, as_json: bool, verbose: bool) -> int:
    """Write the objects of the dataset OUTDIR as a HATS catalog, which LSDB opens; OUTDIR is only read.

    A row is an object, at the position of its newest alert, with its light curve as a nested column. CATALOG appears
    whole or not at all. Needs hats-import: pip install 'fink-dask[hats]'. Exit status: 0 complete, 1 failed, 3 if the
    dataset lacks alerts of its topic.
    """
    from rich.console import Console
    from rich.progress import Progress as Bar

    from fink_dask.catalog.hats import Caller, unfinished
    from fink_dask.catalog.hats import export_hats as export
    from fink_dask.cli.options import log_to_stderr
    from fink_dask.cluster.local import usable_cores
    from fink_dask.ledger.outdir import check_dataset, find_ledger
    from fink_dask.ledger.progress import summarise

    log_to_stderr(verbose)
    ledger, catalog = find_ledger(outdir.resolve()), catalog.resolve()
    check_dataset(ledger)
    progress = summarise(ledger)
    if progress.missing_offsets:
        missing = counted(progress.missing_offsets, "planned offset")
        say(
            f"fink-dask: warning: {ledger.outdir} is not complete, so neither is the catalog: {missing} missing",
            err=True,
        )
    for left in unfinished(catalog):
        say(f"fink-dask: {left} is from another export, which was killed or is still running", err=True)
    console = Console(stderr=True, highlight=False)
    with Bar(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None, visible=False)
        caller = Caller(
            begin=lambda stage, total: bar.reset(task, description=stage, total=total, visible=True),
            advance=lambda steps: bar.advance(task, steps),
        )
        try:
            exported = export(ledger, catalog, columns, usable_cores(), caller)
        except SignalReceivedError as error:
            bar.stop()
            say(f"fink-dask: stopped; {catalog} was not written", err=True)
            error.said = True
            raise
    _print(progress, exported, catalog, as_json)
    return 0 if progress.summary.state == "complete" else _PARTIAL


def _print(progress: Progress, exported: Exported, catalog: Path, as_json: bool) -> None:
    summary = progress.summary
    if as_json:
        content = {"topic": summary.topic, "state": summary.state, "missing_offsets": progress.missing_offsets}
        print_json({**content, **asdict(exported), "catalog": str(catalog)})
        return
    say(f"{summary.topic}: {counted(exported.objects, 'object')}, {counted(exported.alerts, 'alert')}")
    for number, words in (
        (exported.duplicates, "with the identifier of another one"),
        (exported.without_object, "of no object"),
        (exported.without_position, "without a position"),
    ):
        if number:
            say(f"  left out   {counted(number, 'alert')} {words}")
    say(f"  catalog    {catalog}")
