"""``fink-dask cutouts``: the pictures that came with the alerts of chosen objects."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fink_dask.cli.options import CONTEXT, FinkCommand, Place, UserPath, typed_option
from fink_dask.cli.say import say
from fink_dask.errors import SettingsError, StorageError
from fink_dask.units import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow.compute as pc

#: Exit status where some pictures can't be read.
_PARTIAL = 3
#: What the name of a file may have of an object's, which comes from outside.
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9]+")


@click.command(
    cls=FinkCommand,
    context_settings=CONTEXT,
    epilog="Example: fink-dask cutouts alerts --object ZTF18abcdefg -o pictures --format fits",
)
@click.argument("outdir", type=Place())
@typed_option("--object", "objects", multiple=True, required=True, metavar="NAME", help="Of this object; repeatable.")
@typed_option(
    "--output", "-o", type=UserPath(file_okay=False, path_type=Path), required=True, metavar="DIR", help="Where to."
)
@typed_option(
    "--format",
    "kind",
    type=click.Choice(["png", "fits"]),
    default="png",
    show_default=True,
    help="Pictures to look at, or the survey's own files.",
)
def cutouts(outdir: Path, objects: tuple[str, ...], output: Path, kind: str) -> int:
    """Write the cutouts of all alerts of some objects in the dataset OUTDIR, one file each.

    An object is named as for fink-dask lightcurve. Files are called OBJECT-ALERT-science.png, and so with template and
    difference; those that are there are replaced. Needs astropy: pip install 'fink-dask[report]'. Exit status: 0, 1
    failed, 3 if some can't be read.
    """
    from fink_dask.report.examples import HINT, can_read_stamps

    if not can_read_stamps():
        raise SettingsError(f"cutouts need astropy and Pillow, which are not installed: {HINT}")
    unread = 0
    for name in objects:
        written = 0
        for alert, shown, content in _pictures(outdir, name, kind):
            if content is None:
                unread += 1
                continue
            file = output / f"{_NOT_IN_NAMES.sub('_', name)[:100]}-{alert}-{shown}.{kind}"
            try:
                output.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            except OSError as error:
                raise StorageError(f"{file}: {error.strerror}") from error
            written += 1
        say(f"{name if name.isprintable() else ascii(name)}: {counted(written, 'picture')} in {output}")
    if unread:
        say(f"fink-dask: warning: {counted(unread, 'cutout')} can't be read", err=True)
    return _PARTIAL if unread else 0


def _pictures(outdir: Path, name: str, kind: str) -> Iterator[tuple[int, str, bytes | None]]:
    """Yield the alert, what a picture shows, and its file; None for one that can't be read."""
    from fink_dask.dataset.read import open_each
    from fink_dask.dataset.surveys import Fields, expression, find_fields
    from fink_dask.lightcurves.find import find_alerts
    from fink_dask.report.examples import png, read_stamp, unpack

    def columns(_: object, fields: Fields) -> dict[str, pc.Expression]:
        paths = {"alert": fields.paths["source"], **fields.cutouts}
        return {role: expression(path) for role, path in paths.items()}

    opened = [(dataset, find_fields(dataset.schema)) for dataset in open_each(outdir)]
    fit = [(dataset, fields) for dataset, fields in opened if fields.cutouts and fields.has("object", "source")]
    if not fit:
        raise SettingsError(f"{outdir} has no cutouts of objects; alerts of full packets have some")
    seen = set()
    for alerts, fields in find_alerts(outdir, fit, name, columns):
        for row in alerts.to_pylist():
            if row["alert"] in seen:  # several topics may hold the same alert
                continue
            seen.add(row["alert"])
            for shown in fields.cutouts:
                image = read_stamp(row[shown])
                content = None if image is None else png(image) if kind == "png" else unpack(row[shown])
                yield row["alert"], shown, content
