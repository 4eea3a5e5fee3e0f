"""``fink-dask report``: a dataset on one HTML page, to look at and to share."""

from __future__ import annotations

import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fink_dask.cli.command import Place, UserPath, command, json_option, typed_option
from fink_dask.cli.output import deliver, is_stdout, is_streamed, print_failure, print_json, say
from fink_dask.errors import FinkDaskError, SettingsError

if TYPE_CHECKING:
    from fink_dask.report.facts import Facts

_MAX_OBJECTS = 50
#: Bytes of a file in which a page says what it is.
_HEAD_BYTES = 2000


@command("fink-dask report alerts -o report.html --open")
@click.argument("outdir", type=Place())
@typed_option(
    "--output",
    "-o",
    type=UserPath(dir_okay=False, path_type=Path),
    default=Path("report.html"),
    show_default=True,
    help="File to write; an older report of the same dataset is replaced, any other file is not.",
)
@typed_option("--open", "opens", is_flag=True, help="Open the page in a browser.")
@typed_option(
    "--object",
    "objects",
    multiple=True,
    metavar="NAME",
    help="Show this object, with its whole light curve and its newest cutouts, instead of a few alerts; repeatable.",
)
@json_option
def report(outdir: Path, output: Path, opens: bool, objects: tuple[str, ...], as_json: bool) -> int:
    """Show the dataset OUTDIR on one page: a self-contained HTML file that loads nothing from elsewhere.

    It shows progress, the sky, brightness, nights, classes, a few alerts with cutouts and light curves, speed,
    partitions, quarantine and losses. OUTDIR is only read, even while a transfer runs; of a large dataset only a sample
    is read, and the page says so. Cutouts need astropy: pip install 'fink-dask[report]'.

    If OUTDIR holds the datasets of several topics, the page shows all their alerts together, and a line for each topic.
    """
    from rich.filesize import decimal

    from fink_dask.ledger.outdir import find_datasets
    from fink_dask.report.facts import facts_of_season, find_facts
    from fink_dask.show.display import doing

    ledger, several = find_datasets(outdir.resolve())
    if len(objects) > _MAX_OBJECTS:
        raise SettingsError(f"--object: a page shows at most {_MAX_OBJECTS} objects")
    if as_json and is_stdout(output):
        raise SettingsError(f"--json and -o {output} both write to stdout: choose one")
    target = _place(output, ledger.outdir)
    failures: list[str] = []
    found = []
    with doing("reading what the ledger says"):
        for each in several or [ledger]:
            try:
                found.append(find_facts(each))
            except FinkDaskError as error:
                if not several:
                    raise
                topic = each.outdir.name  # the others are shown all the same
                failures.append(str(error) if topic in str(error) else f"{topic}: {error}")
    for words in failures:  # before the page, which may not be written
        say(f"fink-dask: error: {words}", err=True)
    if not found:
        print_failure("; ".join(failures))
        return 1
    facts = facts_of_season(ledger.outdir, found) if several else found[0]
    if target is not None:
        _check_older(facts, target)
    with doing("reading alerts") as begin:
        size = _write(facts, outdir, output, objects, begin)
    if as_json:
        print_json({"report": str(output), "bytes": size}, failures)
    else:
        say(f"{output}: {decimal(size)}", err=is_stdout(output))
    if opens and not webbrowser.open(output.resolve().as_uri()):
        say(f"fink-dask: warning: no browser was found; open {output} in one", err=True)
    return 1 if failures else 0


def _place(output: Path, outdir: Path) -> Path | None:
    """Return where the page is to be, which may be no place for it; None if that is a pipe or a device."""
    from fink_dask.ledger.outdir import check_outside

    if is_streamed(output):
        return None
    target = output.resolve()
    if not target.parent.is_dir():
        raise SettingsError(f"{target.parent} is not a directory: make it first, or choose another with -o")
    check_outside(target, outdir)
    return target


def _write(facts: Facts, outdir: Path, output: Path, objects: tuple[str, ...], begin: Callable[[str], None]) -> int:
    """Write the page of a dataset, and return its bytes; `begin` is told what it does."""
    from datetime import UTC, datetime

    import fink_dask
    from fink_dask.report.page import render
    from fink_dask.report.panels import find_panels

    panels = find_panels(facts, objects)
    begin("drawing the page")
    content = render(facts, panels, str(outdir), fink_dask.__version__, datetime.now(UTC)).encode()
    deliver(output, content)
    return len(content)


def _check_older(facts: Facts, target: Path) -> None:
    """Refuse to write over a file that is not a report, or that of another dataset."""
    from fink_dask.report.page import GENERATOR, MARK, mark_of

    if not target.exists():
        return
    head = _head(target)
    if GENERATOR not in head:
        raise SettingsError(f"{target} exists and is not a report: choose another name with -o, or remove it")
    if MARK in head and f"{MARK}{mark_of(facts)}" not in head:
        raise SettingsError(f"{target} is the report of another dataset: choose another name with -o, or remove it")


def _head(path: Path) -> str:
    """Read the beginning of a file; a directory has none."""
    from fink_dask.ledger.ledger import storage_in_words

    if not path.is_file():
        return ""
    with storage_in_words(path), path.open("rb") as file:
        return file.read(_HEAD_BYTES).decode(errors="replace")
