"""Transfers in jobs of a real Slurm: exactly once, whatever becomes of jobs, and one line where they do not help."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import Client
from distributed.security import Security

from fink_dask.ledger.ledger import Ledger
from tests.alerts.made_up import AlertKind
from tests.harness.batch import PROGRAMS, Started, committed, run
from tests.harness.cli import SLOWLY, environment, run_cli, transfer_arguments, unhurried
from tests.harness.dask import transfer_adapting
from tests.harness.object_store import SECRET, ObjectStore, assert_on_store_once
from tests.harness.oracle import Oracle, add_alerts, assert_exactly_once, fill_topic, wait_for
from tests.harness.secure import PASSWORD, USER, secure_kafka
from tests.harness.slurm import Slurm

#: A job, on loopback as the whole Slurm is.
JOB = ("--cluster", "slurm", "--cores", "1", "--memory", "2GB", "--cluster-option", "interface=lo")

#: What keeps a node for itself.
HOLD = ("sbatch", "--parsable", "-c4", "-o/dev/null", "--wrap", "sleep 600")


@pytest.fixture
def settings(slurm: Slurm, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Yield the environment of a user of this Slurm; dask-jobqueue keeps a file in the home directory."""
    home = tmp_path / "home"
    home.mkdir()
    yield environment(slurm.environment | {"HOME": str(home)})
    # A test that failed is not to make others fail.
    slurm.tidy()


@pytest.fixture(scope="module")
def small_topic(kafka: Any, topic: str) -> str:
    """Name a topic that several tests read."""
    fill_topic(kafka.bootstrap_servers, topic, AlertKind.ZTF_LIGHT, 2000, partitions=4)
    return topic


def gone(slurm: Slurm) -> bool:
    return not slurm.jobs()


@pytest.mark.parametrize(
    ("kind", "count", "batchsize", "cores"),
    [(AlertKind.ZTF_LIGHT, 200_000, 50, 1), (AlertKind.ZTF_FULL, 3_000, 1, 2)],
    ids=lambda value: getattr(value, "value", str(value)),
)
@pytest.mark.timeout(600)
def test_a_job_that_is_cancelled_and_a_node_that_dies_in_mid_run_cost_no_alert(
    slurm: Slurm,
    settings: dict[str, str],
    kafka: Any,
    large_topic: Callable[[AlertKind, int], tuple[str, Oracle]],
    tmp_path: Path,
    kind: AlertKind,
    count: int,
    batchsize: int,
    cores: int,
) -> None:
    topic, oracle = large_topic(kind, count)
    outdir = tmp_path / "out"
    more = ("--cores", str(cores), "--jobs", "3", "-batchsize", str(batchsize), "-partitionby", "time")
    with Started(transfer_arguments(kafka, topic, outdir, *JOB, *more), settings | SLOWLY) as started:
        started.wait_until(lambda: len(slurm.jobs("RUNNING")) == 3, "the jobs")
        started.wait_until(lambda: committed(outdir) >= 2, "ranges")
        jobs = slurm.jobs("RUNNING")
        cancelled, doomed = jobs[0], slurm.node_of(jobs[1])
        slurm.run("scancel", cancelled)
        before = committed(outdir)
        started.wait_until(lambda: committed(outdir) > before, "another range")
        slurm.down(doomed)
        before = committed(outdir)
        started.wait_until(lambda: committed(outdir) > before, "another range")
        slurm.up(doomed)
        out, err = started.finish()
    assert "complete" in out
    assert f"job {cancelled}: CANCELLED" in err
    assert err.count("another") >= 2, err
    assert_exactly_once(outdir, oracle.values)
    assert run_cli("verify", str(outdir)).returncode == 0
    wait_for(lambda: gone(slurm), "the jobs to be cancelled")
    assert not (outdir.with_name("out.fink") / "jobs").exists()


def test_jobs_that_come_late_get_work(
    slurm: Slurm, settings: dict[str, str], kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    """More jobs than nodes have room for: those that waited work when the others' nodes are free."""
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 12_000, partitions=12)
    held = [slurm.run(*HOLD, "-w", node).strip() for node in slurm.nodes[:2]]
    wait_for(lambda: set(held) <= set(slurm.jobs("RUNNING")), "the nodes to be full")
    outdir = tmp_path / "out"
    more = ("--jobs", "2", "--job-extra", "--exclusive", "-batchsize", "1", "--json")
    with Started(transfer_arguments(kafka, topic_name, outdir, *JOB, *more), settings | SLOWLY) as started:
        started.wait_until(lambda: committed(outdir) > 0, "a range")
        assert len(slurm.jobs("PENDING")) == 1
        slurm.run("scancel", *held)
        started.wait_until(lambda: len(slurm.jobs("RUNNING")) == 2, "the other job")
        out, _ = started.finish()
    assert json.loads(out)["state"] == "complete"
    assert_exactly_once(outdir, oracle.values)


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        # After the colon, these are the words of Slurm and of the shell.
        (("--queue", "nosuch"), 1, "Slurm .*: sbatch: error: .*nvalid partition"),
        (("--job-extra", "--mem=900G"), 1, "Slurm .*: sbatch: error: "),
        (
            ("--cluster-option", 'job_script_prologue=["echo no such module; exit 3"]'),
            1,
            r"\d+: FAILED .*no such module.*\b2 jobs.*/fink-dask-\d+\.out",
        ),
        (("--cluster-option", "python=/no/python"), 1, r"\d+: FAILED .*No such file"),
        (("--cluster-option", "interface=nosuch0"), 1, "scheduler.*nosuch0"),
        (("--cluster-option", "nosuch=1"), 2, r"--cluster-option nosuch\b.*Slurm"),
        (("--cluster-config", "nosuch"), 2, r"--cluster-config nosuch\b"),
        (("--cores", "8", "--memory", "1GB"), 2, "--memory.*--cores"),
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
    with Started(arguments, settings | SLOWLY) as started:
        started.wait_until(lambda: committed(outdir) > 0, "a range")
        started.process.send_signal(number)
        started.finish({signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number])
    # Killed, it cancels nothing: the jobs end when nobody answers them.
    wait_for(lambda: gone(slurm), "the jobs to end")
    assert run_cli(*arguments, env=settings).returncode == 0
    assert_exactly_once(outdir, oracle.values)


def test_jobs_that_are_too_many_for_a_user_leave_the_others_their_turn_in_the_queue(
    slurm: Slurm, settings: dict[str, str], kafka: Any, small_topic: str, tmp_path: Path
) -> None:
    """A site takes one job of each user, which waits in the queue for longer than the others are tried."""
    refusals = tmp_path / "refusals"
    programs = tmp_path / "programs"
    programs.mkdir()
    sbatch = programs / "sbatch"
    real = "PATH=${PATH#*:}; exec 9>lock; flock 9"
    limit = f'if [ -n "$(squeue --me -h)" ]; then echo too many >&2; echo >> {refusals}; exit 1; fi'
    sbatch.write_text(f'#!/bin/bash\ncd {tmp_path}; {real}\n{limit}\nsbatch "$@" 9>&-\n')
    sbatch.chmod(0o755)
    arguments = transfer_arguments(kafka, small_topic, tmp_path / "out", *JOB, "--jobs", "3", "--job-extra", "--hold")
    with Started(arguments, settings | {"PATH": f"{programs}:{os.environ['PATH']}"}) as started:
        started.wait_until(lambda: refusals.exists() and len(refusals.read_text()) >= 6, "refusals")
        slurm.run("scontrol", "release", *slurm.jobs())
        out, err = started.finish()
    assert "complete" in out
    assert err.count("too many") == 1, err


def test_a_follower_has_as_many_jobs_as_there_is_work_for(
    slurm: Slurm, settings: dict[str, str], kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 12_000, partitions=12)
    outdir = tmp_path / "out"
    follow = ("--follow", "--roll-interval", "1s", "--until-count", "13000")
    arguments = transfer_arguments(kafka, topic_name, outdir, *JOB, "--adapt", "1:3", "-batchsize", "1", *follow)
    with Started(arguments, settings | SLOWLY) as started:
        started.wait_until(lambda: len(slurm.jobs("RUNNING")) >= 2, "more jobs")
        started.wait_until(lambda: committed(outdir) >= 12, "what there was")
        started.wait_until(lambda: len(slurm.jobs("RUNNING")) == 1, "fewer jobs")
        add_alerts(kafka.bootstrap_servers, topic_name, oracle, AlertKind.ZTF_LIGHT, 1000, first_id=12_000)
        _, err = started.finish()
    assert "another" not in err
    assert_exactly_once(outdir, oracle.values)


@pytest.mark.timeout(400)
def test_a_cluster_of_dask_jobqueue_that_adapts_itself_grows_from_no_job_and_shrinks_without_loss(
    slurm: Slurm, settings: dict[str, str], kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 12_000, partitions=12)
    options = 'cores=1, processes=1, memory="2GB", interface="lo", scheduler_options={"dashboard_address": ":0"}'
    cluster, env = f"dask_jobqueue.SLURMCluster({options})", settings | unhurried(tmp_path / "hurry")
    found = transfer_adapting(cluster, topic_name, kafka.bootstrap_servers, tmp_path, env)
    assert found == [12_000, 0, 3, 1]
    assert_exactly_once(tmp_path / "alerts", oracle.values)
    wait_for(lambda: gone(slurm), "the jobs to be cancelled")


@pytest.mark.timeout(300)
def test_a_follower_whose_jobs_wait_in_the_queue_comes_to_its_end(
    slurm: Slurm, settings: dict[str, str], kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 400, partitions=2)
    outdir = tmp_path / "out"
    more = ("--follow", "--roll-interval", "1s", "--idle-timeout", "45s", "--json")
    with Started(transfer_arguments(kafka, topic_name, outdir, *JOB, *more), settings) as started:
        started.wait_until(lambda: committed(outdir) >= 2, "what is there")
        (job,) = slurm.jobs("RUNNING")
        others = [node for node in slurm.nodes if node != slurm.node_of(job)]
        held = [slurm.run(*HOLD, "-w", node).strip() for node in others]
        held.append(slurm.run(*HOLD, "-w", slurm.node_of(job)).strip())
        slurm.run("scancel", job)
        started.wait_until(lambda: len(set(slurm.jobs("PENDING")) - {*held}) == 1, "a job to wait")
        assert started.process.poll() is None
        out, _ = started.finish(timeout_s=120)
    slurm.run("scancel", *held)
    assert json.loads(out)["state"] == "complete"
    assert_exactly_once(outdir, oracle.values)
    wait_for(lambda: gone(slurm), "the jobs to be cancelled")


def test_jobs_write_to_an_object_store_whose_credentials_are_in_no_script_and_no_ledger(
    slurm: Slurm,
    kafka: Any,
    topic_name: str,
    object_store: ObjectStore,
    store_url: str,
    settings: dict[str, str],
    tmp_path: Path,
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 400, partitions=2)
    scripts = tmp_path / "scripts"
    more = ("--outdir", store_url, "--cluster-option", f"job_script_prologue=['cp $0 {scripts}.$$']")
    result = run_cli(*transfer_arguments(kafka, topic_name, Path(), *JOB, *more), env=settings, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert_on_store_once(object_store, store_url, oracle)
    kept = list(tmp_path.glob("scripts.*"))
    held = [path.read_bytes() for path in (object_store.folder / "data").rglob("*") if path.is_file()]
    assert kept
    assert not any(SECRET.encode() in text for text in (*held, *map(Path.read_bytes, kept)))
    assert not list(tmp_path.glob("*-jobs-*")), "keys and logs of jobs that did well are removed"
    _, *options = transfer_arguments(kafka, topic_name, Path(), *JOB, "--outdir", store_url)
    options = [each for each in options if each not in {"--dashboard-address", "127.0.0.1:0"}]
    submitted = run_cli("submit", *options, env=settings, cwd=tmp_path)
    assert submitted.returncode == 0, submitted.stderr
    wait_for(lambda: gone(slurm), "the job")
    (log,) = tmp_path.glob("fink-dask-*.err")
    assert "nothing new" in log.read_text()


@pytest.mark.timeout(600)
def test_a_dataset_is_repaired_and_compacted_by_jobs_one_of_which_is_cancelled(
    slurm: Slurm, settings: dict[str, str], kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    """As with a transfer: another job takes the place of the one that is gone, and no alert is lost or there twice."""
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 12_000, partitions=6)
    outdir, compacted = tmp_path / "out", tmp_path / "compacted"
    assert run_cli(*transfer_arguments(kafka, topic_name, outdir)).returncode == 0
    files = sorted(outdir.rglob("*.parquet"))
    for file in files[::2]:
        file.unlink()
    files[1].write_bytes(files[1].read_bytes()[:-100])
    address = ("--bootstrap-servers", kafka.bootstrap_servers)
    for command in (
        ("repair", str(outdir), *address),
        ("compact", str(outdir), str(compacted), "--file-size", "100KiB"),
    ):
        with Started((*command, *JOB, "--jobs", "2"), settings) as started:
            started.wait_until(lambda: bool(slurm.jobs("RUNNING")), "a job")
            cancelled = slurm.jobs("RUNNING")[0]
            slurm.run("scancel", cancelled)
            _, err = started.finish()
        assert f"job {cancelled}: CANCELLED" in err
        wait_for(lambda: gone(slurm), "the jobs to be cancelled")
        assert_exactly_once(outdir, oracle.values)
    assert_exactly_once(compacted, oracle.values)
    assert len(list(compacted.rglob("*.parquet"))) > 1, "of one group, one job would have been enough"


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
    result = run_cli(*arguments, "--dry-run", env=settings, afresh=True)
    assert result.returncode == 0, result.stderr
    assert "--cpus-per-task=2" in result.stdout
    assert "#SBATCH --nice\n" in result.stdout
    result = run_cli(*arguments, env=settings, afresh=True)
    assert result.returncode == 0, result.stderr


def test_a_submitted_transfer_whose_time_is_over_stops_in_order_and_goes_on_when_submitted_again(
    slurm: Slurm, settings: dict[str, str], kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 12_000, partitions=12)
    outdir = tmp_path / "out"
    _, *options = transfer_arguments(kafka, topic_name, outdir, "-partitionby", "time")
    # As in a user's session: what the environment says is in the job's command as well.
    environ = settings | {"FINK_DASK_BATCHSIZE": "1", "FINK_DASK_CORES": "2"} | SLOWLY
    options = [each for each in options if each not in {"--dashboard-address", "127.0.0.1:0"}]
    arguments = ["submit", *options, "--cluster", "slurm", "--memory", "4GB", "--json"]
    submitted = run_cli(*arguments, env=environ)
    assert submitted.returncode == 0, submitted.stderr
    job = json.loads(submitted.stdout)["job"]
    wait_for(lambda: committed(outdir) > 0 or job not in slurm.jobs(), "a range")
    running = json.loads(run_cli("status", str(outdir), "--json").stdout)
    assert running["running"]
    slurm.run("scancel", "--batch", "--signal=TERM", job)  # as --signal=B:TERM@60 does a minute before the end
    wait_for(lambda: job not in slurm.jobs(), "the job to end")
    assert "again" in (tmp_path / f"fink-dask-{job}.err").read_text()
    again = json.loads(run_cli(*arguments, env=environ).stdout)["job"]
    wait_for(lambda: again not in slurm.jobs(), "the other job")
    assert "complete" in (tmp_path / f"fink-dask-{again}.out").read_text()
    assert_exactly_once(outdir, oracle.values)


def test_what_can_not_be_submitted_is_one_line(slurm: Slurm, settings: dict[str, str], tmp_path: Path) -> None:
    options = ["-topic", "ftransfer_ztf_2026-11-01_1", "-outdir", str(tmp_path / "out"), "--servers", "127.0.0.1:1"]
    job = ["--cluster", "slurm", "--cores", "1", "--memory", "1GB"]
    secret = {"FINK_DASK_PASSWORD": "not for others"}
    for more, env, status, words in (
        ([], {}, 2, "--cluster"),
        ([*job, "--queue", "nosuch"], {}, 1, "sbatch: error: "),
        ([*job, "--restart"], {}, 2, "--restart"),
        ([*job, "--username", "ada", "--security-protocol", "SASL_SSL"], secret, 2, "--password-file"),
    ):
        result = run_cli("submit", *options, *more, env=settings | env)
        assert result.returncode == status, result.stderr
        assert words in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
    assert gone(slurm)


def test_the_password_is_in_no_script_and_no_command_line_of_a_job(
    slurm: Slurm, settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    secure = secure_kafka(tmp_path_factory.mktemp("secure"))
    try:
        secure.broker.start()
        topic, outdir = "ftransfer_ztf_2026-11-01_2", tmp_path / "out"
        oracle = fill_topic(secure.broker.bootstrap_servers, topic, AlertKind.ZTF_LIGHT, 6000, partitions=4)
        kafka = ["--servers", secure.broker.address("SASLTLS"), "--security-protocol", "SASL_SSL", "--username", USER]
        where = ["-topic", topic, "-outdir", str(outdir), "--ssl-ca-file", str(secure.ca_file)]
        arguments = ["transfer", *where, *kafka, *JOB, "--jobs", "2", "-batchsize", "1"]
        seen: list[str] = []
        with Started(arguments, settings | SLOWLY | {"FINK_DASK_PASSWORD": PASSWORD}) as started:
            started.wait_until(lambda: committed(outdir) > 0, "a range")
            room = Ledger(outdir).path / "jobs"
            assert room.stat().st_mode & 0o777 == 0o700
            assert (room / "key.pem").stat().st_mode & 0o777 == 0o600
            seen += [slurm.run("scontrol", "show", "job", "-d")]
            seen += [slurm.run("scontrol", "write", "batch_script", job, "-") for job in slurm.jobs()]
            for each in psutil.process_iter():
                with suppress(psutil.Error):
                    if each.pid != started.process.pid:  # it was given it there
                        seen += [*each.cmdline(), *(f"{name}={value}" for name, value in each.environ().items())]
            out, err = started.finish()
        assert any("--tls-key" in text for text in seen)
        assert not room.exists()
        assert [text[:100] for text in [*seen, out, err] if PASSWORD in text] == []
        assert_exactly_once(outdir, oracle.values)
    finally:
        secure.broker.discard()
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or PASSWORD.encode() not in path.read_bytes(), path


def test_a_stranger_on_the_network_does_not_get_at_the_scheduler(
    slurm: Slurm, settings: dict[str, str], kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 6000, partitions=4)
    outdir = tmp_path / "out"
    arguments = transfer_arguments(kafka, topic_name, outdir, *JOB, "-batchsize", "1")
    with Started(arguments, settings | SLOWLY) as started:
        started.wait_until(lambda: committed(outdir) > 0, "a range")
        (job,) = slurm.jobs()
        script = slurm.run("scontrol", "write", "batch_script", job, "-")
        (address,) = re.findall(r"tls://[\d.]+:\d+", script)
        others = Security.temporary()
        for where, security in ((address, others), (address.replace("tls", "tcp"), None)):
            with pytest.raises(OSError, match=r"certificate|[Cc]onnect|Timed out"):
                Client(where, timeout=2, security=security)
        started.process.terminate()
        started.process.communicate(timeout=300)


def test_the_batch_job_in_deploy_works(
    slurm: Slurm, settings: dict[str, str], kafka: Any, small_topic: str, tmp_path: Path
) -> None:
    script = Path(__file__).parents[2] / "deploy" / "slurm" / "transfer.sbatch"
    outdir = tmp_path / "out"
    more = {"FINK_DASK_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "PATH": f"{PROGRAMS}:{settings['PATH']}"}
    where = ["--chdir", str(tmp_path), "--cpus-per-task=2", "--mem-per-cpu=1G", str(script), small_topic, str(outdir)]
    job = run(["sbatch", "--parsable", *where], settings | more).strip()
    wait_for(lambda: job not in slurm.jobs(), "the job")
    assert "complete" in (tmp_path / f"slurm-{job}.out").read_text()
