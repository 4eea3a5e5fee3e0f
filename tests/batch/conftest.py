"""Real batch systems and several hosts, which `make test-cluster` installs and starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.alerts.made_up import AlertKind
from tests.harness.batch import ensure_packages
from tests.harness.grid_engine import GridEngine, ensure_grid_engine
from tests.harness.hosts import Network, ensure_hosts
from tests.harness.kafka_install import HarnessError, ensure_kafka_jars
from tests.harness.oracle import Oracle, fill_topic
from tests.harness.slurm import Slurm, ensure_slurm
from tests.harness.topics import name_topic, remove_topics


def ensure_systemd() -> None:
    """Install systemd where it is missing; it only reads units."""
    ensure_packages("systemd", {"systemd-analyze": "systemd"})


def ensure_network() -> None:
    """Make sure that hosts can be had, and a Kafka for one of them: they don't reach what is outside."""
    ensure_hosts()
    ensure_kafka_jars()


INSTALL = {"slurm": ensure_slurm, "sge": ensure_grid_engine, "hosts": ensure_network, "systemd": ensure_systemd}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a batch system or several hosts, so that ``make test`` leaves it out."""
    for item in items:
        if set(INSTALL) & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.batch)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Install what is missing before the first test, outside any test's time limit, or end the session in one line."""
    if session.config.option.collectonly:
        return
    wanted = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    for name in INSTALL.keys() & wanted:
        try:
            INSTALL[name]()
        except HarnessError as error:
            raise pytest.UsageError(str(error)) from error


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Yield a Slurm of three nodes; a test that takes one away brings it back."""
    with Slurm(tmp_path_factory.mktemp("slurm")) as found:
        yield found


@pytest.fixture(scope="session")
def sge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GridEngine]:
    """Yield a Grid Engine of one node; a test that takes it away brings it back."""
    with GridEngine(tmp_path_factory.mktemp("sge")) as found:
        yield found


@pytest.fixture(scope="session")
def systemd() -> None:
    """Ask for systemd's tools, which are installed before the first test."""


@pytest.fixture(scope="session")
def hosts() -> type[Network]:
    """Return what makes a network of hosts."""
    return Network


@pytest.fixture(scope="session")
def large_topic(kafka: Any) -> Iterator[Callable[[AlertKind, int], tuple[str, Oracle]]]:
    """Yield what makes a topic of many alerts, once for all batch systems."""
    made: dict[AlertKind, tuple[str, Oracle]] = {}

    def make(kind: AlertKind, count: int) -> tuple[str, Oracle]:
        if kind not in made:
            name = name_topic()
            made[kind] = name, fill_topic(kafka.bootstrap_servers, name, kind, count, partitions=20)
        return made[kind]

    yield make
    remove_topics(kafka.bootstrap_servers, *(name for name, _ in made.values()))
