"""``fink-dask export-hats``: write a dataset's objects with their light curves as a HATS catalog."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fink_dask.cli.command import (
    Place,
    columns_option,
    command,
    json_option,
    log_to_stderr,
    typed_option,
    verbose_option,
)
from fink_dask.cli.output import print_json, say
from fink_dask.cli.stopped import ending_in_words
from fink_dask.units import pluralize

if TYPE_CHECKING:
    from fink_dask.catalog.hats import Exported
    from fink_dask.ledger.summary import Summary

#: Exit status of a catalog that lacks alerts which the topic had.
_PARTIAL = 3


@command("fink-dask export-hats alerts catalog, then in Python: lsdb.open_catalog('catalog')", name="export-hats")
@click.argument("outdir", type=Place())
@click.argument("catalog", type=Place())
@columns_option("Columns of the light curves, such as candid,jd,fid,magpsf; by default all with a single value.")
@typed_option(
    "--history",
    is_flag=True,
    default=None,
    help="Put earlier detections, limits and forced photometry into the light curves, from full packets.",
)
@json_option
@verbose_option
def export_hats(
    outdir: Path, catalog: Path, columns: tuple[str, ...] | None, history: bool | None, as_json: bool, verbose: bool
) -> int:
    """Write the objects of the dataset OUTDIR as a HATS catalog, which LSDB opens; OUTDIR is only read.

    A row is an object, at the position of its newest alert, with its light curve as a nested column. OUTDIR may be a
    directory with the datasets of several topics. If CATALOG is there, the alerts that it lacks are added. Readers find
    all of them or none. Needs hats: pip install 'fink-dask[hats]'. Exit status: 0 complete, 1 failed, 3 if the
    dataset lacks alerts of its topic.
    """
    from fink_dask.catalog.hats import THREAD_BYTES, Caller, unfinished
    from fink_dask.catalog.hats import export_hats as export
    from fink_dask.cluster.local import threads_of_memory
    from fink_dask.ledger.outdir import find_datasets, total_of
    from fink_dask.ledger.summary import summarise
    from fink_dask.show.bar import CountBar

    log_to_stderr(verbose)
    (ledger, several), catalog = find_datasets(outdir.resolve()), catalog.resolve()
    ledgers = several or [ledger]
    found = [summarise(each) for each in ledgers]
    for each, progress in zip(ledgers, found, strict=True):
        if progress.missing_offsets:
            missing = pluralize(progress.missing_offsets, "planned offset")
            say(
                f"fink-dask: warning: {each.outdir} is not complete, so neither is the catalog: {missing} missing",
                err=True,
            )
    for left in unfinished(catalog):
        say(f"fink-dask: {left} is from another export, which was killed or is still running", err=True)
    threads = threads_of_memory(THREAD_BYTES)
    is_new = not catalog.exists()
    end = f"{catalog} was not written" if is_new else f"{catalog} is as it was; the same command begins again"
    with ending_in_words(end), CountBar("reading alerts", noun="alert") as bar:
        exported = export(ledger.outdir, catalog, columns, history, threads, Caller(bar.begin, bar.advance))
    summary = found[0].summary if len(found) == 1 else total_of([progress.summary for progress in found])
    missing_offsets = sum(progress.missing_offsets for progress in found)
    _print(summary, missing_offsets, exported, catalog, as_json)
    return 0 if summary.state == "complete" else _PARTIAL


def _print(summary: Summary, missing_offsets: int, exported: Exported, catalog: Path, as_json: bool) -> None:
    from fink_dask.catalog.form import MOVERS

    if as_json:
        content = {"topic": summary.topic, "state": summary.state, "missing_offsets": missing_offsets}
        print_json({**content, **asdict(exported), "catalog": str(catalog)})
        return
    say(f"{summary.topic}: {pluralize(exported.objects, 'object')}, {pluralize(exported.alerts, 'alert')}")
    if not exported.added:
        say("  nothing new: the catalog has all alerts of the dataset")
    elif exported.added != exported.alerts:
        say(f"  added      {pluralize(exported.added, 'alert')}")
    for number, words in (
        (exported.duplicates, "with the identifier of another one"),
        (exported.without_position, "without a position"),
    ):
        if number:
            say(f"  left out   {pluralize(number, 'alert')} {words}")
    if exported.left_out:
        say(f"  left out   columns that the catalog was begun without: {', '.join(exported.left_out)}")
    say(f"  catalog    {catalog}")
    if exported.movers:
        say(f"  movers     {catalog / MOVERS}: {pluralize(exported.movers, 'alert')} of no object")
