"""``fink-dask repair``: fetch again from Kafka what the files of a dataset no longer hold."""

from __future__ import annotations

from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fink_dask.cli.cluster import asked_cluster, cluster_options
from fink_dask.cli.command import (
    Place,
    command,
    config_option,
    connection_options,
    json_option,
    kafka_settings,
    line_options,
    log_to_stderr,
    survey_of_dataset,
    typed_option,
    verbose_option,
)
from fink_dask.cli.output import say
from fink_dask.cli.stopped import ending_as_json
from fink_dask.settings import ON_LOSS

if TYPE_CHECKING:
    from fink_dask.progress.tally import Progress


@command("fink-dask repair alerts")
@click.argument("outdir", type=Place())
@typed_option(
    "--on-loss",
    type=click.Choice(ON_LOSS),
    default="fail",
    show_default=True,
    help="If Kafka no longer has all of what is missing: fail and leave the files as they are, or continue: fetch what "
    "is left, declare the rest lost, and remove the damaged files.",
)
@connection_options
@line_options
@cluster_options
@json_option
@verbose_option
@config_option
def repair(outdir: Path, on_loss: str, as_json: bool, verbose: bool, **given: Any) -> int:
    """Make the dataset OUTDIR whole again: fetch what verify finds missing or damaged, and nothing else.

    Exit status: 0 complete, 1 something could not be repaired, 3 complete except for quarantined or lost alerts.
    """
    from fink_dask.ledger.outdir import find_ledger

    where, ledger = asked_cluster(given), find_ledger(outdir.resolve())
    kafka = kafka_settings(survey_of_dataset(ledger), **given)
    if where.is_here:
        from fink_dask.cluster.forkserver import start_forkserver

        start_forkserver()  # loads what workers need while the files are checked
    from fink_dask.cli.results import headline, print_summary_json
    from fink_dask.ledger.summary import written_bytes
    from fink_dask.show.bar import CountBar
    from fink_dask.show.display import Display
    from fink_dask.units import pluralize
    from fink_dask.verifying.repair import run_repair

    log_to_stderr(verbose)
    chosen = where.resolve()
    with ending_as_json(ledger, as_json), ExitStack() as stack:
        bar = stack.enter_context(CountBar("checking", written_bytes(ledger)))

        @cache
        def show() -> Progress:
            bar.stop()  # a terminal has one live display at a time
            return stack.enter_context(Display())

        found = run_repair(ledger, kafka, show, bar.advance, on_loss, chosen)
    if as_json:
        left, foreign = list(found.left), [str(path) for path in found.foreign]
        print_summary_json(
            found.summary, repaired_ranges=found.ranges, read_again=found.offsets, left=left, foreign=foreign
        )
        return found.summary.exit_code
    say(headline(found.summary))
    if found.ranges:
        ranges, offsets = pluralize(found.ranges, "range"), pluralize(found.offsets, "offset")
        say(f"  repaired   {ranges}, for which {offsets} were read again")
    else:
        say("  nothing was repaired")
    for words in found.left:
        say(f"  left as it is: {words}")
    for path in found.foreign:
        say(f"  no range wrote {path}: remove it, so that its alerts are not read twice")
    return found.summary.exit_code
