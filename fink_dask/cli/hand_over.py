"""``fink-dask hand-over``: let files go that were copied elsewhere, while the dataset goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fink_dask.cli.command import Place, UserPath, command, json_option, log_to_stderr, typed_option, verbose_option
from fink_dask.cli.output import print_json, say
from fink_dask.errors import FinkDaskError, SettingsError
from fink_dask.units import pluralize

if TYPE_CHECKING:
    from fink_dask.ledger.ledger import Ledger


@command("fink-dask hand-over alerts --copied list")
@click.argument("outdir", type=Place())
@typed_option(
    "--copied",
    type=UserPath(exists=True, dir_okay=False, path_type=Path),
    help="File with the paths, one a line, of files that are elsewhere now: they are removed here, and the ledger "
    "accounts for their alerts. Of a range, all files or none.",
)
@json_option
@verbose_option
def hand_over(outdir: Path, copied: Path | None, as_json: bool, verbose: bool) -> int:
    """List the files of OUTDIR that can be copied elsewhere, and remove them once they were; a transfer may go on.

    Without --copied, the paths of all files that are complete are listed, one a line, as rsync and rclone take them
    with --files-from; --json has their sizes and SHA-256 too. If OUTDIR holds the datasets of several topics, these are
    the files of all of them, as TOPIC/PATH.
    """
    from fink_dask.ledger.outdir import find_datasets

    log_to_stderr(verbose)
    ledger, several = find_datasets(outdir.resolve())
    # By what stands before the paths of each dataset.
    datasets = {f"{each.outdir.name}/": each for each in several} or {"": ledger}
    if copied is None:
        return _list(datasets, as_json)
    _let_go(ledger.outdir, datasets, copied, as_json)
    return 0


def _list(datasets: Mapping[str, Ledger], as_json: bool) -> int:
    from fink_dask.dataset.handover import files_to_hand_over

    found, failures = [], []
    for before, ledger in datasets.items():
        try:
            here = files_to_hand_over(ledger)
        except FinkDaskError as error:
            if not before:
                raise
            failures.append(str(error))  # what holds one topic up must not fill the disk with the others
            say(f"fink-dask: error: {error}", err=True)
        else:
            found += [(marker, replace(file, path=f"{before}{file.path}")) for marker, file in here]
    if not as_json:
        for _, file in found:
            click.echo(file.path)
        return int(bool(failures))
    print_json(
        {
            "files": [
                {
                    "path": file.path,
                    "size": file.size,
                    "sha256": file.sha256,
                    "alerts": file.rows,
                    "range": [marker.range.partition, marker.range.start, marker.range.end],
                }
                for marker, file in found
            ],
        },
        failures,
    )
    return int(bool(failures))


def _let_go(outdir: Path, datasets: Mapping[str, Ledger], copied: Path, as_json: bool) -> None:
    from rich.filesize import decimal

    from fink_dask.dataset.handover import hand_over as let_go

    try:
        names = copied.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"--copied {copied} can't be read: {error}") from error
    named: dict[str, list[str]] = {before: [] for before in datasets}
    for name in filter(None, names):
        path = name.removeprefix("./")  # as find, tar and rsync write them
        before = "" if "" in named else f"{path.partition('/')[0]}/"
        if before not in named:
            raise SettingsError(f"{path} is no file of {outdir} that can be handed over")
        named[before].append(path.removeprefix(before))
    done = let_go({ledger: named[before] for before, ledger in datasets.items() if named[before]})
    if as_json:
        print_json(asdict(done))
        return
    if not done.ranges:
        why = "all of them were handed over before" if any(names) else f"{copied} names no file"
        say(f"{outdir}: nothing to hand over, as {why}")
        return
    say(f"{outdir}: {pluralize(done.files, 'file')} of {pluralize(done.ranges, 'range')} handed over")
    say(f"  alerts     {done.alerts:,}, {decimal(done.size)}")
