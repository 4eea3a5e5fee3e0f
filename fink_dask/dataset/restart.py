"""Begin again: move a dataset and its ledger aside together, and delete them once the new one is complete.

Two directories can't be renamed at once. A token in the ledger says that the move has begun, and where to; whoever
meets it completes the move first.
"""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path

from fink_dask.dataset.durable import sync_directory, write_file
from fink_dask.dataset.ledger import Ledger, storage_error
from fink_dask.errors import LedgerError

_INTENT = "restart.json"
_LABEL = "README.txt"


def set_aside(ledger: Ledger) -> Path:
    """Move dataset and ledger aside; the caller holds the lease, which goes with the ledger.

    Returns
    -------
    pathlib.Path
        The directory that holds both.
    """
    aside = ledger.path.with_name(f"{ledger.path.name}-old-{uuid.uuid4().hex[:8]}")
    try:
        write_file(ledger.path / _INTENT, json.dumps({"aside": aside.name}).encode())
        sync_directory(ledger.path)
        return _move(ledger, aside)
    except OSError as error:
        raise storage_error(error, ledger.path) from error


def complete_move(ledger: Ledger) -> Path | None:
    """Complete a move that was cut off; None where there was none.

    Raises
    ------
    LedgerError
        If the token is not one that `set_aside` wrote.
    """
    token = ledger.path / _INTENT
    try:
        name = json.loads(token.read_bytes())["aside"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerError(f"{token} is damaged") from error
    if not isinstance(name, str) or Path(name).name != name or not name.startswith(f"{ledger.path.name}-old-"):
        raise LedgerError(f"{token} is damaged")
    try:
        return _move(ledger, ledger.path.with_name(name))
    except OSError as error:
        raise storage_error(error, ledger.path) from error


def old_datasets(ledger: Ledger) -> list[Path]:
    """List what was moved aside and not deleted yet."""
    prefix = f"{ledger.path.name}-old-"
    siblings = sorted(ledger.path.parent.iterdir())
    return [path for path in siblings if path.name.startswith(prefix) and (path / _LABEL).is_file()]


def delete_old_datasets(ledger: Ledger) -> int:
    """Delete what was moved aside; return how many there were."""
    old = old_datasets(ledger)
    for path in old:
        shutil.rmtree(path / "dataset", ignore_errors=True)
        shutil.rmtree(path / "ledger", ignore_errors=True)
        # The label goes last, so that a deletion that is cut off is found and completed.
        shutil.rmtree(path, ignore_errors=True)
    return len(old)


def _move(ledger: Ledger, aside: Path) -> Path:
    aside.mkdir(exist_ok=True)
    if not (aside / _LABEL).exists():
        write_file(
            aside / _LABEL, b"Moved here by fink-dask transfer --restart; deleted when the new one is complete.\n"
        )
    if ledger.outdir.exists() and not (aside / "dataset").exists():
        ledger.outdir.rename(aside / "dataset")
    sync_directory(aside)
    ledger.path.rename(aside / "ledger")
    sync_directory(aside)
    sync_directory(ledger.path.parent)
    return aside
