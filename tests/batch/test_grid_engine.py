"""Transfers in jobs of a real Grid Engine: exactly once, whatever becomes of the jobs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.alerts.made_up import AlertKind
from tests.harness.batch import PROGRAMS, Started, committed, run
from tests.harness.cli import SLOWLY, environment, run_cli, transfer_arguments
from tests.harness.grid_engine import GridEngine
from tests.harness.oracle import Oracle, assert_exactly_once, fill_topic, wait_for

#: A job, on loopback as the whole Grid Engine is; it does not hand on the environment by itself.
JOB = ("--cluster", "sge", "--cores", "1", "--memory", "2GB", "--cluster-option", "interface=lo", "--job-extra", "-V")


@pytest.fixture
def settings(sge: GridEngine, tmp_path: Path) -> dict[str, str]:
    """Return the environment of a user of this Grid Engine."""
    home = tmp_path / "home"
    home.mkdir()
    return environment(sge.environment | {"HOME": str(home)})


@pytest.mark.parametrize(
    ("kind", "count", "batchsize"),
    [(AlertKind.ZTF_LIGHT, 200_000, 50), (AlertKind.ZTF_FULL, 3_000, 1)],
    ids=lambda value: getattr(value, "value", str(value)),
)
@pytest.mark.timeout(600)
def test_a_job_that_is_deleted_and_a_node_that_dies_in_mid_run_cost_no_alert_on_grid_engine(
    sge: GridEngine,
    settings: dict[str, str],
    kafka: Any,
    large_topic: Callable[[AlertKind, int], tuple[str, Oracle]],
    tmp_path: Path,
    kind: AlertKind,
    count: int,
    batchsize: int,
) -> None:
    topic, oracle = large_topic(kind, count)
    outdir = tmp_path / "out"
    more = ("--jobs", "3", "-batchsize", str(batchsize), "-partitionby", "time")
    with Started(transfer_arguments(kafka, topic, outdir, *JOB, *more), settings | SLOWLY) as started:
        started.wait_until(lambda: len(sge.jobs("r")) == 3, "the jobs")
        started.wait_until(lambda: committed(outdir) >= 2, "ranges")
        jobs = sge.jobs("r")
        sge.run("qdel", jobs[0])
        before = committed(outdir)
        started.wait_until(lambda: committed(outdir) > before, "another range")
        sge.down()
        sge.up()
        out, err = started.finish(timeout_s=400)
    assert "complete" in out
    assert err.count("another") >= 2, err
    assert_exactly_once(outdir, oracle.values)
    assert run_cli("verify", str(outdir)).returncode == 0
    wait_for(lambda: not sge.jobs("r"), "the jobs to be deleted")


def test_a_job_that_grid_engine_refuses_or_that_dies_at_once_is_one_line(
    sge: GridEngine, settings: dict[str, str], kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 10, partitions=1)
    arguments = transfer_arguments(kafka, topic_name, tmp_path / "out", *JOB)
    refused = run_cli(*arguments, "--account", "nosuch", env=settings)
    assert refused.returncode == 1
    assert "Grid Engine" in refused.stderr
    assert "nosuch" in refused.stderr
    prologue = 'job_script_prologue=["echo no such module; exit 3"]'
    died = run_cli(*arguments, "--cluster-option", prologue, env=settings)
    assert died.returncode == 1
    assert "no such module" in died.stderr
    for result in (refused, died):
        assert "Traceback" not in result.stderr
        assert sum("error: " in line for line in result.stderr.splitlines()) == 1


def test_a_submitted_transfer_runs_to_its_end_on_grid_engine(
    sge: GridEngine, settings: dict[str, str], kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 2000, partitions=4)
    outdir = tmp_path / "out"
    where = ["-topic", topic_name, "-outdir", str(outdir), "--servers", kafka.bootstrap_servers]
    result = run_cli("submit", *where, "--cluster", "sge", "--cores", "2", "--memory", "4GB", env=settings)
    assert result.returncode == 0, result.stderr
    assert "submitted to Grid Engine as job" in result.stdout
    wait_for(lambda: not sge.jobs(), "the job")
    assert_exactly_once(outdir, oracle.values)


def test_the_batch_job_in_deploy_works_on_grid_engine(
    sge: GridEngine, settings: dict[str, str], kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 500, partitions=2)
    script = Path(__file__).parents[2] / "deploy" / "grid-engine" / "transfer.qsub"
    # The sites' parallel environments differ; this Grid Engine has none.
    here = tmp_path / "transfer.qsub"
    here.write_text(script.read_text().replace("#$ -pe smp 4\n", ""))
    more = {"FINK_DASK_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "PATH": f"{PROGRAMS}:{settings['PATH']}"}
    run(["qsub", "-o", str(tmp_path / "log"), str(here), topic_name, str(tmp_path / "out")], settings | more)
    wait_for(lambda: not sge.jobs(), "the job")
    assert "complete" in (tmp_path / "log").read_text()
