"""Fixtures for every test: a real Kafka, a topic's name of one's own, and a Kafka to kill."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from fink_dask.store.bucket import open_bucket
from tests.harness.azurite import CONTAINER, Azurite
from tests.harness.browser import ensure_chromium
from tests.harness.cli import Shared
from tests.harness.gateway import ensure_gateway
from tests.harness.kafka import EXTERNAL, ExternalKafka, KafkaBroker, ensure_archive
from tests.harness.kafka_install import HarnessError, cache_folder, locked
from tests.harness.object_store import BUCKET, ObjectStore, S3Proxy, ensure_s3proxy_jar
from tests.harness.running import Running
from tests.harness.topics import name_topic, own_topic, remove_topics

pytest_plugins = [
    "tests.harness.targets",
    "tests.harness.completeness",
    "tests.harness.costs",
    "tests.harness.examples",
    "tests.harness.forked",
    "tests.harness.hanging",
    "tests.harness.seed",
    "tests.harness.shared",
]

#: The fixtures that start one.
_BROKERS = {"kafka", "private_kafka", "unused_kafka", "secure", "kafka_cluster", "shared_far"}
#: Their tests end processes, not machines: what an fsync is for is tried by test_power_cut.py on a trace.
_WITHOUT_FSYNC = {"store", "ledger", "dataset", "compaction"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a broker, so that ``-m "not kafka"`` runs the rest."""
    for item in items:
        if _BROKERS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.kafka)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Install what tests need before the first one, outside any test's time limit, or end the session in one line."""
    if session.config.option.collectonly:
        return
    wanted = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    try:
        if _BROKERS & wanted - ({"kafka"} if os.environ.get(EXTERNAL) else set()):
            ensure_archive()
        if {"shared_store", "private_store"} & wanted:
            ensure_s3proxy_jar()
        if "chromium" in wanted:
            ensure_chromium()
        if "dask_gateway" in wanted:
            ensure_gateway()
    except HarnessError as error:
        raise pytest.UsageError(str(error)) from error
    if _BROKERS & wanted:
        _compile_once()


def _compile_once() -> None:
    """Compile the decoder, which each of many processes would do for itself in a fresh clone."""
    # A run of what needs no decoder does not load it.
    from fink_dask.avro.kernels import warm_up
    from fink_dask.kafka.copying import load

    cache_folder().mkdir(parents=True, exist_ok=True)
    with locked(cache_folder() / "compiling"):
        warm_up()
        load()


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.path.parent.name in _WITHOUT_FSYNC:
        monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(params=["messages", "queue"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have the readers of this process get their records one way and the other, however little they read."""
    from fink_dask.kafka import reader

    monkeypatch.setattr(reader, "QUEUE_BYTES", 0 if request.param == "queue" else 2**62)
    return str(request.param)


@pytest.fixture(autouse=True)
def _environment_stays() -> Iterator[None]:
    """Take back what a test changes: Dask leaves variables behind with which no command could be forked any more."""
    before = dict(os.environ)
    yield
    if os.environ != before:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(autouse=True)
def _nothing_runs_on() -> Iterator[None]:
    yield
    while Running.started:
        running = Running.started.pop()
        if not running.is_over:
            running.kill()


@pytest.fixture(scope="session")
def dask_gateway() -> None:
    """Ask for dask-gateway, which is installed before the first test."""


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the command of a Chromium, which is installed before the first test."""
    return ensure_chromium()


@contextmanager
def _leading_to(store: ObjectStore | Azurite, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the environment of a test lead to a store, to which nothing is connected yet."""
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    open_bucket.cache_clear()
    yield
    open_bucket.cache_clear()


@pytest.fixture
def object_store(shared_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """Yield an object store, which the environment of the test leads to; its wire is mended afterwards."""
    with _leading_to(shared_store, monkeypatch):
        yield shared_store
        shared_store.wire.mend()


@pytest.fixture
def private_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[S3Proxy, ObjectStore]]:
    """Yield an S3Proxy that the test may kill, and the store that it is, which the environment leads to."""
    proxy = S3Proxy(tmp_path / "store")
    try:
        proxy.start()
        store = ObjectStore(proxy)
        with _leading_to(store, monkeypatch):
            yield proxy, store
        store.wire.close()
    finally:
        proxy.discard()


@pytest.fixture
def store_url(object_store: ObjectStore) -> str:
    """Return a place on the store that nobody else uses."""
    return f"s3://{BUCKET}/{uuid.uuid4().hex}/alerts"


@pytest.fixture(scope="session")
def shared_azurite() -> Iterator[Azurite]:
    """Yield an Azure Blob Storage for all tests of the session."""
    store = Azurite()
    try:
        yield store
    finally:
        store.end()


@pytest.fixture
def azurite(shared_azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> Iterator[Azurite]:
    """Yield an Azure Blob Storage, which the environment of the test leads to."""
    with _leading_to(shared_azurite, monkeypatch):
        yield shared_azurite


@pytest.fixture
def azure_url(azurite: Azurite) -> str:
    """Return a place in it that nobody else uses."""
    return f"az://{CONTAINER}/{uuid.uuid4().hex}/alerts"


@pytest.fixture
def private_kafka(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., KafkaBroker]]:
    """Yield ``private_kafka(extra={})``, which starts a broker that the test may stop, kill and freeze."""
    brokers: list[KafkaBroker] = []

    def start(extra: Mapping[str, str] | None = None) -> KafkaBroker:
        broker = KafkaBroker(tmp_path_factory.mktemp("private-kafka"), extra)
        brokers.append(broker)
        broker.start()
        return broker

    yield start
    for broker in brokers:
        broker.discard()


@pytest.fixture(scope="module")
def topic(kafka: KafkaBroker | ExternalKafka) -> Iterator[str]:
    """Yield the name of a topic that the tests of a module share; it and its schema topic are deleted after them."""
    with own_topic(kafka.bootstrap_servers) as name:
        yield name


@pytest.fixture
def topic_name(request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield the name of a topic that nobody has made; it and its schema topic are deleted after the test."""
    name = name_topic()
    # Asked for here, so that the broker outlives the deletion; a test without the shared broker never starts it.
    shared = request.getfixturevalue("kafka") if "kafka" in request.fixturenames else None
    yield name
    if shared is not None:
        remove_topics(shared.bootstrap_servers, name)


@pytest.fixture(scope="module")
def shared_dask(request: pytest.FixtureRequest) -> Iterator[None]:
    """Have the transfers of `run_cli` use the workers of the session: starting their own is most of their work.

    For tests of what a transfer does, and not of how it starts, is disturbed, or ends. Those workers have no
    credentials for an object store.
    """
    if "object_store" not in request.fixturenames:
        Shared.settings = {"FINK_DASK_SCHEDULER": request.getfixturevalue("dask_scheduler")}
    yield
    Shared.settings = {}
