"""What a user asks of a batch system: refused in one line where it can't be had, before anything is submitted."""

from __future__ import annotations

import shlex
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask
import pytest
import yaml

from fink_dask.cli.submit import _LEFT_OUT
from fink_dask.cli.transfer import transfer
from fink_dask.cluster import choice
from fink_dask.cluster.choice import ClusterChoice
from fink_dask.cluster.joboptions import JobOptions
from fink_dask.cluster.jobqueue import job_script
from fink_dask.cluster.jobs import UNREACHED, _last_words
from fink_dask.cluster.jobspec import resolve
from fink_dask.cluster.jobwatch import JobWatch
from fink_dask.cluster.readiness import Needs
from fink_dask.cluster.submit import BatchTransfer
from fink_dask.cluster.systems import SYSTEMS, read_grid_engine, read_slurm
from fink_dask.errors import SettingsError
from fink_dask.ledger.ledger import Ledger
from fink_dask.progress.tally import Progress
from fink_dask.running import run
from fink_dask.settings import KafkaSettings, TransferSettings, options_of
from fink_dask.store.location import locate
from tests.harness.cli import run_cli
from tests.harness.object_store import KEY_ID, SECRET, ObjectStore

JOB = ("--cluster", "slurm", "--cores", "2", "--memory", "4GB")
TRANSFER = ("-topic", "ftransfer_ztf_2026-11-01_1", "-outdir", "out", "--servers", "127.0.0.1:1")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--cluster", "nosuch"), "local, slurm, sge"),
        (("--cluster", "slurm"), "--cores"),
        (("--cluster", "slurm", "--cores", "2"), "--memory"),
        (("--cluster", "slurm", "--cores", "2", "--memory", "much"), "--memory 'much'"),
        (("--jobs", "2"), "--cluster slurm"),
        (("--cluster", "slurm", "--scheduler", "tcp://a:1"), "--scheduler"),
        (("--cluster", "slurm", "--adapt", "1:3", "--jobs", "2"), "--jobs"),
        (("--cluster", "slurm", "--adapt", "3:1"), "MIN:MAX"),
        (("--cluster", "slurm", "--adapt", "0:1"), "MIN:MAX"),
        (("--cluster", "slurm", "--queue", "a\nrm -rf"), "--queue"),
        (("--cluster", "slurm", "--job-extra", "a\nrm"), r"--job-extra 'a\nrm'"),
        (("--cluster", "Local", "--jobs", "2"), "--cluster slurm"),
        (("--cluster", "slurm", "--cluster-option", "interface"), "KEY=VALUE"),
        ((*JOB, "--cluster-option", "job_name=a\nrm"), "--cluster-option job_name"),
        ((*JOB, "--cluster-option", "job_extra_directives=--foo"), "--cluster-option job_extra_directives"),
        ((*JOB, "--cluster-option", "scheduler_options=5"), "--cluster-option scheduler_options"),
        ((*JOB, "--cluster-option", "processes=None"), "--cluster-option processes=4"),
        (("--cluster", "slurm", "--cluster-option", "security=1"), "--cluster-option security"),
        (("--cluster", "htcondor", "--cores", "1", "--memory", "1GB", "--dry-run"), "how much disk to use per job"),
        (("--cluster", "htcondor", "--cores", "1", "--memory", "1GB", "--walltime", "1"), "--walltime"),
    ],
)
def test_jobs_that_can_not_be_are_refused_in_one_line(more: tuple[str, ...], words: str, tmp_path: Path) -> None:
    result = run_cli("transfer", *TRANSFER, *more, cwd=tmp_path, env={"HOME": str(tmp_path)})
    assert result.returncode == 2
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("5", r"^jobqueue\.site\b"),
        ("[1, 2]", r"^jobqueue\.site\b"),
        ("{walltime: 12:00:00}", r"^walltime\b.*jobqueue\.site\b.* 43200\b"),
        ("{job-extra-directives: --foo}", r"^job-extra-directives\b.*jobqueue\.site\b"),
        ("{job-script-prologue: [7]}", r"^job-script-prologue\b.*jobqueue\.site\b"),
        ('{queue: "a\\nb"}', r"^queue\b.*jobqueue\.site\b"),
    ],
)
def test_a_section_that_would_be_another_job_script_is_refused(section: str, words: str) -> None:
    jobs = JobOptions("slurm", cores=1, memory="1GB", config_name="site")
    with dask.config.set({"jobqueue.site": yaml.safe_load(section)}), pytest.raises(SettingsError, match=words):
        resolve(jobs)


def test_a_section_of_a_users_own_file_that_can_not_be_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / ".config" / "dask"
    folder.mkdir(parents=True)
    (folder / "site.yaml").write_text("jobqueue:\n  site: 5\n")
    more = (*JOB, "--cluster-config", "site", "--dry-run")
    result = run_cli("transfer", *TRANSFER, *more, cwd=tmp_path, env={"HOME": str(tmp_path)}, afresh=True)
    assert result.returncode == 2
    assert "jobqueue.site" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_the_least_number_of_jobs_is_refused_by_the_name_of_its_option() -> None:
    with pytest.raises(SettingsError, match=r"^--adapt\b.* 0\b"):
        JobOptions("slurm", jobs=2, min_jobs=0)


def test_a_missing_dask_jobqueue_is_one_line_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with pytest.raises(SettingsError, match=r"pip install 'fink-dask\[hpc\]'"):
        resolve(JobOptions("slurm", cores=1, memory="1GB"))


@pytest.mark.parametrize(
    ("memory", "limit", "words"),
    [("1GB", None, "--memory.*--cores"), ("8GB", 2 * 10**9, "--memory-limit")],
)
def test_jobs_with_too_little_memory_are_refused_with_what_helps(memory: str, limit: int | None, words: str) -> None:
    spec = resolve(JobOptions("slurm", jobs=4, cores=8, memory=memory))
    with pytest.raises(SettingsError, match=f"MB .*{words}"):
        spec.memory_share(limit)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.filterwarnings("ignore:OAR Job memory")
def test_every_batch_system_gets_a_script_that_starts_encrypted_workers(system: str, tmp_path: Path) -> None:
    more = {"options": {"disk": "1GB"}} if system == "htcondor" else {"queue": "night"}
    spec = resolve(JobOptions(system, jobs=3, cores=4, memory="4GB", **more))
    script = job_script(spec, Ledger(tmp_path / "out"))
    assert "distributed.cli.dask_worker" in script
    assert f"--tls-key {tmp_path}/out.fink/jobs/key.pem" in script
    assert "--nthreads 2" in script
    assert spec.consumers == 12
    assert system == "htcondor" or "night" in script
    # The time limit that submit says is that of the script, also where nobody asked for one.
    assert (spec.walltime is None) is (system == "htcondor")
    assert spec.walltime is None or spec.walltime.removeprefix("00:") in script
    assert not (tmp_path / "out.fink").exists()


def test_jobs_whose_dataset_is_on_a_store_keep_logs_and_keys_in_the_working_directory_and_no_credentials(
    object_store: ObjectStore, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = resolve(JobOptions("slurm", cores=1, memory="1GB"))
    script, other = (job_script(spec, Ledger(locate(url))) for url in (store_url, f"{store_url}/x"))
    (room,) = {line.split("--tls-key ")[1].split("/key.pem")[0] for line in script.splitlines() if "--tls-key" in line}
    assert Path(room).parent == tmp_path
    assert room not in other, "two datasets would share the keys"
    result = run_cli("submit", *TRANSFER, "--outdir", store_url, *JOB, "--dry-run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"--outdir {store_url}" in result.stdout
    assert f" -o {tmp_path}/" in result.stdout
    assert not any(secret in text for secret in (SECRET, KEY_ID) for text in (script, result.stdout))
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_a_script_can_not_hold_is_refused(tmp_path: Path) -> None:
    spec = resolve(JobOptions("slurm", cores=1, memory="1GB"))
    with pytest.raises(SettingsError, match=r"my \$\(alerts\)"):
        spec.keywords(tmp_path / "my $(alerts)", None)
    with pytest.raises(SettingsError, match=r"my alerts.*--outdir"):
        job_script(spec, Ledger(tmp_path / "my alerts"))  # as --dry-run does
    with pytest.raises(SettingsError, match=r"my nights.*--outdir"):
        BatchTransfer(spec, tmp_path / "my nights", ()).script()


def test_a_python_that_a_script_can_not_hold_is_refused_as_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/home/ada/my env/bin/python")
    spec = resolve(JobOptions("slurm", cores=1, memory="1GB"))
    with pytest.raises(SettingsError, match=r"/home/ada/my env/bin/python(?!.*--outdir)"):
        spec.keywords(tmp_path, None)
    other = resolve(JobOptions("slurm", cores=1, memory="1GB", options={"python": "/env/bin/python"}))
    assert "/env/bin/python -m distributed" in job_script(other, Ledger(tmp_path / "out"))


def test_a_transfer_that_is_submitted_is_one_job(tmp_path: Path) -> None:
    result = run_cli("submit", *TRANSFER, *JOB, "--jobs", "4", cwd=tmp_path)
    assert result.returncode == 2
    assert "'--jobs'" in result.stderr


def test_each_option_of_a_transfer_comes_to_the_job_that_is_submitted(tmp_path: Path) -> None:
    for name in ("password", "ca.pem", "schema.avsc"):
        (tmp_path / name).write_text("{}")
    typed = {
        "--survey": "ztf",
        "--security-protocol": "SASL_SSL",
        "--sasl-mechanism": "OAUTHBEARER",
        "--oauth-token-url": "https://login.example/token",
        "--oauth-scope": "alerts",
        "--username": "ada",
        "--password-file": "password",
        "--ssl-ca-file": "ca.pem",
        "--partitionby": "finkclass,time",
        "--nconsumers": "3",
        "--batchsize": "77",
        "--columns": "candid,jd",
        "--where": "magpsf < 18 and fid == 1",
        "--outformat": "avro",
        "--compression": "lz4",
        "--memory-limit": "2GB",
        "--limit": "99",
        "--schema": "schema.avsc",
        "--framing": "none",
        "--since": "2026-11-01T00:00:00Z",
        "--wait-for-topic": "10m",
        "--on-bad-record": "fail",
        "--on-loss": "fail",
        "--roll-interval": "5s",
        "--idle-timeout": "90s",
        "--until-count": "4000",
        "--until": "2026-11-02T00:00:00Z",
        "--reconnect-timeout": "2m",
        "--limit-rate": "40Mbit/s",
        "--group-id": "my group",
        "--maxtimeout": "5.0",
        "--number-partitions": "10",
    }
    flags = ["--follow", "--dump-schemas", "--restart", "--yes", "--force", "--profile"]
    given = [word for pair in typed.items() for word in pair]
    result = run_cli("submit", *TRANSFER, *JOB, *given, *flags, "--dry-run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("exec "))
    words = shlex.split(line)
    for option, value in typed.items():
        assert words[words.index(option) + 1] == value
    assert set(flags) < set(words)
    # None is forgotten here: what is left are options about workers elsewhere, or about this terminal.
    elsewhere = _LEFT_OUT | set(options_of(JobOptions))
    wanted = {each.opts[0] for each in transfer.params if each.name not in elsewhere}
    assert wanted <= {*typed, *flags, "--topic", "--outdir", "--bootstrap-servers"}


def test_the_last_words_of_a_job_are_the_cause() -> None:
    log = (
        f"Start Nanny\nOSError: {UNREACHED} to tls://192.0.2.77:8786 after 30 s\nRuntimeError: Nanny failed to start.\n"
    )
    assert _last_words(log).startswith(f"OSError: {UNREACHED} to tls://192.0.2.77")
    assert _last_words("bash: no-such-python: command not found\n\n") == "bash: no-such-python: command not found"
    assert _last_words(" \n") == ""


def test_the_answers_of_batch_systems_are_read() -> None:
    slurm = read_slurm("12|PENDING|Resources\n13|RUNNING|None\n14|NODE_FAIL|NodeDown\n")
    assert (slurm["12"].waits, slurm["12"].words) == (True, "PENDING (Resources)")
    assert not slurm["13"].waits | slurm["13"].ended
    assert slurm["14"].ended
    head = "job-ID  prior   name       user         state submit/start at     queue  slots ja-task-ID\n-----\n"
    row = "      {} 0.55500 fink-dask  ada          {:<5} 11/23/2026 15:44:37 all.q@n1  1\n"
    sge = read_grid_engine(head + row.format(7, "qw") + row.format(8, "r") + row.format(9, "Eqw"))
    assert sge["7"].waits
    assert not sge["8"].waits | sge["8"].ended
    assert sge["9"].ended


def test_jobs_for_several_topics_look_for_the_topic_whose_ledger_they_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was asked for may be a pattern, which is no topic that a worker could see."""
    asked: list[tuple[str, Path]] = []

    def submit(_: Any, needs: Needs, *more: Any) -> AbstractContextManager[None]:
        asked.append((needs.topic, needs.ledger.outdir))
        return nullcontext()

    monkeypatch.setattr(choice, "job_queue_cluster", submit)
    settings = TransferSettings("ftransfer_ztf_*", tmp_path, KafkaSettings("127.0.0.1:1"))
    spec: Any = SimpleNamespace(is_encrypted=True)
    first: Any = SimpleNamespace(topic="ftransfer_ztf_1", ledger=Ledger(tmp_path / "ftransfer_ztf_1"))
    workers: Any = None
    with run._connect(settings, Progress(lambda _: None), ClusterChoice(jobs=spec), workers, first, 1, False):
        pass
    assert asked == [("ftransfer_ztf_1", tmp_path / "ftransfer_ztf_1")]


def test_a_job_that_was_no_help_is_replaced_after_seconds_and_the_next_one_after_more() -> None:
    spec: Any = SimpleNamespace(asked=SimpleNamespace(min_jobs=None))
    watch = JobWatch(None, spec, 1, Progress(lambda _: None))
    pauses = []
    for in_a_row in (1, 2, 10):
        now = time.monotonic()
        watch._pause(in_a_row)
        pauses.append(watch._not_before - now)
    assert 1 < pauses[0] < pauses[1] < pauses[2]
