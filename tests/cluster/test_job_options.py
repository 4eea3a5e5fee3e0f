"""What a user asks of a batch system: refused in one line where it can't be had, before anything is submitted."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fink_dask.cluster.joboptions import SYSTEMS, JobOptions
from fink_dask.cluster.jobqueue import job_script
from fink_dask.cluster.jobstates import _grid_engine, _slurm
from fink_dask.dataset.ledger import Ledger
from fink_dask.errors import SettingsError
from tests.harness.cli import run_cli

TRANSFER = ("-topic", "ftransfer_ztf_2026-11-01_1", "-outdir", "out", "--servers", "127.0.0.1:1")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--cluster", "nosuch"), "--cluster is nosuch, but must be one of local, slurm, sge"),
        (("--cluster", "slurm"), "jobs of Slurm need cores: give --cores"),
        (("--cluster", "slurm", "--cores", "2"), "jobs of Slurm need memory: give --memory"),
        (("--cluster", "slurm", "--cores", "2", "--memory", "much"), "--memory 'much' is no amount of memory"),
        (("--jobs", "2"), "--jobs is about jobs: it needs --cluster slurm"),
        (("--cluster", "slurm", "--scheduler", "tcp://a:1"), "leave out --cluster, or --scheduler"),
        (("--cluster", "slurm", "--adapt", "1:3", "--jobs", "2"), "--adapt says how many jobs there are"),
        (("--cluster", "slurm", "--adapt", "3:1"), "should be MIN:MAX"),
        (("--cluster", "slurm", "--adapt", "0:1"), "should be MIN:MAX"),
        (("--cluster", "slurm", "--queue", "a\nrm -rf"), "--queue holds a line break"),
        (("--cluster", "slurm", "--job-extra", "a\nrm"), "holds a line break"),
        (("--cluster", "slurm", "--cluster-option", "interface"), "should be KEY=VALUE"),
        (("--cluster", "slurm", "--cluster-option", "security=1"), "security: fink-dask sets it itself"),
        (("--cluster", "htcondor", "--cores", "1", "--memory", "1GB", "--dry-run"), "how much disk to use per job"),
        (("--cluster", "htcondor", "--cores", "1", "--memory", "1GB", "--walltime", "1"), "means nothing to HTCondor"),
    ],
)
def test_jobs_that_can_not_be_are_refused_in_one_line(more: tuple[str, ...], words: str, tmp_path: Path) -> None:
    result = run_cli("transfer", *TRANSFER, *more, cwd=tmp_path, env={"HOME": str(tmp_path)})
    assert result.returncode == 2
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_missing_dask_jobqueue_is_one_line_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with pytest.raises(SettingsError, match=r"pip install 'fink-dask\[hpc\]'"):
        JobOptions("slurm", cores=1, memory="1GB").resolve()


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.filterwarnings("ignore:OAR Job memory")
def test_every_batch_system_gets_a_script_that_starts_encrypted_workers(system: str, tmp_path: Path) -> None:
    more = {"options": {"disk": "1GB"}} if system == "htcondor" else {"queue": "night"}
    spec = JobOptions(system, jobs=3, cores=4, memory="4GB", **more).resolve()
    script = job_script(spec, Ledger(tmp_path / "out"))
    assert "distributed.cli.dask_worker" in script
    assert f"--tls-key {tmp_path}/out.fink/jobs/key.pem" in script
    assert "--nthreads 2" in script
    assert spec.consumers == 12
    assert system == "htcondor" or "night" in script
    assert not (tmp_path / "out.fink").exists()


def test_a_directory_that_a_script_can_not_hold_is_refused(tmp_path: Path) -> None:
    spec = JobOptions("slurm", cores=1, memory="1GB").resolve()
    with pytest.raises(SettingsError, match="a job script can't hold"):
        spec.keywords(tmp_path / "my $(alerts)", None)


def test_the_answers_of_batch_systems_are_read() -> None:
    slurm = _slurm("12|PENDING|Resources\n13|RUNNING|None\n14|NODE_FAIL|NodeDown\n")
    assert (slurm["12"].waits, slurm["12"].words) == (True, "PENDING (Resources)")
    assert not slurm["13"].waits | slurm["13"].ended
    assert slurm["14"].ended
    head = "job-ID  prior   name       user         state submit/start at     queue  slots ja-task-ID\n-----\n"
    row = "      {} 0.55500 fink-dask  ada          {:<5} 11/23/2026 15:44:37 all.q@n1  1\n"
    sge = _grid_engine(head + row.format(7, "qw") + row.format(8, "r") + row.format(9, "Eqw"))
    assert sge["7"].waits
    assert not sge["8"].waits | sge["8"].ended
    assert sge["9"].ended
