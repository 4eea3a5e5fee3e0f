"""Begin again: move a dataset and its ledger aside together, and delete them once the new one is complete.

Two directories can't be renamed at once. A token in the ledger says that the move has begun, and where to; whoever
meets it completes the move first.
"""

from __future__ import annotations

import json
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

from fink_dask.dataset.durable import publish_file, sync_directory, write_file
from fink_dask.dataset.lease import hold_lease
from fink_dask.dataset.ledger import Ledger, check_outdir, storage_error
from fink_dask.errors import LedgerError

_INTENT = "restart.json"
_LABEL = "README.txt"
_PARTS = ("dataset", "ledger")


def set_aside(ledger: Ledger) -> Path:
    """Move dataset and ledger aside; the caller holds the lease, which goes with the ledger.

    Returns
    -------
    pathlib.Path
        The directory that holds both.

    Raises
    ------
    StorageError
        If the file system refuses, or what is in the output directory is no dataset of this ledger.
    """
    check_outdir(ledger)
    name = f"{ledger.path.name}-old-{uuid.uuid4().hex[:8]}"
    try:
        # Where there is a token already, its move is the one to complete.
        publish_file(ledger.path / f".{name}", ledger.path / _INTENT, json.dumps({"aside": name}).encode())
        return _move(ledger)
    except OSError as error:
        raise storage_error(error, ledger.path) from error


def complete_move(ledger: Ledger) -> Path | None:
    """Complete a move that was cut off; None where there was none.

    Raises
    ------
    LedgerError
        If the job that moves is alive, or the token is not one that `set_aside` wrote.
    """
    if not (ledger.path / _INTENT).exists():
        return None
    with hold_lease(ledger):
        try:
            return _move(ledger)
        except OSError as error:
            raise storage_error(error, ledger.path) from error


def old_datasets(ledger: Ledger) -> list[Path]:
    """List what was moved aside and not deleted yet."""
    prefix = f"{ledger.path.name}-old-"
    siblings = sorted(ledger.path.parent.iterdir())
    # One that is empty has lost its label last: only its own removal was cut off.
    return [
        path
        for path in siblings
        if path.name.startswith(prefix) and path.is_dir() and ((path / _LABEL).is_file() or not any(path.iterdir()))
    ]


def delete_old_datasets(ledger: Ledger) -> int:
    """Delete what was moved aside; return how many are gone, the rest is found again by the next call."""
    deleted = 0
    for path in old_datasets(ledger):
        for part in _PARTS:
            shutil.rmtree(path / part, ignore_errors=True)
        # The label goes last, so that a deletion that is cut off is found and completed.
        if not any((path / part).exists() for part in _PARTS):
            shutil.rmtree(path, ignore_errors=True)
            deleted += not path.exists()
    return deleted


def _move(ledger: Ledger) -> Path:
    """Carry out what the token says, from wherever it was cut off."""
    aside, parent = _destination(ledger), ledger.path.parent
    aside.mkdir(exist_ok=True)
    words = b"Moved here by fink-dask transfer --restart; deleted when the new one is complete.\n"
    with suppress(FileExistsError):  # one that is torn does as well: only its name counts
        write_file(aside / _LABEL, words)
    sync_directory(parent)
    dataset, old_ledger = (aside / part for part in _PARTS)
    if ledger.outdir.exists() and not dataset.exists():
        ledger.outdir.rename(dataset)
    for directory in (aside, parent):
        sync_directory(directory)
    ledger.path.rename(old_ledger)
    for directory in (aside, parent):
        sync_directory(directory)
    return aside


def _destination(ledger: Ledger) -> Path:
    token = ledger.path / _INTENT
    try:
        name = json.loads(token.read_bytes())["aside"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise LedgerError(f"{token} is damaged") from error
    if not isinstance(name, str) or Path(name).name != name or not name.startswith(f"{ledger.path.name}-old-"):
        raise LedgerError(f"{token} is damaged")
    return ledger.path.with_name(name)
