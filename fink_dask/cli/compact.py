"""``fink-dask compact``: rewrite a dataset of many small files as one of few large ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fink_dask.cli.cluster import asked_cluster, cluster_options
from fink_dask.cli.command import (
    Place,
    command,
    config_option,
    json_option,
    log_to_stderr,
    typed_option,
    verbose_option,
)
from fink_dask.cli.output import say
from fink_dask.cli.stopped import ending_as_json
from fink_dask.errors import FinkDaskError, SettingsError
from fink_dask.settings import COMPRESSION, COMPRESSIONS
from fink_dask.units import pluralize

if TYPE_CHECKING:
    from fink_dask.cluster.choice import ClusterChoice
    from fink_dask.compaction.compact import Caller, Compacted
    from fink_dask.compaction.groups import Form
    from fink_dask.compaction.task import Merger
    from fink_dask.ledger.ledger import Ledger
    from fink_dask.ledger.summary import Summary


@command("fink-dask compact alerts compacted, or fink-dask compact alerts compacted --unique candid")
@click.argument("outdir", type=Place())
@click.argument("newdir", type=Place())
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
    help="Of alerts with the same value, such as candid or diaSourceId, keep only the first, by topic and in Kafka's "
    "order.",
)
@typed_option(
    "--compression", type=click.Choice(COMPRESSIONS), default=COMPRESSION, show_default=True, help="Codec of the files."
)
@cluster_options
@json_option
@verbose_option
@config_option
def compact(
    outdir: Path,
    newdir: Path,
    file_size: str,
    unique: str | None,
    compression: str,
    as_json: bool,
    verbose: bool,
    **given: Any,
) -> int:
    """Rewrite the dataset OUTDIR as NEWDIR, with a few large files; OUTDIR is left as it is.

    NEWDIR appears once it is complete, with its own ledger, which verify can check. If stopped, run the same command
    again to continue. Exit status: 0 complete, 1 failed, 3 if OUTDIR is incomplete, or alerts were quarantined or lost.

    If OUTDIR holds the datasets of several topics, each becomes NEWDIR/TOPIC, and the worst exit status counts;
    --unique then leaves an alert out where another topic in NEWDIR has it.
    """
    from fink_dask.cli.results import headline, print_summary_json
    from fink_dask.compaction.groups import Form
    from fink_dask.ledger.outdir import find_datasets, find_ledger
    from fink_dask.units import parse_memory

    chosen = asked_cluster(given).resolve()
    log_to_stderr(verbose)  # after the import of Dask, which sets up its own logging
    form = Form(parse_memory("--file-size", file_size), unique, compression)
    (source, several), target = find_datasets(outdir.resolve()), find_ledger(newdir.resolve())
    if several:
        return _compact_each(several, newdir.resolve(), form, chosen, as_json)
    if source.is_of_season and target.outdir.parent == source.outdir.parent:
        raise SettingsError(
            f"{target.outdir} would be read with the other topics in {target.outdir.parent}: choose another directory"
        )
    _check_no_season(source, target)
    with ending_as_json(source, as_json):
        found = _compact(source, target, form, chosen)
    # The new dataset is only as complete as the old one.
    exit_code = 0 if found.summary.state == "complete" else 3
    if as_json:
        print_summary_json(found.summary, **_details(found, form))
        return exit_code
    say(headline(found.summary))
    if not found.is_new:
        say("  nothing to do: it was already compacted")
    say(f"  compacted  {pluralize(found.files_before, 'file')} into {pluralize(found.summary.files, 'file')}")
    if unique is not None:
        say(f"  unique     {pluralize(found.summary.duplicates, 'duplicate')} left out, by {unique}")
    say(f"  dataset    {target.outdir}")
    say(f"  ledger     {target.path}")
    if found.summary.state == "interrupted":
        say("  the old dataset lacks some of its planned offsets, and so does this one: transfer into it to fetch them")
    return exit_code


def _check_no_season(source: Ledger, target: Ledger) -> None:
    """Refuse to make one dataset of a directory that has several, and say where in it the new one may be."""
    from fink_dask.ledger.outdir import datasets_in

    if target.exists() or not (there := datasets_in(target.outdir)):
        return
    topic, remedy = source.begun_with().topic, "choose another directory"
    if all(each.begun_with().topic != topic for each in there):  # else each alert would be there twice
        remedy += f", or name the new dataset in it, such as {target.outdir / topic}"
    raise SettingsError(f"{target.outdir} holds the datasets of several topics: {remedy}")


def _compact(source: Ledger, target: Ledger, form: Form, chosen: ClusterChoice) -> Compacted:
    from fink_dask.compaction.compact import compact_dataset

    with _told(chosen) as (merger, caller):
        return compact_dataset(source, target, form, merger, caller)


@contextmanager
def _told(chosen: ClusterChoice, is_season: bool = False) -> Iterator[tuple[Merger, Caller]]:
    """Yield what writes the files, and whom to tell how far it is."""
    from fink_dask.cluster.local import threads_of_memory
    from fink_dask.compaction.compact import Caller
    from fink_dask.compaction.task import THREAD_BYTES
    from fink_dask.running.merging import merging_on
    from fink_dask.show.bar import CountBar

    def note(words: str) -> None:
        say(f"fink-dask: {words}", err=True)

    threads = threads_of_memory(THREAD_BYTES)
    with CountBar("compacting") as bar, merging_on(chosen, threads, is_season, note) as merger:
        yield merger, Caller(note, lambda size: bar.begin("compacting", size), bar.advance)


def _details(found: Compacted, form: Form) -> dict[str, Any]:
    """Return what ``--json`` prints besides the summary."""
    return {"files_before": found.files_before, "form": asdict(form), "is_new": found.is_new}


def _compact_each(sources: Sequence[Ledger], newdir: Path, form: Form, chosen: ClusterChoice, as_json: bool) -> int:
    """Compact the datasets of several topics, in turn; one that fails does not stop the others."""
    from fink_dask.cli.several import print_table, print_topics_json
    from fink_dask.compaction.season import compact_season
    from fink_dask.ledger.outdir import check_for_several
    from fink_dask.ledger.summary import without_figures

    check_for_several(newdir)
    if newdir == sources[0].outdir.parent:
        raise SettingsError("the new datasets need a directory of their own: the old ones are left untouched")
    summaries: list[Summary] = []
    details: list[dict[str, Any]] = []
    errors: dict[str, str] = {}
    before = 0
    ledgers = {source.outdir.name: source for source in sources}
    with _told(chosen, is_season=True) as (merger, caller):
        done = compact_season(sources, newdir, form, merger, caller)
    for name, found in done.items():
        if isinstance(found, FinkDaskError):
            errors[name] = str(found)
            summaries.append(without_figures(ledgers[name]))
            details.append({"dataset": name, "error": str(found)})
            continue
        before += found.files_before
        summaries.append(found.summary)
        details.append({"dataset": name, **_details(found, form)})
    exit_code = 1 if errors else 0 if all(each.state == "complete" for each in summaries) else 3
    if as_json:
        print_topics_json(summaries, details)
        return exit_code
    print_table(summaries, datasets=[source.outdir.name for source in sources])
    say(f"  compacted  {pluralize(before, 'file')} into {pluralize(sum(each.files for each in summaries), 'file')}")
    if form.unique is not None:
        duplicates = sum(each.duplicates for each in summaries)
        say(f"  unique     {pluralize(duplicates, 'duplicate')} left out, by {form.unique}")
    say(f"  datasets   {newdir}/TOPIC")
    say(f"  ledgers    {newdir}.fink/TOPIC")
    for name, words in errors.items():
        say(f"  {words if name in words else f'{name}: {words}'}")
    return exit_code
