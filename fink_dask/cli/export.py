"""``fink-dask export``: a dataset, or some of it, as one table for other programs."""

from __future__ import annotations

from pathlib import Path

import click

from fink_dask.cli.command import Place, UserPath, columns_option, command, json_option, typed_option, unique_option
from fink_dask.cli.output import print_json, say
from fink_dask.cli.stopped import ending_in_words
from fink_dask.units import pluralize


@command("fink-dask export alerts bright.fits --columns objectId,jd,magpsf --where 'magpsf < 17'")
@click.argument("outdir", type=Place())
@click.argument("file", type=UserPath(path_type=Path, dir_okay=False))
@columns_option("Columns, or dotted fields such as candidate.jd; by default all that are single values.")
@typed_option("--where", metavar="CONDITION", help="Only alerts that this is true of, such as 'magpsf < 18'.")
@unique_option
@json_option
def export(
    outdir: Path, file: Path, columns: tuple[str, ...] | None, where: str | None, unique: bool, as_json: bool
) -> int:
    """Write the alerts of the dataset OUTDIR as one table, for astropy, TOPCAT, a spreadsheet or a colleague.

    FILE ends in .fits, .vot, .csv or .parquet, and appears whole or not at all. Fields of structs become columns with
    dotted names; lists, maps and cutouts have no place in a table. Identifiers keep all their digits. FITS needs
    astropy: pip install 'fink-dask[report]'.
    """
    from fink_dask.export.table import export_table
    from fink_dask.show.bar import CountBar

    with ending_in_words(f"{file} was not written"), CountBar("reading alerts", noun="alert") as bar:
        made = export_table(outdir, file.absolute(), columns, where, unique, bar.begin, bar.advance)
    if not made.rows:
        from fink_dask.cli.results import say_absent

        say_absent(outdir, "no alert for it")
    if as_json:
        print_json({"file": str(file), "rows": made.rows, "columns": made.columns, "left_out": made.left_out})
        return 0
    say(f"{file}: {pluralize(made.rows, 'alert')}, {pluralize(len(made.columns), 'column')}")
    if made.left_out:
        say(f"  left out   {', '.join(made.left_out)}: a table has no place for them")
    return 0
