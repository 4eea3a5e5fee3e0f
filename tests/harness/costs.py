"""What tests cost: the processor time of each, of the processes that it waited for, and of the commands that it ran."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

from tests.harness import crash
from tests.harness.cli import Used

_PROPERTY = "cpu_s"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption(
        "--costs", type=int, metavar="N", help="show the N most expensive tests, and what each folder costs"
    )


def _used_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system + Used.cpu_s + crash.used_s()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Look at the clock before the test."""
    item.stash[_BEFORE] = _used_s()
    return (yield)


_BEFORE = pytest.StashKey[float]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note what it has cost with the last thing that is said of it."""
    report = yield
    if report.when == "teardown":
        report.user_properties.append((_PROPERTY, round(_used_s() - item.stash[_BEFORE], 3)))
    return report


class Costs:
    """Add up what is said of the tests."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._tests: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the cost of a test."""
        for name, value in report.user_properties:
            if name == _PROPERTY and report.when == "teardown":
                self._tests[report.nodeid] = float(str(value))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show them."""
        folders: dict[str, float] = {}
        for nodeid, value in self._tests.items():
            folder = "/".join(nodeid.partition("::")[0].split("/")[:2])
            folders[folder] = folders.get(folder, 0) + value
        terminalreporter.section("processor seconds, without those of brokers")
        dearest = _most(self._tests)[: self._count]
        for name, value in [*_most(folders), ("all", sum(folders.values())), *dearest]:
            terminalreporter.write_line(f"{value:9.1f} {name}")


def _most(costs: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(costs.items(), key=lambda each: -each[1])


def pytest_configure(config: pytest.Config) -> None:
    """Add up where results come together."""
    if not hasattr(config, "workerinput") and (count := config.getoption("--costs")) is not None:
        config.pluginmanager.register(Costs(count), "costs")
