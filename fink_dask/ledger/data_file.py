"""A file of a dataset, as a marker names it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from fink_dask.errors import LedgerError


@dataclass(frozen=True)
class DataFile:
    """A file that a range wrote, or the share that it has in a file of many ranges.

    Parameters
    ----------
    path : str
        Where it belongs, relative to the dataset (to the ledger, for a quarantine file), with slashes.
    staged : str
        Its name in the staging directory of the attempt.
    rows : int
        The range's rows in it.
    size : int
        Its bytes.
    sha256 : str
        Hash of its content.
    file_rows : int or None
        All rows of a compacted file, which holds those of other ranges as well; None for a range's own file.
    """

    path: str
    staged: str
    rows: int
    size: int
    sha256: str
    file_rows: int | None = None

    def __post_init__(self) -> None:
        for name in (self.path, self.staged):
            check_inside(name)
        if self.rows < 0 or self.size < 0 or (self.file_rows is not None and self.file_rows < self.rows):
            raise LedgerError(f"a marker gives {self.path[:80]!r} an impossible size")

    @property
    def all_rows(self) -> int:
        """Rows of the whole file."""
        return self.rows if self.file_rows is None else self.file_rows

    @property
    def is_shared(self) -> bool:
        """Tell whether other ranges have rows in it as well."""
        return self.file_rows is not None


def check_inside(name: str) -> None:
    """Refuse the name of a file that would lie outside dataset and ledger."""
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts or "\0" in name or "://" in name:
        raise LedgerError(f"a marker names a file outside the dataset: {name[:80]!r}")
