"""Where a dataset is: a directory, or a place on an object store."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from fink_dask.errors import SettingsError
from fink_dask.store.objects import SCHEME, ObjectPath

#: How a URL begins; `Path` makes one slash of two.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/+")

#: Bytes of an object that are asked for at once, at least, where some of its columns are read.
_READ_BYTES = 2**18
#: Requests that are on their way at once.
_AT_ONCE = 16

Item = TypeVar("Item")
Result = TypeVar("Result")


def locate(place: str | os.PathLike[str]) -> Path:
    """Find out where a dataset is meant to be.

    Returns
    -------
    pathlib.Path
        As it is given; or an `ObjectPath`.

    Raises
    ------
    SettingsError
        If it is on a store of a kind that is not supported.
    """
    if isinstance(place, ObjectPath):
        return place
    text = os.fspath(place)
    match = _URL.match(text)
    if match is None:
        return Path(text)
    if match[1].lower() != "s3":
        raise SettingsError(
            f"{text[:200]!r}: datasets are kept in a directory or on S3 (s3://BUCKET/NAME), not on {match[1][:20]}://"
        )
    return ObjectPath.parse(SCHEME + text[match.end() :])


def is_remote(path: Path) -> bool:
    """Tell whether a dataset is on an object store."""
    return isinstance(path, ObjectPath)


def for_each(place: Path, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
    """Call a function with one item after the other, each with what it returns; on an object store, some at once."""
    if not is_remote(place):
        yield from ((item, function(item)) for item in items)
        return
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield from pool.map(lambda item: (item, function(item)), items)


def parquet_source(path: Path) -> Any:
    """Return what pyarrow reads a Parquet file from."""
    return path.open("rb", _READ_BYTES) if is_remote(path) else path


def filesystem_of(path: Path) -> tuple[Any, str]:
    """Return the file system through which pyarrow reads a dataset, None for that of this host, and its name there.

    Credentials are looked up where they are used, so that a dataset may be sent to others.
    """
    if not isinstance(path, ObjectPath):
        return None, str(path)
    from pyarrow.fs import S3FileSystem

    bucket = path.bucket
    filesystem = S3FileSystem(region=bucket.region, endpoint_override=bucket.endpoint)
    return filesystem, f"{bucket.name}/{path.key}"


def check_is_local(path: Path, what: str) -> None:
    """Refuse what only works in a file system.

    Raises
    ------
    SettingsError
        That says what, and of which dataset.
    """
    if is_remote(path):
        raise SettingsError(f"{what} works with a directory only, and {path} is on an object store")


def check_remote(outdir: Path, restart: bool, has_jobs: bool) -> None:
    """Refuse what a transfer can't do on an object store.

    Parameters
    ----------
    outdir : pathlib.Path
        Where the dataset is.
    restart : bool
        What is there is to be moved aside, which takes renames.
    has_jobs : bool
        It is to run in jobs of a batch system, whose logs and keys are kept in the ledger.

    Raises
    ------
    SettingsError
        That says what to do instead.
    """
    if not is_remote(outdir):
        return
    if restart:
        raise SettingsError(
            f"--restart can't move {outdir} aside, as an object store renames nothing: choose another --outdir, or "
            f"delete this one and {outdir.name}.fink"
        )
    if has_jobs:
        raise SettingsError(
            f"--cluster keeps logs and keys beside the dataset, and {outdir} is on an object store: start a Dask "
            "scheduler, and give --scheduler ADDRESS"
        )
