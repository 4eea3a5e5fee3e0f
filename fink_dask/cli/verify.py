"""``fink-dask verify``: prove that a dataset is what its ledger says."""

from __future__ import annotations

from pathlib import Path

import click

from fink_dask.cli.options import CONTEXT, json_option, verbose_option

_SHOWN_PROBLEMS = 20


@click.command(context_settings=CONTEXT, epilog="Example: fink-dask verify alerts")
@click.argument("outdir", type=click.Path(path_type=Path))
@json_option
@verbose_option
def verify(outdir: Path, as_json: bool, verbose: bool) -> int:
    """Check files, rows, checksums and offsets of the dataset OUTDIR against its ledger.

    Exit status: 0 complete, 1 offsets are missing or files are not what was written, 3 complete but for alerts that
    were quarantined or lost.
    """
    from rich.console import Console
    from rich.progress import Progress

    from fink_dask.cli.log import log_to_stderr
    from fink_dask.cli.results import headline, print_intervals, print_json
    from fink_dask.dataset.ledger import Ledger
    from fink_dask.dataset.summary import summarise
    from fink_dask.dataset.verify import verify_dataset

    log_to_stderr(verbose)
    ledger = Ledger(outdir.resolve())
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        size = summarise(ledger).summary.written_bytes if ledger.exists() else 0
        task = bar.add_task("verifying", total=size)
        found = verify_dataset(ledger, lambda checked: bar.advance(task, checked))
    summary = found.summary
    if as_json:
        print_json(summary, problems=list(found.problems), missing=found.progress.missing)
        return summary.exit_code
    click.echo(headline(summary))
    for problem in found.problems[:_SHOWN_PROBLEMS]:
        click.echo(f"  {problem}")
    if len(found.problems) > _SHOWN_PROBLEMS:
        click.echo(f"  and {len(found.problems) - _SHOWN_PROBLEMS:,} more (--json lists all)")
    print_intervals("missing", found.progress.missing)
    if found.progress.missing:
        click.echo("  run the same transfer again to go on")
    print_intervals("lost", found.progress.lost)
    if not found.problems and not found.progress.missing:
        click.echo(f"  every one of {found.progress.planned_offsets:,} planned offsets is accounted for, once")
    return summary.exit_code
