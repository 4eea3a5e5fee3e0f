"""``fink-dask season``: make one season of the datasets in a directory, which every reader opens as it is."""

from __future__ import annotations

from pathlib import Path

import click

from fink_dask.cli.command import Place, command, json_option
from fink_dask.cli.output import print_json, say
from fink_dask.units import pluralize


@command("fink-dask season nights")
@click.argument("outdir", type=Place("season"))
@json_option
def season(outdir: Path, as_json: bool) -> int:
    """Move the ledgers of the datasets in OUTDIR beside it, so that nothing but alerts is below OUTDIR.

    Transfers of several topics put them there by themselves. Datasets of older versions, or that you have moved into
    one directory, have them inside, where pandas, polars and others stumble over them. No alert is touched.

    So two nights become one: mkdir nights; mv alerts alerts.fink nights; fink-dask season nights; and then transfer the
    second one with --outdir nights.
    """
    from fink_dask.ledger.ledger import ledgers_path
    from fink_dask.ledger.outdir import gather_ledgers

    place = outdir.resolve()
    ledgers, moved = gather_ledgers(place)
    if as_json:
        names = [ledger.outdir.name for ledger in ledgers]
        print_json({"datasets": names, "moved": moved, "ledgers": str(ledgers_path(place))})
        return 0
    say(f"{outdir}: {pluralize(len(ledgers), 'dataset')}, {pluralize(moved, 'ledger')} moved")
    say(f"  ledgers    {ledgers_path(place)}")
    return 0
