"""Several topics on the command line: how they are given, and what is printed of them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fink_dask.cli.command import option
from fink_dask.cli.output import print_json, say
from fink_dask.errors import FinkDaskError
from fink_dask.kafka.topics import TopicChoice, survey_of
from fink_dask.settings import WHAT, TransferSettings
from fink_dask.units import per_second, pluralize, printable

if TYPE_CHECKING:
    from fink_dask.cluster.jobspec import JobSpec
    from fink_dask.ledger.ledger import Ledger
    from fink_dask.ledger.summary import Summary
    from fink_dask.planning.forecast import Machine
    from fink_dask.progress.profile import Profile
    from fink_dask.running.run import TopicsOutcome

topic_option = option(
    "--topic",
    "topics",
    group=WHAT,
    required=True,
    multiple=True,
    metavar="NAME",
    help="The topic that the portal named. Repeat it, or give a pattern such as 'ftransfer_lsst_2026-*', for several "
    "topics: each then has its own dataset, OUTDIR/TOPIC, and --follow picks up those that appear later.",
)


def survey_of_topics(choice: TopicChoice) -> str | None:
    """Find the survey that all names and patterns agree on, which says where to look up the servers."""
    found = {survey_of(name) for name in (*choice.names, *choice.patterns)}
    return found.pop() if len(found) == 1 else None


def ledgers_of(settings: TransferSettings, choice: TopicChoice) -> list[Ledger]:
    """List the existing datasets of the topics that are meant; Kafka is not asked."""
    from fink_dask.ledger.outdir import datasets_in, find_ledger

    if not choice.is_several:
        ledger = find_ledger(settings.outdir)
        return [ledger] if ledger.exists() else []
    found = {ledger.outdir.name: ledger for ledger in datasets_in(settings.outdir)}
    return [found[name] for name in choice.of(found) if name in found]


def print_outcome(outcome: TopicsOutcome, outdir: Path, as_json: bool, profile: Profile | None) -> int:
    """Print what has become of each topic and of all together; returns the worst exit status."""
    from fink_dask.cli.results import print_profile
    from fink_dask.ledger.outdir import total_of

    summaries = [each.summary for each in outcome.topics]
    errors = {each.summary.topic: str(each.error) for each in outcome.topics if each.error is not None}
    if as_json:
        more = {} if profile is None else {"profile": profile.to_json()}
        details = [{} if each.error is None else {"error": str(each.error)} for each in outcome.topics]
        print_topics_json(summaries, details, outcome.profile.seconds, **more)
        return total_of(summaries).exit_code
    print_table(summaries)
    total = total_of(summaries)
    if total.run_alerts:
        seconds = max(outcome.profile.seconds, 1e-3)
        speed = per_second(total.run_alerts / seconds, "alert")
        say(f"  this run   {pluralize(total.run_alerts, 'alert')} in {seconds:.1f} s, start included ({speed})")
    if total.alerts:
        say(f"  datasets   {outdir}/TOPIC")
        say(f"  ledgers    {outdir}.fink/TOPIC")
    if profile is not None:
        print_profile(profile)
    if total.quarantined:
        say(f"  records that could not be decoded are in {outdir}.fink/TOPIC/quarantine")
    for topic, words in errors.items():
        say(f"  {words if words.startswith(topic) else f'{topic}: {words}'}")
    return total.exit_code


def print_table(
    summaries: Sequence[Summary], states: Sequence[str] | None = None, datasets: Sequence[str] = ()
) -> None:
    """Print a line for each topic, or for each dataset where these have names of their own, and one for all of them.

    On a terminal that is too narrow for a table, each has two lines.
    """
    from fink_dask.cli.results import STATE_COLOURS
    from fink_dask.ledger.outdir import total_of

    total = total_of(summaries)
    rows = [*map(printable, datasets or [summary.topic for summary in summaries]), total.topic]
    if datasets and list(datasets) != [summary.topic for summary in summaries]:
        rows[-1] = pluralize(len(datasets), "dataset")
    shown = [*(states or [summary.state for summary in summaries]), total.state]
    others = [name for name in ("handed_over", "filtered") if getattr(total, name)]
    names = ["alerts", *others, "quarantined", "lost", "files"]
    each = list(zip(rows, (*summaries, total), shown, strict=True))
    # No wider than necessary: with topics of the usual length it fits a terminal of 80 columns.
    width = max(map(len, rows))
    wide = {name: max(len(name), len(f"{getattr(total, name):,}")) for name in names}
    widest = max(map(len, shown))
    heads = "".join(f"  {name.replace('_', ' '):>{wide[name]}}" for name in names)
    head = f"{'':{width}}  {'state':{widest}}{heads}"
    if sys.stdout.isatty() and len(head) > shutil.get_terminal_size().columns:
        for row, summary, state in each:
            counts = "".join(f", {name.replace('_', ' ')} {getattr(summary, name):,}" for name in names)
            say(f"{row}\n  {state}{counts}")
        return
    click.echo(head)
    for row, summary, state in each:
        word = click.style(f"{state:{widest}}", fg=STATE_COLOURS[summary.state], bold=True)
        counts = "".join(f"  {getattr(summary, name):>{wide[name]},}" for name in names)
        click.echo(f"{row:{width}}  {word}{counts}")


def print_topics_json(
    summaries: Sequence[Summary],
    details: Sequence[Mapping[str, Any]] = (),
    run_seconds: float = 0.0,
    **more: Any,
) -> None:
    """Print one JSON object: for each topic what it would be alone, and its details, then the worst state and sums."""
    from fink_dask.ledger.outdir import total_of

    each = [asdict(summary) | {"run_seconds": round(summary.run_seconds, 3)} for summary in summaries]
    if details:
        each = [{**summary, **about} for summary, about in zip(each, details, strict=True)]
    totals = asdict(total_of(summaries)) | {"run_seconds": round(run_seconds, 3)}
    del totals["topic"]
    print_json({"topics": each} | totals | more)


def preview_topics(
    settings: TransferSettings,
    machine: Machine,
    choice: TopicChoice,
    restart: bool,
    as_json: bool,
    jobs: JobSpec | None,
) -> int:
    """Say what a transfer of several topics would do for each, and in what jobs; returns the exit status."""
    from fink_dask.cli.results import outlook_json, print_job_script, print_outlook
    from fink_dask.cluster.jobqueue import job_script
    from fink_dask.ledger.outdir import find_ledger
    from fink_dask.planning.preview import lack_of_room, preview_each
    from fink_dask.progress.events import Doing
    from fink_dask.show.display import Display

    with Display() as progress:
        progress(Doing("looking at the topics, and measuring the line"))
        found = preview_each(settings, machine, choice, restart, progress)
    outlooks = [each for each in found.values() if not isinstance(each, FinkDaskError)]
    lack = lack_of_room(outlooks, settings)
    failed = len(outlooks) < len(found) or lack is not None
    # The jobs work on all topics; their keys and logs are in the first one's ledger.
    script = None if jobs is None else job_script(jobs, find_ledger(settings.outdir / next(iter(found)), joins=True))
    if as_json:
        content = [
            {"topic": topic, "error": str(each)} if isinstance(each, FinkDaskError) else outlook_json(each)
            for topic, each in found.items()
        ]
        more = {} if lack is None else {"state": "failed", "error": str(lack)}
        print_json({"topics": content} | more | ({} if script is None else {"job_script": script}))
        return int(failed)
    for topic, each in found.items():
        if isinstance(each, FinkDaskError):
            words = str(each)
            say(f"{words if words.startswith(topic) else f'{topic}: {words}'}")
        else:
            print_outlook(each, settings.outdir / topic, as_json=False)
    if lack is not None:
        say(f"all together would be refused: {lack}")
    if script is not None:
        print_job_script(script)
    return int(failed)
