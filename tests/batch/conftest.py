"""Real batch systems, which `make test-cluster` installs and starts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness.grid_engine import GridEngine, ensure_grid_engine
from tests.harness.kafka_install import HarnessError
from tests.harness.slurm import Slurm, ensure_slurm

INSTALL = {"slurm": ensure_slurm, "sge": ensure_grid_engine}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a batch system, so that ``make test`` leaves it out."""
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
