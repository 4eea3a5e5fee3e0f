"""Connect to a Dask scheduler, also at a moment when it tells all its clients something."""

from __future__ import annotations

from typing import Any

from distributed import Client

from fink_dask.errors import TransferError

#: A scheduler that says something to everybody each time that somebody connects is no scheduler for this program.
_TRIES = 5


def open_client(scheduler: Any, **options: Any) -> Client:
    """Connect to a scheduler, or to that of a cluster; `options` are those of Dask's client.

    Dask's client takes for granted that nothing comes with a scheduler's greeting. Where somebody else's tasks end just
    then, with errors or cancelled, the scheduler says so to all clients, and a busy one says both in one message: the
    client fails with a bare AssertionError. The next moment is as good as any.

    Raises what Dask's client raises if no scheduler answers.
    Raises TransferError if something comes with every greeting.
    """
    for _ in range(_TRIES):
        try:
            return Client(scheduler, **options)
        except AssertionError as error:
            last = error
    raise TransferError("the Dask scheduler greets in a way that Dask's client does not understand") from last
