"""``fink-dask report``: a dataset on one HTML page, to look at and to share."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fink_dask.cli.options import CONTEXT, FinkCommand, Place, UserPath, typed_option
from fink_dask.cli.say import say
from fink_dask.errors import FinkDaskError, SettingsError, StorageError
from fink_dask.units import counted

if TYPE_CHECKING:
    from fink_dask.ledger.ledger import Ledger

#: Bytes of a file in which a page says what it is.
_HEAD_BYTES = 2000


@click.command(
    cls=FinkCommand, context_settings=CONTEXT, epilog="Example: fink-dask report alerts -o report.html --open"
)
@click.argument("outdir", type=Place())
@typed_option(
    "--output",
    "-o",
    type=UserPath(dir_okay=False, path_type=Path),
    default=Path("report.html"),
    show_default=True,
    help="File to write; an older report is replaced, any other file is not.",
)
@typed_option("--open", "opens", is_flag=True, help="Open the page in a browser.")
def report(outdir: Path, output: Path, opens: bool) -> int:
    """Show the dataset OUTDIR on one page: a self-contained HTML file that loads nothing from elsewhere.

    It shows progress, the sky, brightness, nights, classes, a few alerts with cutouts and light curves, speed,
    partitions, quarantine and losses. OUTDIR is only read, even while a transfer runs; of a large dataset only a sample
    is read, and the page says so. Cutouts need astropy: pip install 'fink-dask[report]'.

    If OUTDIR holds the datasets of several topics, each gets a page of its own, such as report-TOPIC.html.
    """
    from fink_dask.ledger.ledger import Ledger
    from fink_dask.ledger.outdir import datasets_in

    ledger = Ledger(outdir.resolve())
    several = [] if ledger.exists() else datasets_in(ledger.outdir)
    if several:
        if opens:
            raise SettingsError(
                f"--open shows one page, but {outdir} holds datasets of {counted(len(several), 'topic')}: name one, "
                f"such as {outdir / several[0].outdir.name}"
            )
        if not all(map(_is_of_several, several)):
            raise SettingsError(
                f"{outdir} is a directory in which {counted(len(several), 'dataset')} happen to be: name one, such as "
                f"{outdir / several[0].outdir.name}"
            )
        return _write_each(several, outdir, output)
    _write(ledger, outdir, output)
    if opens and not webbrowser.open(output.resolve().as_uri()):
        say(f"fink-dask: warning: no browser was found; open {output} in one", err=True)
    return 0


def _is_of_several(ledger: Ledger) -> bool:
    """Tell whether a dataset has its topic's name, as where several topics are transferred together."""
    try:
        return all(plan.identity.topic == ledger.outdir.name for plan in ledger.plans()[:1])
    except FinkDaskError:  # it is said where its page is made
        return True


def _write_each(ledgers: list[Ledger], outdir: Path, output: Path) -> int:
    """Write a page for each of several topics; one that fails does not stop the others."""
    failed = False
    for ledger in ledgers:
        topic = ledger.outdir.name
        try:
            _write(ledger, outdir / topic, output.with_stem(f"{output.stem}-{topic}"))
        except FinkDaskError as error:
            failed = True
            say(f"fink-dask: error: {error if topic in str(error) else f'{topic}: {error}'}", err=True)
    return int(failed)


def _write(ledger: Ledger, outdir: Path, output: Path) -> None:
    """Write the page of a dataset, and say so."""
    from datetime import UTC, datetime

    from rich.filesize import decimal

    import fink_dask
    from fink_dask.ledger.ledger import storage_error
    from fink_dask.report.facts import find_facts
    from fink_dask.report.page import render
    from fink_dask.report.panels import find_panels
    from fink_dask.store.durable import replace_file

    target = output.resolve()
    _check_target(ledger, target)
    facts = find_facts(ledger)
    page = render(facts, find_panels(ledger, facts), str(outdir), fink_dask.__version__, datetime.now(UTC))
    content = page.encode()
    try:
        replace_file(target, content)
    except OSError as error:
        raise storage_error(error, target) from error
    click.echo(f"{output}: {decimal(len(content))}")


def _check_target(ledger: Ledger, target: Path) -> None:
    """Refuse to write into a dataset, or over a file that is not a report."""
    if not target.parent.is_dir():
        raise StorageError(f"{target.parent} is not a directory: make it first, or choose another with -o")
    if {ledger.outdir, ledger.path} & set(target.parents):
        raise StorageError(
            f"{target} is inside the dataset, whose readers would take it for alerts: choose another place"
        )
    if target.exists() and not _is_report(target):
        raise StorageError(f"{target} exists and is not a report: choose another name with -o, or remove it")


def _is_report(path: Path) -> bool:
    """Tell whether a file is a report; a pipe is not, and reading it might wait for ever."""
    from fink_dask.ledger.ledger import storage_error
    from fink_dask.report.page import GENERATOR

    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return GENERATOR.encode() in file.read(_HEAD_BYTES)
    except OSError as error:
        raise storage_error(error, path) from error
