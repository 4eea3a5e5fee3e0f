"""Begin again: move a dataset and its ledger aside together, and delete them once the new one is complete.

Two directories can't be renamed at once. A token in the ledger says that the move has begun, and where to; whoever
meets it completes the move first.
"""

from __future__ import annotations

import json
import shutil
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fink_dask.errors import FinkDaskError, LedgerError, parameter
from fink_dask.ledger.lease import hold_lease
from fink_dask.ledger.ledger import LEDGER_SUFFIX, Ledger, storage_error
from fink_dask.ledger.outdir import check_outdir
from fink_dask.ledger.progress import summarise
from fink_dask.store.durable import publish_file, sync_directory, write_file
from fink_dask.store.location import is_remote

_INTENT = "restart.json"
_LABEL = "README.txt"


def check_restart(ledger: Ledger, topic: str) -> None:
    """Refuse to begin a dataset again with another topic, whose alerts don't replace those that are there.

    Raises LedgerError that names both.
    """
    try:
        before = ledger.begun_with().topic if ledger.exists() else topic
    except LedgerError:  # a ledger that is damaged is what it is for
        return
    if before != topic:
        raise LedgerError(
            f"{ledger.outdir} has the alerts of {before}, and {parameter('restart', True)} would put those of {topic} "
            f"in their place: choose another {parameter('outdir')}, or delete {ledger.outdir} and {ledger.path}"
        )


def set_aside(ledger: Ledger) -> Path:
    """Move dataset and ledger aside; the caller holds the lease, which goes with the ledger.

    Raises StorageError if the file system refuses, or what is in the output directory is no dataset of this ledger.
    """
    check_outdir(ledger)
    name = f"{_prefix(ledger)}{uuid.uuid4().hex[:8]}"
    try:
        # Where there is a token already, its move is the one to complete.
        publish_file(ledger.path / f".{name}", ledger.path / _INTENT, json.dumps({"aside": name}).encode())
        return _move(ledger)
    except OSError as error:
        raise storage_error(error, ledger.path) from error


def complete_move(ledger: Ledger) -> Path | None:
    """Complete a move that was cut off; None where there was none.

    Raises LedgerError if the job that moves it is alive, or the token is not one that `set_aside` wrote.
    """
    if is_remote(ledger.path) or not (ledger.path / _INTENT).exists():
        return None
    with hold_lease(ledger):
        try:
            return _move(ledger)
        except OSError as error:
            raise storage_error(error, ledger.path) from error


@dataclass(frozen=True)
class OldDataset:
    """A dataset that was moved aside with its ledger, under their own names."""

    #: The directory that holds both.
    path: Path
    #: The ledger in it.
    ledger: Ledger

    @property
    def alerts(self) -> int | None:
        """Alerts that it holds: none where its deletion has begun, None where its ledger can't be read."""
        try:
            return summarise(self.ledger).summary.alerts if self.ledger.outdir.is_dir() else 0
        except FinkDaskError:
            return None


def old_datasets(ledger: Ledger) -> list[OldDataset]:
    """List the datasets that were moved aside and not deleted yet."""
    if is_remote(ledger.path):
        return []  # nothing can be moved there
    prefix = _prefix(ledger)
    siblings = sorted(ledger.path.parent.iterdir())
    # An empty one has lost its label, which goes last: only its own removal was cut off.
    return [
        OldDataset(path, Ledger(path / ledger.outdir.name))
        for path in siblings
        if path.name.startswith(prefix) and path.is_dir() and ((path / _LABEL).is_file() or not any(path.iterdir()))
    ]


def delete_old_dataset(old: OldDataset) -> None:
    """Delete what was moved aside; the next call finds what can't be deleted now."""
    parts = (old.ledger.outdir, old.ledger.path)
    for part in parts:
        shutil.rmtree(part, ignore_errors=True)
    # The label goes last, so that a deletion that is cut off is found and completed.
    if not any(part.exists() for part in parts):
        shutil.rmtree(old.path, ignore_errors=True)


def _move(ledger: Ledger) -> Path:
    """Carry out what the token says, from wherever it was cut off."""
    aside, parent = _destination(ledger), ledger.path.parent
    aside.mkdir(exist_ok=True)
    words = b"Moved here by fink-dask transfer --restart, which deletes it when the new dataset is complete.\n"
    with suppress(FileExistsError):  # a torn one will do: only its name counts
        write_file(aside / _LABEL, words)
    sync_directory(parent)
    old = Ledger(aside / ledger.outdir.name)
    if ledger.outdir.exists() and not old.outdir.exists():
        ledger.outdir.rename(old.outdir)
    for directory in (aside, ledger.outdir.parent):
        sync_directory(directory)
    ledger.path.rename(old.path)
    for directory in (aside, parent):
        sync_directory(directory)
    return aside


def _prefix(ledger: Ledger) -> str:
    """Begin the name of what is moved aside, beside the ledger: no topic of a season has such a name."""
    return f"{ledger.outdir.name}{LEDGER_SUFFIX}-old-"


def _destination(ledger: Ledger) -> Path:
    token = ledger.path / _INTENT
    try:
        name = json.loads(token.read_bytes())["aside"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise LedgerError(f"{token} is damaged") from error
    if not isinstance(name, str) or Path(name).name != name or not name.startswith(_prefix(ledger)):
        raise LedgerError(f"{token} is damaged")
    return ledger.path.with_name(name)
