"""``fink-dask status``: how far a transfer is, also while it runs."""

from __future__ import annotations

from pathlib import Path

import click

from fink_dask.cli.options import CONTEXT, json_option
from fink_dask.errors import LedgerError


@click.command(context_settings=CONTEXT, epilog="Example: fink-dask status alerts")
@click.argument("outdir", type=click.Path(path_type=Path))
@json_option
def status(outdir: Path, as_json: bool) -> int:
    """Say how far the transfer into OUTDIR is; reads the ledger alone, and writes nothing."""
    from fink_dask.cli.results import headline, print_intervals, print_json
    from fink_dask.dataset.lease import is_held
    from fink_dask.dataset.ledger import Ledger
    from fink_dask.dataset.summary import summarise

    ledger = Ledger(outdir.resolve())
    if not ledger.exists():
        raise LedgerError(f"there is no ledger {ledger.path}: no transfer into {ledger.outdir} was planned yet")
    running = is_held(ledger)
    progress = summarise(ledger)
    if as_json:
        print_json(
            progress.summary,
            running=running,
            planned_ranges=progress.planned_ranges,
            planned_offsets=progress.planned_offsets,
            missing_offsets=progress.missing_offsets,
        )
        return 0
    click.echo(headline(progress.summary, running))
    done = progress.planned_offsets - progress.missing_offsets
    share = 100 * done / max(progress.planned_offsets, 1)
    click.echo(
        f"  committed  {share:.0f} %: {done:,} of {progress.planned_offsets:,} offsets, "
        f"{progress.summary.ranges:,} of {progress.planned_ranges:,} ranges"
    )
    click.echo(f"  running    {'yes' if running else 'no'}")
    if progress.missing and not running:
        print_intervals("missing", progress.missing)
        click.echo("  run the same transfer again to go on")
    return 0
