"""Clusters of dask-gateway: whoever has no machine but asks a gateway for one transfers as on any other cluster."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.alerts.made_up import AlertKind
from tests.harness.cli import SLOWLY, environment
from tests.harness.gateway import running_gateway
from tests.harness.oracle import assert_exactly_once, fill_topic

pytestmark = [pytest.mark.commands, pytest.mark.timeout(400)]


def test_a_cluster_of_a_gateway_grows_from_nothing_and_shrinks_without_loss(
    kafka: Any, topic_name: str, tmp_path: Path, dask_gateway: None
) -> None:
    """The lines of docs/clusters.md; its own `adapt`, which looks at what waits and how long tasks take."""
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 6000, partitions=12)
    script = tmp_path / "script.py"
    script.write_text(
        f"""\
import sys
import threading
from dataclasses import replace

import fink_dask
from dask_gateway import Gateway
from fink_dask.api import transfer


def watch():
    while not over.wait(0.1):
        seen.append(len(client.nthreads()))
        if seen[-1] == 3 and 3 not in seen[:-1]:
            cluster.adapt(minimum=0, maximum=1)


if __name__ == "__main__":
    asked = transfer.transfer_settings
    transfer.transfer_settings = lambda *of, **more: replace(asked(*of, **more), batchsize=1)  # it takes some seconds
    seen, over = [], threading.Event()
    with Gateway(sys.argv[1]).new_cluster() as cluster:
        cluster.adapt(minimum=0, maximum=3)
        with cluster.get_client() as client:
            watching = threading.Thread(target=watch)
            watching.start()
            done = fink_dask.transfer({topic_name!r}, "alerts", {kafka.bootstrap_servers!r}, client=client)
            over.set()
            watching.join()
    print(done.summary.state, done.summary.alerts, seen[0], max(seen), min(seen[seen.index(3) :]))
"""
    )
    with running_gateway(tmp_path, SLOWLY) as (python, address):
        done = subprocess.run(
            [str(python), str(script), address],
            cwd=tmp_path,
            env=environment(SLOWLY),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "complete 6000 0 3 1\n", done.stderr
    assert_exactly_once(tmp_path / "alerts", oracle.values)
