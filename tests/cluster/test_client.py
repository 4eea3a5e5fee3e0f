"""A transfer connects to a Dask scheduler that tells everybody something at that moment."""

from __future__ import annotations

from typing import Any

import pytest
from distributed import LocalCluster, SchedulerPlugin, default_client

from fink_dask.cluster.client import open_client
from fink_dask.cluster.existing import Scheduler
from fink_dask.errors import TransferError
from tests.harness.oracle import wait_for


class SaysSomething(SchedulerPlugin):
    """Tells all clients that somebody's keys are cancelled, right after the greeting of the next few of them."""

    def __init__(self, greetings: int) -> None:
        self.left = greetings

    def add_client(self, scheduler: Any, client: str) -> None:
        if self.left:
            self.left -= 1
            said = {"op": "cancelled-keys", "keys": ["of somebody else"]}
            scheduler.loop.asyncio_loop.call_soon(scheduler.report, said)


def _clients(cluster: LocalCluster) -> set[str]:
    return set(cluster.scheduler.clients) - {"fire-and-forget"}


@pytest.mark.parametrize("is_of_a_user", [True, False])
def test_a_scheduler_that_tells_everybody_something_while_a_transfer_connects_does_not_end_it(
    is_of_a_user: bool,
) -> None:
    with LocalCluster(n_workers=0, processes=False, protocol="tcp://", dashboard_address=None) as cluster:
        plugin = SaysSomething(2)
        cluster.scheduler.add_plugin(plugin)
        with Scheduler(cluster.scheduler_address).connect() if is_of_a_user else open_client(cluster) as client:
            assert client.submit(sum, [1, 2]).status == "pending"
            assert plugin.left == 0
            wait_for(lambda: _clients(cluster) == {client.id}, "the end of the connections that failed")


def test_a_scheduler_that_always_does_is_refused_in_a_line() -> None:
    with LocalCluster(n_workers=0, processes=False, protocol="tcp://", dashboard_address=None) as cluster:
        cluster.scheduler.add_plugin(SaysSomething(100))
        with pytest.raises(TransferError, match="scheduler"):
            open_client(cluster)
        wait_for(lambda: _clients(cluster) == set(), "the end of the connections that failed")
        with pytest.raises(ValueError, match="client"):
            default_client()
