"""What all test processes of a run share: the process that the run began with starts it, when the first of them asks.

That one lives as long as the run does; the processes of pytest-xdist come and go.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import Any

import pytest

from tests.harness.environments import Distributions, build_distributions
from tests.harness.kafka import EXTERNAL, ExternalKafka, KafkaBroker
from tests.harness.object_store import ObjectStore, S3Proxy
from tests.harness.secure import SecureKafka, secure_kafka
from tests.harness.topics import create_topic

_ADDRESS = "fink_dask_shared"


@contextmanager
def _kafka(folder: Path) -> Iterator[KafkaBroker]:
    broker = KafkaBroker(folder)
    try:
        broker.start()
        yield broker
    finally:
        broker.discard()


@contextmanager
def _secure(folder: Path) -> Iterator[SecureKafka]:
    found = secure_kafka(folder)
    try:
        found.broker.start()
        create_topic(found.broker.bootstrap_servers, "ftransfer_ztf_2026-11-01_1", 1)
        yield found
    finally:
        found.broker.discard()


@contextmanager
def _store(folder: Path) -> Iterator[S3Proxy]:
    proxy = S3Proxy(folder)
    try:
        proxy.start()
        yield proxy
    finally:
        proxy.discard()


@contextmanager
def _built(folder: Path) -> Iterator[Distributions]:
    yield build_distributions(folder)


@contextmanager
def _dask(folder: Path) -> Iterator[str]:
    from tests.harness.dask import shared_scheduler  # few runs need it, and loading it takes a second

    with shared_scheduler() as address:
        yield address


#: What can be asked for. Who asks gets a copy, which knows where the thing is and can't end it.
THINGS: dict[str, Callable[[Path], AbstractContextManager[Any]]] = {
    "kafka": _kafka,
    "secure": _secure,
    "store": _store,
    "built": _built,
    "dask": _dask,
}


class Host:
    """Start what is asked for, once, and end it with the run."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._running = ExitStack()
        self._known: dict[str, Any] = {}
        self._turn = threading.Lock()
        self._door = Listener()
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def address(self) -> str:
        """Where other processes ask."""
        return str(self._door.address)

    def get(self, name: str) -> Any:
        """Return a thing, started if nobody has asked for it before."""
        with self._turn:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="fink-dask-tests-"))
            if name not in self._known:
                self._known[name] = self._running.enter_context(THINGS[name](self._folder / name))
            return self._known[name]

    def try_to_start(self, name: str) -> None:
        """Start a thing before anybody asks for it, who will hear of what fails."""
        with suppress(Exception):
            self.get(name)

    def close(self, *, keep_logs: bool) -> None:
        """End everything."""
        self._door.close()
        with self._turn:
            self._running.close()
        if self._folder is not None and not keep_logs:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _serve(self) -> None:
        while True:
            try:
                asked = self._door.accept()
            except OSError:
                return  # it is closed
            with asked, suppress(EOFError, OSError):
                try:
                    asked.send(self.get(asked.recv()))
                except Exception as error:  # it is raised where it was asked for
                    asked.send(error)


def ask(config: pytest.Config, name: str) -> Any:
    """Return a thing that the run shares, or raise what kept it from starting."""
    if (address := _workerinput(config).get(_ADDRESS)) is None:
        return config.stash[_HOST].get(name)
    with Client(address) as connection:
        connection.send(name)
        found = connection.recv()
    if isinstance(found, Exception):
        raise found
    return found


_HOST = pytest.StashKey[Host]()


@pytest.fixture(scope="session")
def kafka(pytestconfig: pytest.Config) -> KafkaBroker | ExternalKafka:
    """Return a Kafka that all tests of the run share, whichever process they are in; leave it as you found it."""
    if bootstrap := os.environ.get(EXTERNAL):
        return ExternalKafka(bootstrap)
    broker: KafkaBroker = ask(pytestconfig, "kafka")
    return broker


@pytest.fixture(scope="session")
def secure(pytestconfig: pytest.Config) -> SecureKafka:
    """Return a Kafka that asks for a password, with an empty topic, for all tests of the run."""
    found: SecureKafka = ask(pytestconfig, "secure")
    return found


@pytest.fixture(scope="session")
def shared_store(pytestconfig: pytest.Config) -> Iterator[ObjectStore]:
    """Yield an object store for all tests of the run, at the end of a wire that is this process's own."""
    store = ObjectStore(ask(pytestconfig, "store"))
    yield store
    store.wire.close()


@pytest.fixture(scope="session")
def dask_scheduler(pytestconfig: pytest.Config) -> str:
    """Return the address of a Dask scheduler with two workers, for all tests of the run; look at your own work only."""
    found: str = ask(pytestconfig, "dask")
    return found


@pytest.fixture(scope="session")
def built(pytestconfig: pytest.Config) -> Distributions:
    """Return what a release uploads, built once for all tests of the run."""
    found: Distributions = ask(pytestconfig, "built")
    return found


def _workerinput(config: pytest.Config) -> dict[str, Any]:
    return getattr(config, "workerinput", {})


def pytest_configure(config: pytest.Config) -> None:
    """Listen, in the process that the run begins with."""
    if not hasattr(config, "workerinput") and not config.option.collectonly:
        config.stash[_HOST] = Host()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config) -> None:
    """Start what most tests ask for while they are collected, where all of a target are to run."""
    if config.args_source is not pytest.Config.ArgsSource.TESTPATHS or config.option.keyword or config.option.markexpr:
        return
    for name in ("dask",) if EXTERNAL in os.environ else ("kafka", "dask"):
        threading.Thread(target=config.stash[_HOST].try_to_start, args=(name,), daemon=True).start()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell another process where to ask."""
    node.workerinput[_ADDRESS] = node.config.stash[_HOST].address


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Remember how the run has ended: what is to be read of a broker is its log."""
    session.config.stash[_IS_RED] = exitstatus != pytest.ExitCode.OK


_IS_RED = pytest.StashKey[bool]()


def pytest_unconfigure(config: pytest.Config) -> None:
    """End everything after the last test."""
    if (host := config.stash.get(_HOST, None)) is not None:
        host.close(keep_logs=config.stash.get(_IS_RED, True))
