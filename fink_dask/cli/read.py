"""``fink-dask read``: print the lines of Python that open a dataset."""

from __future__ import annotations

from pathlib import Path

import click

from fink_dask.cli.command import Place, command, json_option, offering, typed_option, unique_option
from fink_dask.cli.output import print_json
from fink_dask.errors import SettingsError

#: What installs a reader that does not come with fink-dask, by its name.
_INSTALLED_BY = {
    "fink_dask": "pip install pandas",
    "pandas": "pip install pandas",
    "polars": "pip install polars",
    "DuckDB": "pip install duckdb",
    "Dask": "pip install pandas",
    "nested-pandas": "pip install nested-pandas",
}


def _readers() -> tuple[str, ...]:
    from fink_dask.report.reading import READERS

    return READERS


def _known(_: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    name = next(
        (each for each in _readers() if each.lower().replace("-", "_") == value.lower().replace("-", "_")), None
    )
    if name is None:
        raise click.BadParameter(f"must be one of {', '.join(_readers())}", param=parameter)
    return name


@command("fink-dask read alerts --with polars > look.py")
@click.argument("outdir", type=Place())
@typed_option(
    "--with",
    "reader",
    callback=_known,
    shell_complete=offering(_readers),
    metavar="READER",
    help="Only the lines of this reader: fink_dask, pandas, polars, DuckDB, pyarrow, Dask or nested-pandas.",
)
@unique_option
@json_option
def read(outdir: Path, reader: str | None, unique: bool, as_json: bool) -> int:
    """Print the lines of Python that open the dataset OUTDIR, with its columns and directories.

    What is printed is a program: each reader's part works by itself, and in a file or a notebook. If OUTDIR holds the
    datasets of several topics, they are read as one.
    """
    from fink_dask.cluster.forkserver import do_without_pandas

    do_without_pandas()
    lines = lines_of(outdir.resolve(), str(outdir), reader, unique)
    if as_json:
        print_json({"lines": lines})
    else:
        click.echo(lines, nl=False)
    return 0


def lines_of(outdir: Path, place: str, reader: str | None = None, unique: bool = False) -> str:
    """Write the lines that open a dataset with one reader, or with each.

    `place`: what to call it in the lines.
    Raises LedgerError if there is no dataset, or no alert in it.
    """
    from fink_dask.dataset.read import absent_from, open_dataset
    from fink_dask.dataset.schema_versions import known_versions
    from fink_dask.dataset.season import TOPIC
    from fink_dask.errors import LedgerError
    from fink_dask.ledger.outdir import find_datasets
    from fink_dask.report.reading import find_reading, reading_lines, record_lines
    from fink_dask.settings import RECORD_OUTFORMATS
    from fink_dask.store.location import check_is_local

    ledger, several = find_datasets(outdir)
    identity = None if several else ledger.plans()[-1].identity
    if identity is not None and identity.outformat in RECORD_OUTFORMATS:
        check_is_local(ledger.outdir, f"what reads {identity.outformat.capitalize()} files")
        return f"# fastavro, which comes with fink-dask\n{record_lines(place)}"
    dataset = open_dataset(outdir)
    if next(iter(dataset.get_fragments()), None) is None:
        raise LedgerError(f"{ledger.outdir} holds no alerts: there is nothing to read{absent_from(outdir)}")
    if identity is None:
        # As one dataset, which only the ledgers can make of them.
        reading = find_reading(place, dataset.schema, is_uniform=False, keys=(TOPIC,), is_unique=unique)
        return _joined(outdir, reading_lines(reading), reader)
    is_uniform = len(known_versions(ledger, identity).schemas) == 1
    reading = find_reading(place, dataset.schema, is_uniform, is_unique=unique)
    return _joined(outdir, reading_lines(reading), reader)


def _joined(outdir: Path, lines: dict[str, str], reader: str | None) -> str:
    found = {name: text for name, text in lines.items() if text}
    if reader is not None and reader not in found:
        raise SettingsError(f"{outdir} has no objects with times, of which {reader} could make light curves")
    if reader is not None:
        return found[reader]
    return "\n\n".join(f"# {_heading(name)}\n{text}" for name, text in found.items())


def _heading(reader: str) -> str:
    how = _INSTALLED_BY.get(reader)
    return f"{reader}: {how}" if how else reader
