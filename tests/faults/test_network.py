"""Row 21, as far as Dask goes: the network between a worker and its scheduler is cut for a while."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.alerts.made_up import AlertKind
from tests.harness.cli import PROGRAM, SLOWLY, environment, run_cli, transfer_arguments
from tests.harness.dask import answers, scheduler_command, worker_command
from tests.harness.kafka_settings import HOST, free_ports
from tests.harness.oracle import assert_exactly_once, fill_topic, wait_for
from tests.harness.proxy import Wire


@contextmanager
def cluster_behind_a_wire(folder: Path) -> Iterator[tuple[str, list[Wire]]]:
    """Run a scheduler with two workers; what one of them says and hears goes through wires that can be cut."""
    scheduler, near, far, to_scheduler, to_worker = free_ports(5)
    size = ("--nthreads", "1", "--local-directory", str(folder))
    wired = ("--listen-address", f"tcp://{HOST}:{far}", "--contact-address", f"tcp://{HOST}:{to_worker}")
    commands = [
        scheduler_command(scheduler),
        worker_command(f"tcp://{HOST}:{scheduler}", *size, "--listen-address", f"tcp://{HOST}:{near}"),
        worker_command(f"tcp://{HOST}:{to_scheduler}", *size, *wired),
    ]
    with (
        Wire(to_scheduler, scheduler) as up,
        Wire(to_worker, far) as down,
        (folder / "dask.log").open("wb") as log,
    ):
        running = [subprocess.Popen(command, stderr=log, env=environment(SLOWLY)) for command in commands]
        try:
            address = f"tcp://{HOST}:{scheduler}"
            wait_for(lambda: answers(address, 2), "the workers")
            yield address, [up, down]
        finally:
            for process in running:
                process.kill()
                process.wait()


@pytest.mark.faults
@pytest.mark.parametrize("cut_s", [12, 60])
def test_21_a_network_that_is_cut_between_worker_and_scheduler_costs_nothing(
    kafka: Any, topic_name: str, tmp_path: Path, cut_s: float
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 24_000, partitions=8)
    outdir = tmp_path / "alerts"
    with cluster_behind_a_wire(tmp_path) as (address, wires):
        arguments = transfer_arguments(kafka, topic_name, outdir, "--scheduler", address, "-batchsize", "1")
        process = subprocess.Popen(
            [*PROGRAM, *arguments, "-nconsumers", "2"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(SLOWLY),
        )
        markers = outdir.with_name("alerts.fink") / "markers"
        wait_for(lambda: process.poll() is not None or (markers.is_dir() and any(markers.iterdir())), "a range")
        for wire in wires:
            wire.cut()
        deadline = time.monotonic() + cut_s
        wait_for(lambda: time.monotonic() > deadline, "the cut", timeout_s=cut_s + 5)
        for wire in wires:
            wire.mend()
        _, err = process.communicate(timeout=300)
    assert "Traceback" not in err
    if process.returncode != 0:
        assert process.returncode == 1
        assert run_cli(*transfer_arguments(kafka, topic_name, outdir)).returncode == 0
    assert_exactly_once(outdir, oracle.values)
    assert run_cli("verify", str(outdir)).returncode == 0
