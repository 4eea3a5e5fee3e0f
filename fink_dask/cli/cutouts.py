"""``fink-dask cutouts``: the pictures that came with the alerts of chosen objects."""

from __future__ import annotations

import re
from pathlib import Path

import click

from fink_dask.cli.command import Place, UserPath, command, json_option, typed_option
from fink_dask.cli.lightcurve import check_order
from fink_dask.cli.output import print_json, save, say
from fink_dask.errors import SettingsError
from fink_dask.units import pluralize

#: Exit status where some pictures can't be read.
_PARTIAL = 3
#: What the name of a file may have of an object's, which comes from outside.
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9]+")


@command("fink-dask cutouts alerts ZTF18abcdefg -o pictures --format fits")
@click.argument("outdir", type=Place())
@click.argument("names", metavar="[OBJECT]...", nargs=-1)
@typed_option("--object", "objects", multiple=True, metavar="NAME", help="The same as OBJECT; repeatable.")
@typed_option(
    "--output",
    "-o",
    type=UserPath(file_okay=False, path_type=Path),
    default=Path("cutouts"),
    show_default=True,
    metavar="DIR",
    help="Where to.",
)
@typed_option(
    "--format",
    "kind",
    type=click.Choice(["png", "fits"]),
    default="png",
    show_default=True,
    help="Pictures to look at, or the survey's own files.",
)
@json_option
def cutouts(
    outdir: Path, names: tuple[str, ...], objects: tuple[str, ...], output: Path, kind: str, as_json: bool
) -> int:
    """Write the cutouts of all alerts of each OBJECT in the dataset OUTDIR, one file each.

    An object is named as for fink-dask lightcurve. Files are called OBJECT-ALERT-science.png, and so with template and
    difference; those that are there are replaced. Needs astropy: pip install 'fink-dask[report]'. Exit status: 0, 1
    failed, 3 if some can't be read.
    """
    from fink_dask.dataset.cutouts import HINT, can_read_stamps, png, read_stamp, unpack
    from fink_dask.ledger.outdir import check_outside
    from fink_dask.lightcurves.find import cutouts_of

    if not (objects := tuple(dict.fromkeys((*names, *objects)))):
        raise SettingsError("name an OBJECT; fink-dask lightcurve OUTDIR lists those with the most alerts")
    check_order(outdir, objects)
    if not can_read_stamps():
        raise SettingsError(f"cutouts need astropy and Pillow, which are not installed: {HINT}")
    check_outside(output.resolve(), outdir.resolve())
    unread, files = 0, {}
    for name in objects:
        written: list[str] = []
        for stamp in cutouts_of(outdir, name):
            image = read_stamp(stamp.data)
            content = None if image is None else png(image) if kind == "png" else unpack(stamp.data or b"")
            if content is None:
                unread += 1
                continue
            file = output / f"{_NOT_IN_NAMES.sub('_', name)[:100]}-{stamp.alert}-{stamp.shown}.{kind}"
            save(file, content)
            written.append(str(file))
        files[name] = written
        if not as_json:
            say(f"{name}: {pluralize(len(written), 'picture')} in {output}")
    if as_json:
        print_json({"state": "partial" if unread else "complete", "files": files, "unreadable": unread})
    elif unread:
        say(f"fink-dask: warning: {pluralize(unread, 'cutout')} can't be read", err=True)
    return _PARTIAL if unread else 0
