"""Transfers in jobs of a real Slurm: exactly once, whatever becomes of jobs, and one line where they do not help."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fink_dask.demo.alerts import AlertKind
from tests.harness.cli import PROGRAM, SLOWLY, environment, run_cli, transfer_arguments
from tests.harness.oracle import assert_exactly_once, fill_topic, wait_for
from tests.harness.slurm import Slurm

#: A job, on loopback as the whole Slurm is.
JOB = ("--cluster", "slurm", "--cores", "1", "--memory", "2GB", "--cluster-option", "interface=lo")


@pytest.fixture
def settings(slurm: Slurm, tmp_path: Path) -> dict[str, str]:
    """Return the environment of a user of this Slurm; dask-jobqueue keeps a file in the home directory."""
    home = tmp_path / "home"
    home.mkdir()
    return environment(slurm.environment | {"HOME": str(home)})


@pytest.fixture(scope="module")
def small_topic(kafka: Any, module_topic: str) -> str:
    """Name a topic that several tests read."""
    fill_topic(kafka.bootstrap_servers, module_topic, AlertKind.ZTF_LIGHT, 2000, partitions=4)
    return module_topic


def start(arguments: list[str], settings: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=settings
    )


def markers(outdir: Path) -> int:
    return len(list((outdir.with_name(f"{outdir.name}.fink") / "markers").glob("*")))


def gone(slurm: Slurm) -> bool:
    return not slurm.jobs()


@pytest.mark.parametrize(
    ("kind", "count", "batchsize"),
    [(AlertKind.ZTF_LIGHT, 200_000, 20), (AlertKind.ZTF_FULL, 3_000, 1)],
    ids=lambda value: getattr(value, "value", str(value)),
)
@pytest.mark.timeout(600)
def test_a_job_that_is_cancelled_and_a_node_that_dies_in_mid_run_cost_no_alert(
    slurm: Slurm,
    settings: dict[str, str],
    kafka: Any,
    topic_name: str,
    tmp_path: Path,
    kind: AlertKind,
    count: int,
    batchsize: int,
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, kind, count, partitions=20)
    outdir = tmp_path / "out"
    more = ("--jobs", "3", "-batchsize", str(batchsize), "-partitionby", "time")
    process = start(transfer_arguments(kafka, topic_name, outdir, *JOB, *more), settings | SLOWLY)
    try:
        wait_for(lambda: process.poll() is not None or markers(outdir) >= 2, 120, "ranges")
        jobs = slurm.jobs("RUNNING")
        assert len(jobs) == 3
        cancelled, doomed = jobs[0], slurm.node_of(jobs[1])
        slurm.run("scancel", cancelled)
        before = markers(outdir)
        wait_for(lambda: process.poll() is not None or markers(outdir) > before, 120, "another range")
        slurm.down(doomed)
        before = markers(outdir)
        wait_for(lambda: process.poll() is not None or markers(outdir) > before, 120, "another range")
        slurm.up(doomed)
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
        if doomed not in slurm.running():
            slurm.up(doomed)
    assert process.returncode == 0, err
    assert "complete" in out
    assert f"job {cancelled}: CANCELLED" in err
    assert err.count("another one takes its place") >= 2, err
    assert "Traceback" not in err
    assert_exactly_once(outdir, oracle.values)
    assert run_cli("verify", str(outdir)).returncode == 0
    wait_for(lambda: gone(slurm), 30, "the jobs to be cancelled")
    assert not (outdir.with_name("out.fink") / "jobs").exists()


def test_jobs_that_come_late_get_work(
    slurm: Slurm, settings: dict[str, str], kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    """More jobs than nodes have room for: those that waited work when the others' nodes are free."""
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 12_000, partitions=12)
    hold = ["sbatch", "--parsable", "-c4", "-o/dev/null", "--wrap", "sleep 600"]
    held = [slurm.run(*hold, "-w", node).strip() for node in slurm.nodes[:2]]
    wait_for(lambda: set(held) <= set(slurm.jobs("RUNNING")), 30, "the nodes to be full")
    outdir = tmp_path / "out"
    more = ("--jobs", "2", "--job-extra", "--exclusive", "-batchsize", "1", "--json")
    process = start(transfer_arguments(kafka, topic_name, outdir, *JOB, *more), settings | SLOWLY)
    try:
        wait_for(lambda: process.poll() is not None or markers(outdir) > 0, 120, "a range")
        assert len(slurm.jobs("PENDING")) == 1
        slurm.run("scancel", *held)
        wait_for(lambda: process.poll() is not None or len(slurm.jobs("RUNNING")) == 2, 120, "the other job")
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
        slurm.run("scancel", *held, check=False)
    assert process.returncode == 0, err
    assert json.loads(out)["state"] == "complete"
    assert_exactly_once(outdir, oracle.values)


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        (("--queue", "nosuch"), 1, "Slurm refused a job: sbatch: error: .*nvalid partition"),
        (("--job-extra", "--mem=900G"), 1, "Slurm refused a job: sbatch: error: .*"),
        (
            ("--cluster-option", 'job_script_prologue=["echo no such module; exit 3"]'),
            1,
            r"Slurm job \d+: FAILED .*\(no such module\); no worker of 2 jobs has come, see /.*/fink-dask-\d+\.out",
        ),
        (("--cluster-option", "python=/no/python"), 1, r"Slurm job \d+: FAILED .*No such file or directory"),
        (
            ("--cluster-option", "interface=nosuch0"),
            1,
            "no Dask scheduler for jobs of Slurm could be started: .*nosuch0",
        ),
        (("--cluster-option", "nosuch=1"), 2, "--cluster-option nosuch: there is none such for Slurm"),
        (("--cluster-config", "nosuch"), 2, "--cluster-config nosuch: Dask's configuration has no such section"),
        (("--cores", "8", "--memory", "1GB"), 2, "MiB of memory are too little"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_what_is_wrong_with_the_jobs_is_one_line_and_leaves_nothing(
    slurm: Slurm,
    settings: dict[str, str],
    kafka: Any,
    small_topic: str,
    tmp_path: Path,
    more: tuple[str, ...],
    status: int,
    words: str,
) -> None:
    result = run_cli(*transfer_arguments(kafka, small_topic, tmp_path / "out", *JOB, *more), env=settings)
    assert result.returncode == status, result.stderr
    errors = [line for line in result.stderr.splitlines() if "error: " in line]
    assert len(errors) == 1
    assert re.search(words, errors[0]), errors[0]
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()
    assert gone(slurm)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda value: value.name)
def test_whatever_ends_a_transfer_no_job_is_left_and_it_can_be_resumed(
    slurm: Slurm, settings: dict[str, str], kafka: Any, topic_name: str, tmp_path: Path, number: signal.Signals
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 12_000, partitions=12)
    outdir = tmp_path / "out"
    arguments = transfer_arguments(kafka, topic_name, outdir, *JOB, "--jobs", "2", "-batchsize", "1")
    process = start(arguments, settings | SLOWLY)
    try:
        wait_for(lambda: process.poll() is not None or markers(outdir) > 0, 120, "a range")
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number], err
    assert "Traceback" not in err
    # Killed, it cancels nothing: the jobs end when nobody answers them.
    wait_for(lambda: gone(slurm), 90, "the jobs to end")
    assert run_cli(*arguments, env=settings).returncode == 0
    assert_exactly_once(outdir, oracle.values)


def test_there_are_as_many_jobs_as_there_is_work_for(
    slurm: Slurm, settings: dict[str, str], kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 12_000, partitions=12)
    outdir = tmp_path / "out"
    more = ("--adapt", "1:3", "-batchsize", "1")
    process = start(transfer_arguments(kafka, topic_name, outdir, *JOB, *more), settings | SLOWLY)
    most = 0

    def ended() -> bool:
        nonlocal most
        most = max(most, len(slurm.jobs("RUNNING")))
        return process.poll() is not None

    try:
        wait_for(ended, 240, "the transfer")
    finally:
        process.kill()
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert 2 <= most <= 3
    assert_exactly_once(outdir, oracle.values)


def test_a_dry_run_prints_the_job_script_without_keys_and_submits_nothing(
    slurm: Slurm, settings: dict[str, str], kafka: Any, small_topic: str, tmp_path: Path
) -> None:
    more = ("--queue", "debug", "--account", "ada", "--walltime", "02:00:00", "--job-extra", "--exclusive", "--dry-run")
    arguments = transfer_arguments(kafka, small_topic, tmp_path / "out", *JOB, *more)
    result = run_cli(*arguments, env=settings)
    assert result.returncode == 0, result.stderr
    for line in ("-p debug", "-A ada", "-t 02:00:00", "--exclusive", "--cpus-per-task=1", "--mem=2G", "--no-requeue"):
        assert f"#SBATCH {line}\n" in result.stdout
    assert "--tls-key" in result.stdout
    script = json.loads(run_cli(*arguments, "--json", env=settings).stdout)["job_script"]
    assert result.stdout.endswith(script)
    assert gone(slurm)
    assert list(tmp_path.iterdir()) == [tmp_path / "home"]


def test_a_section_of_dasks_configuration_may_say_it_all_and_leave_out_the_rest(
    slurm: Slurm, settings: dict[str, str], kafka: Any, small_topic: str, tmp_path: Path
) -> None:
    folder = tmp_path / "home" / ".config" / "dask"
    folder.mkdir(parents=True)
    text = "jobqueue:\n  small:\n    cores: 2\n    memory: 3GB\n    interface: lo\n    job-extra-directives: [--nice]\n"
    (folder / "site.yaml").write_text(text)
    options = ("--cluster", "slurm", "--cluster-config", "small")
    arguments = transfer_arguments(kafka, small_topic, tmp_path / "out", *options)
    script = run_cli(*arguments, "--dry-run", env=settings).stdout
    assert "--cpus-per-task=2" in script
    assert "#SBATCH --nice\n" in script
    result = run_cli(*arguments, env=settings)
    assert result.returncode == 0, result.stderr
