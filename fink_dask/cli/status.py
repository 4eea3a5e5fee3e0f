"""``fink-dask status``: how far a transfer is, also while it runs."""

from __future__ import annotations

import time
from pathlib import Path

import click

from fink_dask.cli.options import CONTEXT, json_option
from fink_dask.errors import LedgerError

#: Seconds after which the lag of a topic that is followed says nothing any more; it is kept every two.
_LAG_S = 30.0


@click.command(context_settings=CONTEXT, epilog="Example: fink-dask status alerts")
@click.argument("outdir", type=click.Path(path_type=Path))
@json_option
def status(outdir: Path, as_json: bool) -> int:
    """Say how far the transfer into OUTDIR is; reads the ledger alone, and writes nothing."""
    from fink_dask.cli.results import headline, print_intervals, print_json
    from fink_dask.cli.words import lag_words
    from fink_dask.dataset.lag import freshness_s, read_lag
    from fink_dask.dataset.lease import is_held
    from fink_dask.dataset.ledger import Ledger
    from fink_dask.dataset.summary import summarise

    ledger = Ledger(outdir.resolve())
    if not ledger.exists():
        raise LedgerError(f"there is no ledger {ledger.path}: no transfer into {ledger.outdir} was planned yet")
    running = is_held(ledger)
    progress = summarise(ledger)
    lag = read_lag(ledger, _LAG_S) if running else None
    if as_json:
        print_json(
            progress.summary,
            running=running,
            planned_ranges=progress.planned_ranges,
            planned_offsets=progress.planned_offsets,
            missing_offsets=progress.missing_offsets,
            freshness_s=freshness_s(progress.newest_ms, time.time()),
            lag=None if lag is None else {"total": lag.total, "partitions": lag.partitions},
            alerts_per_second=None if lag is None else lag.alerts_per_second,
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
    if lag is not None:
        click.echo(f"  following  {lag_words(lag)}, {lag.alerts_per_second:,.0f} alerts/s")
    if progress.missing and not running:
        print_intervals("missing", progress.missing)
        click.echo("  run the same transfer again to go on")
    return 0
