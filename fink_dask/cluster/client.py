"""Connect to a Dask scheduler, also at a moment when it tells all its clients something."""

from __future__ import annotations

import traceback
from typing import Any

from distributed import Client

from fink_dask.errors import TransferError

#: A scheduler that says something to everybody each time that somebody connects is no scheduler for this program.
_TRIES = 5


class _NotAloneError(OSError):
    """Something came with the greeting; as for all errors of this kind, Dask's client closes what it has opened."""


class _Client(Client):  # type: ignore[misc]  # distributed has no types
    """Says so where Dask's client fails with a bare AssertionError, and is left half open at both ends."""

    async def _ensure_connected(self, timeout: float | None = None) -> None:
        try:
            await super()._ensure_connected(timeout)
        except AssertionError as error:
            traceback.clear_frames(error.__traceback__)  # the connection is there and nowhere else
            raise _NotAloneError("the scheduler greets in a way that Dask's client does not understand") from error


def open_client(scheduler: Any, **options: Any) -> Client:
    """Connect to a scheduler, or to that of a cluster; `options` are those of Dask's client.

    Dask's client takes for granted that nothing comes with a scheduler's greeting. Where somebody else's tasks end just
    then, with errors or cancelled, the scheduler says so to all clients, and a busy one says both in one message. The
    next moment is as good as any.

    Raises what Dask's client raises if no scheduler answers.
    Raises TransferError if something comes with every greeting.
    """
    for _ in range(_TRIES):
        try:
            return _Client(scheduler, **options)
        except _NotAloneError as error:
            last = error
    raise TransferError(f"the Dask scheduler can't be used: {last}") from last
