"""Verify a dataset from Python."""

from __future__ import annotations

import os

from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.outdir import check_dataset
from fink_dask.ledger.progress import written_bytes
from fink_dask.show.bar import CountBar
from fink_dask.store.location import locate
from fink_dask.verifying.files import Verification, verify_dataset


def verify(outdir: str | os.PathLike[str], *, progress: bool = True) -> Verification:
    """Prove a dataset: check files, rows, checksums and offsets against its ledger.

    Parameters
    ----------
    outdir : str or os.PathLike
        The dataset's directory; its ledger ``OUTDIR.fink`` is beside it.
    progress : bool
        Show progress, on stderr or below the cell of a notebook.

    Returns
    -------
    Verification
        What was found: ``is_complete`` tells whether every planned offset is in the dataset as it was written;
        ``problems`` lists what is wrong, a line each.

    Raises
    ------
    LedgerError
        If there is no ledger, it is damaged, or a transfer is still changing the dataset.
    StorageError
        If the file system refuses.
    """
    ledger = Ledger(locate(outdir).resolve())
    if not progress:
        return verify_dataset(ledger)
    check_dataset(ledger)
    with CountBar("verifying", written_bytes(ledger)) as bar:
        return verify_dataset(ledger, bar.advance)
