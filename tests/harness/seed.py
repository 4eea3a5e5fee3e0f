"""The seed of what is random in tests: drawn once a run, before its test processes are there, and said."""

from __future__ import annotations

import os
import random

import pytest

VARIABLE = "FINK_DASK_TEST_SEED"


@pytest.hookimpl(tryfirst=True)
def pytest_configure() -> None:
    """Draw a seed where none is given; test processes and their commands find it in their environment."""
    os.environ[VARIABLE] = os.environ.get(VARIABLE) or str(random.SystemRandom().randrange(10**6))


def pytest_report_header() -> str:
    """Say it."""
    return in_words()


def in_words() -> str:
    """Say what to type for the same once more."""
    return f"seed of what is random: {seed()} ({VARIABLE}={seed()} repeats it)"


def seed() -> int:
    """Return it."""
    return int(os.environ[VARIABLE])


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Return a source of chance of the test's own; the report of a test that fails tells its seed."""
    print(in_words())
    return random.Random(f"{seed()} {request.node.name}")
