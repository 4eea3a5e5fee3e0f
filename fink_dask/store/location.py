"""Where a dataset is: a directory, or a place on an object store."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from fink_dask.errors import SettingsError
from fink_dask.store.objects import SCHEME, ObjectPath

#: How a URL begins; `Path` turns two slashes into one.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/+")

#: How a place on Windows begins, which would be the name of a file here.
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")

#: The fewest bytes of an object that are asked for at once, where some of its columns are read.
_READ_BYTES = 2**18
#: Requests that are made at once.
_AT_ONCE = 16
#: Seconds that a connection of pyarrow's may take, and those without a byte of an answer, and how often it tries.
_CONNECT_S, _SILENCE_S, _TRIES = 10.0, 30.0, 8

Item = TypeVar("Item")
Result = TypeVar("Result")


def locate(place: str | os.PathLike[str]) -> Path:
    """Turn what a user gave into the place of a dataset.

    Returns: the directory as it was given, or an `ObjectPath`.
    Raises SettingsError if it is on an unsupported kind of store, or is empty: an unset shell variable does not mean
    the working directory.
    """
    if isinstance(place, ObjectPath):
        return place
    text = os.fspath(place)
    if not text:
        raise SettingsError("'' names no directory: say . for the working directory")
    if os.name == "posix" and _WINDOWS.match(text):
        raise SettingsError(f"{text[:200]!r} is a path of Windows: give one of this system")
    match = _URL.match(text)
    if match is None:
        return expand(text)
    if match[1].lower() != "s3":
        raise SettingsError(
            f"{text[:200]!r}: datasets are kept in a directory or on S3 (s3://BUCKET/NAME), not on {match[1][:20]}://"
        )
    return ObjectPath.parse(SCHEME + text[match.end() :])


def expand(text: str) -> Path:
    """Replace a ``~`` in front, which no shell has seen where it follows a ``=``, or is in a variable or a file.

    Raises SettingsError if nobody knows whose home that is.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise SettingsError(f"{text[:200]!r}: there is no such home directory") from error


def is_remote(path: Path) -> bool:
    """Tell whether a dataset is on an object store."""
    return isinstance(path, ObjectPath)


def for_each(place: Path, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
    """Yield each item with what a function returns for it; on an object store, several calls run at once."""
    if not is_remote(place):
        yield from ((item, function(item)) for item in items)
        return
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield from pool.map(lambda item: (item, function(item)), items)


def parquet_source(path: Path) -> Any:
    """Return what pyarrow is to read a Parquet file from."""
    return path.open("rb", _READ_BYTES) if is_remote(path) else path


def filesystem_of(path: Path) -> tuple[Any, str]:
    """Return the file system through which pyarrow reads a dataset (None for that of this host), and its name there.

    Credentials are looked up where they are used, so that a dataset may be sent to others.
    """
    if not isinstance(path, ObjectPath):
        return None, str(path)
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    bucket = path.bucket
    # Arrow's own time-outs, of 1 and 3 seconds, and its two further tries are for lines within a data centre.
    filesystem = S3FileSystem(
        region=bucket.region,
        endpoint_override=bucket.endpoint,
        connect_timeout=_CONNECT_S,
        request_timeout=_SILENCE_S,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=_TRIES),
    )
    return filesystem, f"{bucket.name}/{path.key}"


def shared_directory(path: Path, what: str) -> Path:
    """Name a directory of this dataset that other hosts see, for what is no part of it, such as logs.

    On an object store there is none: then it is in the working directory, which jobs of a batch system begin in.
    """
    if not is_remote(path):
        return path / what
    # Of that name there may be a place in several buckets.
    return Path.cwd() / f"{path.name}-{what}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


def check_is_local(path: Path, what: str) -> None:
    """Refuse what only works in a file system.

    Raises SettingsError if the dataset is on an object store; it says what does not work there.
    """
    if is_remote(path):
        raise SettingsError(f"{what} works with a directory only, and {path} is on an object store")
