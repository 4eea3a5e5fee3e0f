"""What is known of a marker that can't be read."""

from __future__ import annotations

from dataclasses import dataclass

from fink_dask.errors import LedgerError
from fink_dask.kafka.offsets import Range


@dataclass(frozen=True)
class DamagedMarker:
    """A marker that can't be read.

    Parameters
    ----------
    plan_id : str
        The plan of its range.
    range : Range
        The range.
    revision : int
        The number of the marker.
    error : LedgerError
        What is wrong.
    """

    plan_id: str
    range: Range
    revision: int
    error: LedgerError
