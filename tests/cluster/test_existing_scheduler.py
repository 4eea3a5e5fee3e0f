"""A scheduler that somebody else runs: it works, or one line says what it lacks, before anything is consumed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Event, Timer
from typing import Any

import psutil
import pytest
from distributed import Client, LocalCluster

import fink_dask
from fink_dask.cluster import existing
from fink_dask.cluster.choice import ClusterChoice
from fink_dask.cluster.client import open_client
from fink_dask.cluster.existing import Scheduler, check_workers, threads_of, workers_of
from fink_dask.cluster.local import Cluster, usable_cores
from fink_dask.cluster.readiness import Needs
from fink_dask.dashboard import plugin
from fink_dask.errors import TransferError
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.outdir import create_ledger
from fink_dask.progress.tally import Progress
from fink_dask.ranges.memory import FULL_SHARE
from fink_dask.running import scheduling as job
from fink_dask.settings import KafkaSettings
from tests.alerts.made_up import AlertKind
from tests.harness.cli import PROGRAM, SLOWLY, environment, run_cli, transfer_arguments, unhurried
from tests.harness.dask import answers, scheduler_command, transfer_adapting, without_package, worker_command
from tests.harness.kafka_settings import free_ports
from tests.harness.oracle import assert_exactly_once, fill_topic, wait_for
from tests.harness.planned import plan_topic
from tests.harness.topics import PATIENCE_S

pytestmark = pytest.mark.commands


#: For tasks that take as long as the test wants.
released = Event()


@contextmanager
def processes(*commands: list[str], **options: Any) -> Iterator[None]:
    started = [subprocess.Popen(command, stderr=subprocess.DEVNULL, **options) for command in commands]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.sample
def test_a_transfer_and_its_repair_on_an_existing_scheduler_are_exactly_once_and_leave_it_running(
    kafka: Any, topic_name: str, dask_scheduler: str, tmp_path: Path
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 1000)
    arguments = transfer_arguments(kafka, topic_name, tmp_path / "out", "--scheduler", dask_scheduler)
    result = run_cli(*arguments)
    assert result.returncode == 0, result.stderr
    assert_exactly_once(tmp_path / "out", oracle.values)
    next((tmp_path / "out").rglob("*.parquet")).unlink()
    (port,) = free_ports(1)
    repair = ("repair", str(tmp_path / "out"), "--bootstrap-servers", kafka.bootstrap_servers, "--scheduler")
    refused = run_cli(*repair, f"tcp://127.0.0.1:{port}")
    assert refused.returncode == 1
    assert f"tcp://127.0.0.1:{port}" in refused.stderr
    result = run_cli(*repair, dask_scheduler)
    assert result.returncode == 0, result.stderr
    assert_exactly_once(tmp_path / "out", oracle.values)
    with open_client(dask_scheduler, timeout=PATIENCE_S) as client:
        assert len(client.scheduler_info()["workers"]) == 2

        def left(dask_scheduler: Any) -> list[str]:
            """Name what is left of clients that are gone; other tests' may be there."""
            topics = [name for name in dask_scheduler._broker._topics if name.startswith("fink-dask")]
            return [name for name in topics if not any(client in name for client in dask_scheduler.clients)]

        wait_for(lambda: not client.run_on_scheduler(left), "a clean end")


def test_a_scheduler_that_speaks_tls_says_which_options_it_needs(tmp_path: Path) -> None:
    with pytest.raises(TransferError, match=r"--tls-ca-file.*--tls-cert.*--tls-key"):
        Scheduler("tls://127.0.0.1:1").connect()


def test_all_threads_of_a_schedulers_workers_are_given_ranges(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    """More than this machine's cores: workers elsewhere have theirs."""
    threads = usable_cores() + 2
    fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 400 * threads, partitions=threads)
    address = {"protocol": "tcp://", "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with (
        LocalCluster(n_workers=1, threads_per_worker=threads, processes=False, **address) as cluster,
        Client(cluster) as client,
    ):
        arguments = transfer_arguments(kafka, topic_name, tmp_path / "out", "--scheduler", cluster.scheduler_address)
        transfer = subprocess.Popen([*PROGRAM, *arguments, "-batchsize", "1"], env=environment(SLOWLY))

        def ranges() -> int:
            return sum("transfer_range" in key for keys in client.processing().values() for key in keys)

        try:
            wait_for(lambda: ranges() == threads or transfer.poll() is not None, "a range a thread")
            assert transfer.poll() is None
            transfer.wait(60)
        finally:
            transfer.kill()
            transfer.wait()


def test_a_cluster_that_grows_by_need_grows_from_nothing_and_shrinks_without_loss(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 4000, partitions=8)
    cluster = 'distributed.LocalCluster(n_workers=0, threads_per_worker=1, host="127.0.0.1", dashboard_address=None)'
    servers, env = kafka.bootstrap_servers, environment(unhurried(tmp_path / "hurry"))
    alerts, first, most, last = transfer_adapting(cluster, topic_name, servers, tmp_path, env)
    assert (alerts, first, most) == (4000, 0, 3)
    assert last <= 1
    assert_exactly_once(tmp_path / "alerts", oracle.values)


@pytest.mark.sample
def test_a_scheduler_that_is_not_there_is_one_line(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 10, partitions=1)
    (port,) = free_ports(1)
    arguments = transfer_arguments(kafka, topic_name, tmp_path / "out", "--scheduler", f"tcp://127.0.0.1:{port}")
    result = run_cli(*arguments)
    assert result.returncode == 1
    assert f"tcp://127.0.0.1:{port}" in result.stderr
    assert "Traceback" not in result.stderr


def test_workers_that_lack_the_package_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers have Dask, but run where this package is not installed."""
    python = without_package(tmp_path / "without")
    (port,) = free_ports(1)
    address = f"tcp://127.0.0.1:{port}"
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    commands = (scheduler_command(port, python), worker_command(address, python=python))
    with processes(*commands, env=clean, cwd=tmp_path):
        wait_for(lambda: answers(address), "the scheduler")
        with Client(address, timeout=PATIENCE_S) as client, pytest.raises(TransferError, match="no fink-dask"):
            check_workers(client, Needs(Ledger(tmp_path / "out"), KafkaSettings("127.0.0.1:1"), "topic"))


def test_workers_of_another_version_are_named(
    kafka: Any, dask_scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fink_dask, "__version__", f"{fink_dask.__version__}.post9")
    with open_client(dask_scheduler) as client, pytest.raises(TransferError, match="post9"):
        check_workers(client, Needs(Ledger(tmp_path / "out"), KafkaSettings(kafka.bootstrap_servers), "topic"))


def test_workers_that_see_another_file_system_are_named(
    kafka: Any, topic_name: str, dask_scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 10, partitions=1)
    # This path leads to another directory in each process, as on hosts without a common file system.
    monkeypatch.chdir(tmp_path)
    ledger = Ledger(Path("/proc/self/cwd/out"))
    create_ledger(ledger)
    with open_client(dask_scheduler) as client, pytest.raises(TransferError, match=r"tcp://.*out\.fink"):
        check_workers(client, Needs(ledger, KafkaSettings(kafka.bootstrap_servers), topic_name))
    assert not list(ledger.path.glob(".token*"))


def test_workers_that_cannot_reach_kafka_are_named(
    kafka: Any, topic_name: str, dask_scheduler: str, tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path / "out")
    create_ledger(ledger)
    (port,) = free_ports(1)
    unreachable = KafkaSettings(f"127.0.0.1:{port}", request_timeout_s=1.5)
    with open_client(dask_scheduler) as client, pytest.raises(TransferError, match=r"tcp://.*Kafka"):
        check_workers(client, Needs(ledger, unreachable, topic_name))


def test_a_worker_that_stands_still_is_not_waited_for_for_ever(
    kafka: Any, topic_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(existing, "_ANSWER_S", 15)
    fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 10, partitions=1)
    ledger = Ledger(tmp_path / "out")
    create_ledger(ledger)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(2, timeout=PATIENCE_S)
        halted = psutil.Process(min(client.run(os.getpid).values()))
        halted.suspend()
        try:
            check_workers(client, Needs(ledger, KafkaSettings(kafka.bootstrap_servers), topic_name))
        finally:
            halted.resume()


def test_a_scheduler_that_stands_still_is_not_waited_for_for_ever(
    kafka: Any, topic_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its machine sleeps, say: whichever question is the first that it does not answer, it is the last one."""
    fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 10, partitions=1)
    ledger = Ledger(tmp_path / "out")
    create_ledger(ledger)
    settings = KafkaSettings(kafka.bootstrap_servers)
    (port,) = free_ports(1)
    address = f"tcp://127.0.0.1:{port}"
    dask = subprocess.Popen(scheduler_command(port), stderr=subprocess.DEVNULL)
    halted = psutil.Process(dask.pid)
    with processes(worker_command(address)):
        try:
            wait_for(lambda: answers(address), "the scheduler")
            with Client(address, timeout=5) as client:
                monkeypatch.setattr(existing, "_ANSWER_S", 1)
                monkeypatch.setattr(plugin, "_ANSWER_S", 1)
                halted.suspend()
                # Whoever waits for it nonetheless gets an answer in the end, and fails this test.
                waking = Timer(90, halted.resume)
                waking.start()
                try:
                    with pytest.raises(TransferError, match=address):
                        fink_dask.transfer(topic_name, tmp_path / "new", kafka.bootstrap_servers, client=client)
                    with pytest.raises(TransferError, match=address):
                        check_workers(client, Needs(ledger, settings, topic_name))
                    for ask in (threads_of, workers_of, existing._version_on_scheduler):
                        with pytest.raises(TransferError, match=address):
                            ask(client)
                    assert plugin.page_link(client) is None
                    assert waking.is_alive()
                finally:
                    waking.cancel()
                    halted.resume()
        finally:
            dask.kill()
            dask.wait()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("busy", [1, 2])
def test_a_worker_that_is_busy_keeps_nobody_from_the_others(
    kafka: Any, topic_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: int
) -> None:
    """Somebody else's tasks have taken it; all together are waited for once."""
    monkeypatch.setattr(existing, "_ANSWER_S", 3)
    fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 10, partitions=1)
    ledger = Ledger(tmp_path / "out")
    create_ledger(ledger)
    size = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(**size) as cluster, Client(cluster) as client:
        workers = list(client.nthreads())[:busy]
        released.clear()
        others = [client.submit(wait_to_be_released, workers=[each], pure=False) for each in workers]
        try:
            wait_for(lambda: sum(map(len, client.processing().values())) == busy, "them to be busy")
            with pytest.raises(TransferError, match=r"no worker .* busy") if busy == 2 else nullcontext():
                check_workers(client, Needs(ledger, KafkaSettings(kafka.bootstrap_servers), topic_name))
        finally:
            released.set()
        client.gather(others)


def wait_to_be_released() -> None:
    released.wait()


def test_a_worker_that_goes_while_it_is_asked_lacks_nothing(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 10, partitions=1)
    ledger = Ledger(tmp_path / "out")
    create_ledger(ledger)
    size = {"n_workers": 0, "protocol": "tcp://", "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(**size) as cluster, Client(cluster) as client:
        worker = worker_command(cluster.scheduler_address)
        with processes(worker, worker):
            client.wait_for_workers(2, timeout=PATIENCE_S)
            doomed = psutil.Process(min(client.run(os.getpid).values()))
            doomed.suspend()  # it does not answer any more
            killer = Timer(2, doomed.kill)
            killer.start()
            try:
                check_workers(client, Needs(ledger, KafkaSettings(kafka.bootstrap_servers), topic_name))
            finally:
                killer.join()


def test_a_scheduler_without_workers_is_waited_for_in_words_and_then_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(existing, "_WORKERS_S", 1)
    monkeypatch.setattr(existing, "SAID_S", 0)
    said: list[str] = []
    progress = Progress(lambda event: said.append(getattr(event, "words", str(event))))
    needs = Needs(Ledger(tmp_path / "out"), KafkaSettings("127.0.0.1:1"), "topic")
    with LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0") as cluster:
        address = cluster.scheduler_address
        with (
            pytest.raises(TransferError, match="workers"),
            ClusterChoice(Scheduler(address)).connect(needs, 1, 1, None, progress),
        ):
            pass
    assert not any("starting" in words for words in said), "nothing starts the workers of somebody else's scheduler"
    assert any("workers" in words and address in words for words in said)
    assert "up to 1 s" in said[-1]


@pytest.mark.sample
def test_a_scheduler_that_dies_in_mid_run_is_one_line_and_the_same_command_goes_on(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 6000, partitions=4)
    (port,) = free_ports(1)
    address = f"tcp://127.0.0.1:{port}"
    arguments = transfer_arguments(kafka, topic_name, tmp_path / "out", "--scheduler", address, "-batchsize", "1")
    dask = subprocess.Popen(scheduler_command(port), stderr=subprocess.DEVNULL)
    with processes(worker_command(address)):
        try:
            wait_for(lambda: answers(address), "the scheduler")
            transfer = subprocess.Popen(
                [*PROGRAM, *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment(SLOWLY),
            )
            ledger = Ledger(tmp_path / "out")
            wait_for(lambda: (ledger.exists() and ledger.staged() != []) or transfer.poll() is not None, "a range")
        finally:
            dask.kill()
            dask.wait()
        try:
            _, err = transfer.communicate(timeout=300)
        finally:
            transfer.kill()
    assert transfer.returncode == 1
    errors = [line for line in err.splitlines() if "error" in line.lower()]
    assert len(errors) == 1, err
    assert "scheduler" in errors[0]
    assert run_cli(*transfer_arguments(kafka, topic_name, tmp_path / "out")).returncode == 0
    assert_exactly_once(tmp_path / "out", oracle.values)


def test_a_cluster_whose_workers_are_all_gone_is_not_waited_for_for_ever(
    kafka: Any, topic_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 50, partitions=1)
    work = plan_topic(kafka.bootstrap_servers, topic_name, tmp_path / "out")
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
        pytest.raises(TransferError, match=r"workers .*\b2 s"),
    ):
        job.run_ranges(Cluster(client, FULL_SHARE, patience_s=2), work, 1, lambda _: None, lambda: None)
