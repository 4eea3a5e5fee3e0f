"""What the user is told of failed ranges: one line that says what happened and what to do; and who decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fink_dask.errors import FinkDaskError, SchemaError, TransferError

_SAFE = "what is committed is safe"
GO_ON = f"{_SAFE}, and the same command goes on from there once the cause is gone"


def failure_of(failures: Sequence[FinkDaskError]) -> TransferError:
    """Sum up the failures of ranges, of which there is at least one."""
    first, *others = failures
    words = f"{first} (and so did {len(others)} more)" if others else f"{first}"
    go_on = _SAFE if isinstance(first, SchemaError) else GO_ON  # the record stays bad
    error = TransferError(f"{words}; {go_on}")
    error.__cause__ = first
    return error


class TopicFailures(Protocol):
    """Decides, for each of a run's topics, what a failure means."""

    def failed(self, topic: str, error: FinkDaskError) -> None:
        """Take note of the failure of a range; the ranges of other topics go on."""

    def is_over(self, topic: str) -> bool:
        """Tell whether the waiting ranges of a topic are no longer wanted."""
