"""A Dask scheduler that is there already."""

from __future__ import annotations

from collections.abc import Iterator

import dask
import pytest
from distributed import LocalCluster

from fink_dask.cluster.local import DASK_CONFIG


@pytest.fixture(scope="session")
def dask_scheduler() -> Iterator[str]:
    """Yield the address of a scheduler with two workers."""
    with (
        dask.config.set(DASK_CONFIG),
        LocalCluster(n_workers=2, threads_per_worker=2, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster,
    ):
        yield cluster.scheduler_address
