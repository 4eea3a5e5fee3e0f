"""``fink-dask lightcurve``: all that the alerts of an object tell of its brightness."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fink_dask.cli.command import Place, UserPath, command, json_option, typed_option
from fink_dask.cli.output import deliver, is_stdout, is_streamed, print_json, say
from fink_dask.errors import SettingsError, StorageError
from fink_dask.units import pluralize, printable

if TYPE_CHECKING:
    import pyarrow as pa

#: The newest measurements are shown; files have all.
_SHOWN = 20
#: Kinds that are nouns, and have a plural.
_NOUNS = {"alert", "limit"}
_COLUMNS = ("mjd", "band", "value", "error", "limit", "sign", "kind")
#: Where light and full packets of LSST give brightness of two kinds, and neither limits nor signs.
_COLUMNS_OF_SEVERAL = ("mjd", "band", "value", "error", "quantity", "kind")
_LEFT = {"band", "sign", "quantity", "kind", "object"}
_TIMES = {"mjd", "first", "last"}


@command("fink-dask lightcurve alerts ZTF18abcdefg --csv curve.csv --plot curve.html")
@click.argument("outdir", type=Place())
@click.argument("object_id", metavar="[OBJECT]", required=False)
@typed_option(
    "--csv",
    "table",
    type=UserPath(dir_okay=False, path_type=Path, allow_dash=True),
    metavar="FILE",
    help="Write all measurements, or all objects, to a new FILE, as comma-separated values; - is stdout.",
)
@typed_option(
    "--plot",
    type=UserPath(dir_okay=False, path_type=Path),
    metavar="FILE.html",
    help="Draw them on a new HTML page that loads nothing from elsewhere.",
)
@json_option
def lightcurve(outdir: Path, object_id: str | None, table: Path | None, plot: Path | None, as_json: bool) -> int:
    """Show the light curve of OBJECT in the dataset OUTDIR: detections, earlier ones, limits and forced photometry.

    OBJECT is an objectId of ZTF, a diaObjectId of LSST, or the designation of something in the solar system; without
    it, the objects with the most alerts are listed, and --csv writes all of them. Each measurement is there once,
    however many alerts tell of it; fink_dask.light_curve returns the same table in Python.
    """
    from fink_dask.cluster.forkserver import do_without_pandas

    do_without_pandas()  # what is loaded now makes arrays
    from fink_dask.ledger.outdir import check_new_file
    from fink_dask.lightcurves.find import light_curve

    if object_id is None and plot is not None:
        raise SettingsError("--plot draws the light curve of an OBJECT: name one")
    if plot is not None and plot.suffix != ".html" and not is_streamed(plot):
        raise SettingsError(f"--plot {plot}: a plot is an HTML page, so its name ends in .html")
    printed = [option for option, path in (("--csv", table), ("--plot", plot)) if is_stdout(path)]
    if as_json + len(printed) > 1:
        both = [*(["--json"] if as_json else []), *printed]
        raise SettingsError(f"{' and '.join(both)} write to stdout: choose one")
    for path in (table, plot):
        if path is not None and not is_stdout(path):
            check_new_file(path.absolute(), outdir)
    check_order(outdir, () if object_id is None else (object_id,))
    if object_id is None:
        return _list_objects(outdir, table, as_json)
    curve = light_curve(outdir, object_id)
    if table is not None:
        _write_csv(curve, table)
    if plot is not None:
        from fink_dask.report.curve import page_of

        deliver(plot, page_of(curve, object_id).encode())
    if as_json:
        print_json({"object": object_id, "measurements": curve.to_pylist()})
    elif not printed:
        _print(curve, object_id, table is not None)
        for path in filter(None, (table, plot)):
            say(f"  written to {path}")
    return 0


def check_order(outdir: Path, objects: Sequence[str]) -> None:
    """Refuse an object in the place of a dataset, and a dataset in the place of an object."""
    from fink_dask.ledger.outdir import datasets_in, find_ledger

    def is_dataset(place: Path) -> bool:
        return bool(place.name) and (find_ledger(place).exists() or bool(datasets_in(place)))

    if outdir.exists() or is_dataset(outdir.resolve()):
        return
    for name in filter(str.strip, objects):
        with suppress(StorageError, OSError, ValueError):  # what can't be the name of a directory is none
            if is_dataset(Path(name).resolve()):
                words = f"{outdir} is no dataset, and {name} is one: the dataset comes first, then the object"
                raise SettingsError(words)


def _list_objects(outdir: Path, table: Path | None, as_json: bool) -> int:
    """Say which objects have the most alerts, and write all of them to `table`."""
    from fink_dask.lightcurves.objects import count_alerts
    from fink_dask.show.bar import CountBar

    with CountBar("reading alerts", noun="alert") as bar:
        objects = count_alerts(outdir, bar.plan, bar.advance)
    if not objects.num_rows:
        from fink_dask.cli.results import say_absent

        say_absent(outdir, "no object")
    shown = objects.slice(0, _SHOWN)
    if table is not None:
        _write_csv(objects, table)
    if as_json:
        print_json({"objects": objects.num_rows, "most_alerts": shown.to_pylist()})
    elif not is_stdout(table):
        how = "" if table is not None else " (--csv FILE writes all)"
        most = f"; the {shown.num_rows} with the most alerts{how}" if shown.num_rows < objects.num_rows else ""
        say(f"{pluralize(objects.num_rows, 'object')}{most}; times are MJD")
        _print_table(shown, ("object", "alerts", "first", "last"))
        if table is not None:
            say(f"  written to {table}")
    return 0


def _write_csv(curve: pa.Table, path: Path) -> None:
    """Write a table."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(curve.column_names)
    writer.writerows(zip(*map(_shortest, curve.columns), strict=True))
    deliver(path, text.getvalue().encode())


def _shortest(column: pa.ChunkedArray) -> list[object]:
    """Spell numbers with no more digits than they had: surveys give brightness with those of 32 bits."""
    import pyarrow.compute as pc

    if not column.type.equals("double"):
        return list(column.to_pylist())
    short = column.cast("float")
    is_short = pc.equal(short.cast("double"), column)
    spelled = pc.if_else(is_short, short.cast("string"), column.cast("string"))
    return list(spelled.to_pylist())


def _print(curve: pa.Table, name: str, is_written: bool) -> None:
    """Say how many there are of each kind, and show the newest."""
    counts = {each["values"]: each["counts"] for each in curve["kind"].value_counts().to_pylist()}
    words = ", ".join(
        pluralize(count, kind) if kind in _NOUNS else f"{count:,} {kind}" for kind, count in counts.items()
    )
    if not curve.num_rows:
        say(f"{name}: its alerts tell of no brightness")
        return
    unit, scale = curve["unit"][0].as_py(), curve["scale"][0].as_py().upper()
    say(f"{name}: {pluralize(curve.num_rows, 'measurement')} ({words}) in {unit}, MJD in {scale}")
    shown = curve.slice(max(0, curve.num_rows - _SHOWN))
    if shown.num_rows < curve.num_rows:
        say(f"  the newest {shown.num_rows}{'' if is_written else '; --csv FILE writes all'}")
    signs = [{True: "+", False: "-", None: None}[positive] for positive in shown["positive"].to_pylist()]
    columns = _COLUMNS_OF_SEVERAL if len(curve["quantity"].unique()) > 1 else _COLUMNS
    _print_table(shown.append_column("sign", [signs]), columns)


def _print_table(rows: pa.Table, columns: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    lines = Table(box=None, pad_edge=False, padding=(0, 2))
    for column in columns:
        lines.add_column(column, justify="left" if column in _LEFT else "right", no_wrap=True)
    for row in rows.to_pylist():
        lines.add_row(*(_text(column, row[column]) for column in columns))
    Console(highlight=False, markup=False).print(lines)


def _text(name: str, value: float | str | None) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.5f}" if name in _TIMES else f"{value:.6g}"
