"""Clusters of dask-gateway: whoever has no machine but asks a gateway for one transfers as on any other cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.alerts.made_up import AlertKind
from tests.harness.cli import environment, unhurried
from tests.harness.dask import transfer_adapting
from tests.harness.gateway import running_gateway
from tests.harness.oracle import assert_exactly_once, fill_topic

pytestmark = [pytest.mark.commands, pytest.mark.timeout(400)]


def test_a_cluster_of_a_gateway_grows_from_nothing_and_shrinks_without_loss(
    kafka: Any, topic_name: str, tmp_path: Path, dask_gateway: None
) -> None:
    """The lines of docs/clusters.md; its own `adapt`, which looks at what waits and how long tasks take."""
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 6000, partitions=12)
    slowly = unhurried(tmp_path / "hurry")
    with running_gateway(tmp_path, slowly) as (python, address):
        cluster, servers = f"dask_gateway.Gateway({address!r}).new_cluster()", kafka.bootstrap_servers
        env = environment(slowly)
        found = transfer_adapting(cluster, topic_name, servers, tmp_path, env, pace="", python=str(python))
    assert found == [6000, 0, 3, 1]
    assert_exactly_once(tmp_path / "alerts", oracle.values)
