"""A test that hangs outside of Python, where no signal ends it, says where each thread is, and ends its process.

pytest's own ``faulthandler_timeout`` is one for all tests, and ended those that may take longer.
"""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Generator

import pytest

#: Seconds that pytest-timeout has to end a test in Python, beyond the test's own time.
_PATIENCE_S = 30
_STDERR = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    """Keep stderr, which goes into a file while tests run."""
    config.stash[_STDERR] = os.dup(2)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Close it."""
    os.close(config.stash[_STDERR])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Watch one test."""
    marker = item.get_closest_marker("timeout")
    own_s = float(marker.args[0] if marker is not None else item.config.getini("timeout"))
    faulthandler.dump_traceback_later(own_s + _PATIENCE_S, file=item.config.stash[_STDERR], exit=True)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()
