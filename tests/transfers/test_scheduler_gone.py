"""A scheduler that goes away is said in words, in whatever moment the client learns of it."""

from __future__ import annotations

from typing import Any

import pytest

from fink_dask.errors import TransferError
from fink_dask.transfers import crew, job


class _Client:
    """A client whose scheduler dies while it is asked for its workers: Dask then knows of none, under no name."""

    id = "client"
    status = "running"

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        self.status = "closed"
        return {}


def test_a_client_that_closes_while_it_is_asked_is_no_unexpected_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "_LOOK_S", 0.0)
    run = job._Run(_Client(), [], 1, lambda _: None, job.NO_LOOKAHEAD)
    run.check_cluster()
    with pytest.raises(TransferError, match="the Dask scheduler went away"):
        run.check_cluster()
