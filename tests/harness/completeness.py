"""A run in which fewer tests ran than were collected has failed, whatever the reason."""

from __future__ import annotations

import pytest


class Completeness:
    """Count what was collected and what ran, in the process that says how the run ended."""

    def __init__(self) -> None:
        self._collected: set[str] = set()
        self._ran: set[str] = set()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note what is to run, where there is one process."""
        self._collected |= {item.nodeid for item in session.items}

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """Note what is to run, where there are several."""
        self._collected |= set(ids)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what has a result; a test that ends its process has one, too."""
        self._ran.add(report.nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Fail a run that seems to be fine and is not whole."""
        if self.missing and exitstatus == pytest.ExitCode.OK and not session.config.option.collectonly:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name what did not run."""
        if self.missing and not terminalreporter.config.option.collectonly:
            terminalreporter.section("tests that did not run")
            for nodeid in self.missing[:20]:
                terminalreporter.write_line(nodeid)
            terminalreporter.write_line(f"{len(self.missing)} of {len(self._collected)} tests did not run", red=True)

    @property
    def missing(self) -> list[str]:
        """What was collected and has no result."""
        return sorted(self._collected - self._ran)


def pytest_configure(config: pytest.Config) -> None:
    """Count where the results come together."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Completeness(), "completeness")
