"""Begin again: move a dataset and its ledger aside together, and delete them once the new one is complete.

Two directories can't be renamed at once. A token in the ledger says that the move has begun, and where to; whoever
meets it completes the move first.

On an object store nothing can be renamed, and objects of one name may be removed by a job that stood still since they
were others. So the new dataset has a ledger of its own, ``again/<number>/`` in the old one. The token is the first
object in it: one put, which must not replace anything, decides from when on it counts. It lists the files of the old
dataset, whose names are never used again. They are copied aside, and removed, by whoever comes; then the old ledger is.
"""

from __future__ import annotations

import json
import uuid
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from fink_dask.errors import FinkDaskError, LedgerError, parameter
from fink_dask.ledger.lease import hold_lease
from fink_dask.ledger.ledger import LEDGER_SUFFIX, Ledger, ledgers_again, storage_in_words
from fink_dask.ledger.outdir import check_outdir
from fink_dask.ledger.summary import summarise

_INTENT = "restart.json"
_LABEL = "README.txt"
_WORDS = b"Moved here by fink-dask transfer --restart, which deletes it when the new dataset is complete.\n"
#: On an object store: the token, what says that the move is complete, and where the old dataset is.
_BEGUN, _MOVED, _OLD = "begun.json", "moved.json", "old"


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


def is_begun(ledger: Ledger) -> bool:
    """Tell whether there is anything to be moved aside."""
    return ledger.path.is_dir() and bool(set(ledger.store.names(ledger.path)) - {_BEGUN, _MOVED, _OLD})


def set_aside(ledger: Ledger) -> Path:
    """Move dataset and ledger aside; the caller holds the lease, which goes with the ledger.

    Afterwards the ledger may be another one; see `latest`.

    Raises StorageError if the file system refuses, or what is in the output directory is no dataset of this ledger.
    """
    check_outdir(ledger)
    if not ledger.store.renames:
        new = replace(ledger, number=ledger.number + 1)
        files = [path.relative_to(ledger.outdir).as_posix() for path in ledger.store.files_below(ledger.outdir)]
        ledger.store.put_new(new.path / _BEGUN, json.dumps({"files": files}).encode())
        return _move_objects(new)
    name = f"{_prefix(ledger)}{uuid.uuid4().hex[:8]}"
    with storage_in_words(ledger.path):
        # Where there is a token already, its move is the one to complete.
        ledger.store.put_new(ledger.path / _INTENT, json.dumps({"aside": name}).encode())
        return _move(ledger)


def complete_move(ledger: Ledger) -> Path | None:
    """Complete a move that was cut off; None where there was none.

    Raises LedgerError if the job that moves it is alive, or the token is not one that `set_aside` wrote.
    """
    token, done = (_INTENT, None) if ledger.store.renames else (_BEGUN, ledger.path / _MOVED)
    if not (ledger.path / token).is_file() or (done is not None and done.is_file()):
        return None
    with hold_lease(ledger), storage_in_words(ledger.path):
        return _move(ledger) if ledger.store.renames else _move_objects(ledger)


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
    prefix = _prefix(ledger)
    paths = [again.path / _OLD for again in ledgers_again(ledger)]
    if ledger.store.renames:
        paths += [path for path in sorted(ledger.first_path.parent.iterdir()) if path.name.startswith(prefix)]
    # An empty one has lost its label, which goes last: only its own removal was cut off.
    return [
        OldDataset(path, Ledger(path / ledger.outdir.name))
        for path in paths
        if path.is_dir() and ((path / _LABEL).is_file() or not any(path.iterdir()))
    ]


def delete_old_dataset(old: OldDataset) -> None:
    """Delete what was moved aside; the next call finds what can't be deleted now."""
    parts = (old.ledger.outdir, old.ledger.path)
    for part in parts:
        old.ledger.store.remove_tree(part)
    # The label goes last, so that a deletion that is cut off is found and completed.
    if not any(part.exists() for part in parts):
        old.ledger.store.remove_tree(old.path)


def _move(ledger: Ledger) -> Path:
    """Carry out what the token says, from wherever it was cut off."""
    aside, parent = _destination(ledger), ledger.first_path.parent
    aside.mkdir(exist_ok=True)
    with suppress(FileExistsError):  # a torn one will do: only its name counts
        ledger.store.write_new(aside / _LABEL, _WORDS)
    ledger.store.sync(parent)
    old = Ledger(aside / ledger.outdir.name)
    if ledger.outdir.exists() and not old.outdir.exists():
        ledger.outdir.rename(old.outdir)
    for directory in (aside, ledger.outdir.parent):
        ledger.store.sync(directory)
    ledger.path.rename(old.path)
    for directory in (aside, parent, ledger.path.parent):
        ledger.store.sync(directory)
    return aside


def _move_objects(ledger: Ledger) -> Path:
    """Carry out what the token says that a ledger on an object store begins with, from wherever it was cut off."""
    old, before = Ledger(ledger.path / _OLD / ledger.outdir.name), replace(ledger, number=ledger.number - 1)
    files = _files(ledger)
    ledger.store.replace(ledger.path / _OLD / _LABEL, _WORDS)
    # The ledger first: an attempt of it that may still run has no staging directory any more, and publishes nothing.
    known = [path.relative_to(before.path).as_posix() for path in ledger.store.files_below(before.path)]
    kept = (f"{_OLD}/",) if before.number else ("again/",)  # what was set aside before, and what counts now
    ledger.store.move_tree(before.path, old.path, [name for name in known if not name.startswith(kept)])
    ledger.store.move_tree(ledger.outdir, old.outdir, files)
    ledger.store.put_new(ledger.path / _MOVED, b"{}")
    return ledger.path / _OLD


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
    return ledger.first_path.with_name(name)


def _files(ledger: Ledger) -> list[str]:
    token = ledger.path / _BEGUN
    try:
        files = json.loads(token.read_bytes())["files"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise LedgerError(f"{token} is damaged") from error
    if not isinstance(files, list) or not all(isinstance(name, str) and _is_below(name) for name in files):
        raise LedgerError(f"{token} is damaged")
    return files


def _is_below(name: str) -> bool:
    return bool(name) and not {"", ".", ".."} & set(name.split("/"))
