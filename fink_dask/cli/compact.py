"""``fink-dask compact``: rewrite a dataset of many small files as one of few large ones."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from fink_dask.cli.options import CONTEXT, FinkCommand, Place, json_option, typed_option, verbose_option
from fink_dask.cli.say import say
from fink_dask.cli.stopped import ending_as_json
from fink_dask.settings import COMPRESSION, COMPRESSIONS
from fink_dask.units import counted


@click.command(
    cls=FinkCommand,
    context_settings=CONTEXT,
    epilog="Example: fink-dask compact alerts compacted, or fink-dask compact alerts compacted --unique candid",
)
@click.argument("outdir", type=Place("compact"))
@click.argument("newdir", type=Place("compact"))
@typed_option(
    "--file-size",
    default="256MiB",
    show_default=True,
    metavar="BYTES",
    help="About how large each file is to be.",
)
@typed_option(
    "--unique",
    metavar="COLUMN",
    help="Of alerts with the same value, such as candid or diaSourceId, keep only the first in Kafka's order.",
)
@typed_option(
    "--compression", type=click.Choice(COMPRESSIONS), default=COMPRESSION, show_default=True, help="Codec of the files."
)
@json_option
@verbose_option
def compact(
    outdir: Path, newdir: Path, file_size: str, unique: str | None, compression: str, as_json: bool, verbose: bool
) -> int:
    """Rewrite the dataset OUTDIR as NEWDIR, with a few large files; OUTDIR is left as it is.

    NEWDIR appears once it is complete, with its own ledger, which verify can check. If stopped, run the same command
    again to continue. Exit status: 0 complete, 1 failed, 3 if OUTDIR is incomplete, or alerts were quarantined or lost.
    """
    from fink_dask.cli.options import log_to_stderr
    from fink_dask.cli.results import headline, print_summary_json
    from fink_dask.cluster.local import usable_cores, usable_memory
    from fink_dask.compaction.compact import THREAD_BYTES, Caller, compact_dataset
    from fink_dask.compaction.groups import Form
    from fink_dask.ledger.ledger import Ledger
    from fink_dask.show.bar import CountBar
    from fink_dask.units import parse_memory

    log_to_stderr(verbose)
    form = Form(parse_memory("--file-size", file_size), unique, compression)
    threads = max(1, min(usable_cores(), usable_memory() // (2 * THREAD_BYTES)))
    source, target = Ledger(outdir.resolve()), Ledger(newdir.resolve())
    with ending_as_json(source, as_json), CountBar("compacting") as bar:
        caller = Caller(note=lambda words: say(f"fink-dask: {words}", err=True), plan=bar.plan, advance=bar.advance)
        found = compact_dataset(source, target, form, threads, caller)
    # The new dataset is only as complete as the old one.
    exit_code = 0 if found.summary.state == "complete" else 3
    if as_json:
        print_summary_json(found.summary, files_before=found.files_before, form=asdict(form), is_new=found.is_new)
        return exit_code
    say(headline(found.summary))
    if not found.is_new:
        say("  nothing to do: it was already compacted")
    say(f"  compacted  {counted(found.files_before, 'file')} into {counted(found.summary.files, 'file')}")
    if unique is not None:
        say(f"  unique     {counted(found.summary.duplicates, 'duplicate')} left out, by {unique}")
    say(f"  dataset    {target.outdir}")
    say(f"  ledger     {target.path}")
    if found.summary.state == "interrupted":
        say("  the old dataset lacks some of its planned offsets, and so does this one: transfer into it to fetch them")
    return exit_code
