"""Workers that join a scheduler while a transfer runs: who can do the work gets some, and the others spoil nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

import fink_dask
from fink_dask.cluster.local import Cluster
from fink_dask.ledger.ledger import Ledger
from fink_dask.progress.events import Event, Note, RangeFailed, RangeProgress
from fink_dask.ranges.memory import FULL_SHARE
from fink_dask.ranges.work import Work
from fink_dask.running.scheduling import run_ranges
from tests.alerts.made_up import AlertKind
from tests.harness.cli import SLOWLY, environment
from tests.harness.dask import answers, scheduler_command, without_package, worker_command
from tests.harness.kafka_settings import free_ports
from tests.harness.oracle import Oracle, assert_exactly_once, fill_topic, wait_for
from tests.harness.planned import plan_topic

pytestmark = pytest.mark.commands

PACKAGE = Path(fink_dask.__file__).parent


@contextmanager
def worker(
    address: str, folder: Path, python: str = sys.executable, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker with one thread in a directory of its own."""
    command = worker_command(address, "--nthreads", "1", python=python)
    with (folder / "worker.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment(SLOWLY | (env or {})), stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Yield the address of a scheduler without workers."""
    (port,) = free_ports(1)
    process = subprocess.Popen(scheduler_command(port), stderr=subprocess.DEVNULL, env=environment())
    try:
        yield f"tcp://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def oracle(kafka: Any, topic_name: str) -> Oracle:
    return fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 4000, partitions=8)


@pytest.fixture
def work(kafka: Any, topic_name: str, oracle: Oracle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Work]:
    """Plan a topic for a directory that each process sees below the one it was started in."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    work = plan_topic(kafka.bootstrap_servers, topic_name, home / "out", batchsize=1)
    ledger = Ledger(Path("/proc/self/cwd/out"))
    return [replace(item, settings=replace(item.settings, ledger=ledger)) for item in work]


class Transfer:
    """Run the first ranges, and the others when something has happened."""

    def __init__(
        self,
        work: Sequence[Work],
        meanwhile: Callable[[], bool],
        observe: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self.events: list[Event] = []
        # Called with each event.
        self._observe = observe
        self._work = list(work)
        # Called again and again, once the first range has been begun, until it says True.
        self._meanwhile = meanwhile
        self._later = False

    @property
    def warnings(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Note) and event.warning]

    @property
    def workers(self) -> set[str]:
        return {event.worker for event in self.events if isinstance(event, RangeProgress)}

    def run(self, client: Client) -> None:
        def observe(event: Event) -> None:
            self.events.append(event)
            self._observe(event)

        half = len(self._work) // 2
        cluster = Cluster(client, FULL_SHARE, others_join=True)
        run_ranges(cluster, self._work[:half], 3, observe, lambda: None, more=self._more)

    def _more(self, waiting: int, running: int) -> list[Work] | None:
        if self._later:
            return None
        if not self.workers or not self._meanwhile():
            return []
        self._later = True
        return self._work[len(self._work) // 2 :]


def late(client: Client, early: set[str]) -> set[str]:
    """Name the workers that have come since."""
    return set(client.scheduler_info()["workers"]) - early


def of_another_version(folder: Path) -> dict[str, str]:
    """Copy this package and call it another version; returns the environment that prefers it."""
    shutil.copytree(PACKAGE, folder / "fink_dask", ignore=shutil.ignore_patterns("__pycache__"))
    init = folder / "fink_dask" / "__init__.py"
    init.write_text(init.read_text().replace(f'"{fink_dask.__version__}"', '"0.0.9"'))
    return {"PYTHONPATH": str(folder)}


@pytest.mark.parametrize(
    ("lack", "words"),
    [
        ("nothing", ""),
        ("package", "no fink-dask"),
        ("version", r"fink-dask 0\.0\.9"),
        ("directory", r"out\.fink"),
    ],
    ids=["nothing", "package", "version", "directory"],
)
def test_a_worker_that_joins_late_gets_work_or_is_named_and_spoils_nothing(
    address: str, work: list[Work], oracle: Oracle, tmp_path: Path, lack: str, words: str
) -> None:
    home, elsewhere = Path.cwd(), tmp_path / "elsewhere"
    elsewhere.mkdir()
    python = without_package(tmp_path / "venv") if lack == "package" else sys.executable
    env = {"package": {"PYTHONPATH": ""}, "version": of_another_version(tmp_path / "other")}.get(lack)
    with ExitStack() as stack:
        stack.enter_context(worker(address, home))
        wait_for(lambda: answers(address), "the worker")
        client = stack.enter_context(Client(address, set_as_default=False))
        early = late(client, set())
        started: list[Any] = []

        def meanwhile() -> bool:
            if not started:
                folder = elsewhere if lack == "directory" else home
                started.append(stack.enter_context(worker(address, folder, python, env)))
            return bool(late(client, early))

        transfer = Transfer(work, meanwhile)
        transfer.run(client)
        (other,) = late(client, early)
    assert_exactly_once(home / "out", oracle.values)
    assert not [event for event in transfer.events if isinstance(event, RangeFailed)]
    if lack == "nothing":
        assert transfer.warnings == []
        assert other in transfer.workers
    else:
        (warning,) = transfer.warnings
        assert re.search(f"{other}.*{words}", warning), warning
        assert transfer.workers == early
    assert not list((home / "out.fink").glob(".token*"))


def test_ranges_wait_for_another_worker_where_the_only_one_that_is_left_lacks_something(
    address: str, work: list[Work], oracle: Oracle, tmp_path: Path
) -> None:
    home, elsewhere = Path.cwd(), tmp_path / "elsewhere"
    elsewhere.mkdir()
    with ExitStack() as stack:
        first = stack.enter_context(worker(address, home))
        wait_for(lambda: answers(address), "the worker")
        client = stack.enter_context(Client(address, set_as_default=False))
        early = late(client, set())
        started: list[Any] = []

        def meanwhile() -> bool:
            if not started:
                started.append(stack.enter_context(worker(address, elsewhere)))
            return bool(late(client, early))

        def observe(event: Event) -> None:
            if isinstance(event, Note) and first.poll() is None:
                first.kill()  # with ranges on it that only it may have
                first.wait()
                stack.enter_context(worker(address, home))

        transfer = Transfer(work, meanwhile, observe)
        transfer.run(client)
    assert_exactly_once(home / "out", oracle.values)
    assert len(transfer.warnings) == 1
