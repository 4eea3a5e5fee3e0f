"""Small notes that a running transfer keeps in the ledger for `status`, and for nothing else."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from fink_dask.errors import StorageError
from fink_dask.ledger.ledger import Ledger, storage_error
from fink_dask.store.location import is_remote

_MAX_BYTES = 2**20


class Note(Protocol):
    """What is true at one moment."""

    @property
    def at(self) -> float:
        """When, in seconds since 1970-01-01 UTC."""
        ...


Kept = TypeVar("Kept", bound=Note)


def write_note(ledger: Ledger, name: str, content: Mapping[str, Any]) -> None:
    """Keep a note in the ledger; nothing depends on it, so it need not survive a power cut.

    Raises
    ------
    StorageError
        If the file system refuses.
    """
    path = ledger.path / name
    if is_remote(path):
        path.write_text(json.dumps(content), encoding="utf-8")
        return
    aside = path.with_name(f".{name}.{os.getpid()}")
    try:
        aside.write_text(json.dumps(content), encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise storage_error(error, path) from error


def read_note(ledger: Ledger, name: str, make: Callable[[dict[str, Any]], Kept], not_older_s: float) -> Kept | None:
    """Read a note; None where there is none, only an old one, or something else.

    Parameters
    ----------
    ledger : Ledger
        The ledger.
    name : str
        The name of its file.
    make : callable
        Makes the note from JSON; whatever it raises for wrong content means that this is no note.
    not_older_s : float
        How old it may be.
    """
    try:
        with (ledger.path / name).open("rb") as file:
            note = make(json.loads(file.read(_MAX_BYTES)))
    except (OSError, StorageError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    # Clocks differ a little; a time far in the future would never become old.
    return note if abs(time.time() - note.at) <= not_older_s else None
