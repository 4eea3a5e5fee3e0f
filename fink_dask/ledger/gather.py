"""Gather ledgers: out of the directory of a season, where readers would stumble over them, beside it.

One rename moves a ledger, so that there is one of each dataset at any moment; `find_ledger` looks in both places.
"""

from __future__ import annotations

from pathlib import Path

from fink_dask.errors import LedgerError, SettingsError
from fink_dask.ledger.lease import hold_lease
from fink_dask.ledger.ledger import LEDGER_SUFFIX, Ledger, storage_error
from fink_dask.ledger.outdir import datasets_in, find_ledger


def gather_ledgers(outdir: Path) -> tuple[list[Ledger], int]:
    """Move the ledgers in a directory to where those of a season are.

    Returns: the datasets in it, and how many ledgers were moved.
    Raises SettingsError if there are no datasets in it.
    Raises LedgerError if a job works on one of them; those before it are moved.
    """
    if find_ledger(outdir).exists():
        raise SettingsError(f"{outdir} is the dataset of one topic, whose ledger is beside it already")
    found = datasets_in(outdir)
    if not found:
        raise SettingsError(f"{outdir} holds no datasets")
    inside = [ledger for ledger in found if not ledger.is_of_season]
    for ledger in inside:
        _move(ledger)
    return datasets_in(outdir), len(inside)


def _move(ledger: Ledger) -> None:
    target = ledger.elsewhere
    if target is None or LEDGER_SUFFIX in ledger.outdir.name:
        raise LedgerError(f"{ledger.outdir} can't be one of a season: its name would be taken for that of a ledger")
    with hold_lease(ledger):  # which also refuses where both places have one
        try:
            ledger.store.make_directory(target.path.parent)
            if target.path.is_dir():
                target.path.rmdir()  # of a transfer that was refused; with anything in it, this fails
            ledger.path.rename(target.path)
            for directory in (target.path.parent, ledger.path.parent):
                ledger.store.sync(directory)
        except OSError as error:
            raise storage_error(error, target.path) from error
