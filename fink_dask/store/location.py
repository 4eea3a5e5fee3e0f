"""Where a dataset is: a directory, or a place on an object store."""

from __future__ import annotations

import os
import re
from pathlib import Path

from fink_dask.errors import SettingsError
from fink_dask.store.local import LOCAL
from fink_dask.store.objects import ObjectPath
from fink_dask.store.remote import RemoteStore
from fink_dask.store.service import SERVICES
from fink_dask.store.store import Store

#: How a URL begins; `Path` turns two slashes into one.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/+")

#: A name in a path with what a shell would have replaced: it sees nothing of a file of settings, nor within quotes.
_VARIABLE = re.compile(r"[^/]*(\$\w+|\$\{\w+\})[^/]*")
#: How a place on Windows begins, which would be the name of a file here.
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")

#: Other ways to write how a URL begins.
_SYNONYMS = {"gcs": "gs", "azure": "az"}
_REMOTE = RemoteStore()


def locate(place: str | os.PathLike[str]) -> Path:
    """Turn what a user gave into the place of a dataset.

    Returns: the directory as it was given, or an `ObjectPath`.
    Raises SettingsError if it is on an unsupported kind of store, or is empty: an unset shell variable does not mean
    the working directory.
    """
    if isinstance(place, ObjectPath):
        return place.as_path
    text = os.fspath(place)
    if not text:
        raise SettingsError("'' names no directory: say . for the working directory")
    _check_system(text)
    match = _URL.match(text)
    if match is None:
        return expand(text)
    scheme = _SYNONYMS.get(match[1].lower(), match[1].lower())
    if scheme not in SERVICES:
        raise SettingsError(
            f"{text[:200]!r}: datasets are kept in a directory, or on an object store (s3://BUCKET/NAME, gs://…, "
            f"az://CONTAINER/NAME), not on {match[1][:20]}://"
        )
    return ObjectPath.parse(f"{scheme}://{text[match.end() :]}").as_path


def _check_system(text: str) -> None:
    if os.name == "posix" and _WINDOWS.match(text):
        raise SettingsError(f"{text[:200]!r} is a path of Windows: give one of this system")
    found = _VARIABLE.search(text)
    if found and not Path(text[: found.end()]).exists():
        raise SettingsError(f"{text[:200]!r}: {found[1]} is not replaced here: give the path itself")


def expand(text: str) -> Path:
    """Replace a ``~`` in front, which no shell has seen where it follows a ``=``, or is in a variable or a file.

    Raises SettingsError if nobody knows whose home that is, or it is no path of this system but a URL.
    """
    _check_system(text)
    if _URL.match(text):
        raise SettingsError(f"{text[:200]!r} is a URL: give a path of this machine")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise SettingsError(f"{text[:200]!r}: there is no such home directory") from error


def store_of(path: Path) -> Store:
    """Return what a place is on."""
    return _REMOTE if isinstance(path, ObjectPath) else LOCAL


def check_is_local(path: Path, what: str) -> None:
    """Refuse what only works in a file system.

    Raises SettingsError if the dataset is on an object store; it says what does not work there.
    """
    if isinstance(path, ObjectPath):
        raise SettingsError(f"{what} works with a directory only, and {path} is on an object store")
