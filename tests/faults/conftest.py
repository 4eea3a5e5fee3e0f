"""The seed of what is random in the tests of faults: said at the top of the report, and given to repeat a run."""

from __future__ import annotations

import os
import random

import pytest

VARIABLE = "FINK_DASK_TEST_SEED"
SEED = int(os.environ.get(VARIABLE) or random.SystemRandom().randrange(10**6))


def pytest_report_header() -> str:
    """Say the seed."""
    return f"seed of the faults: {SEED} ({VARIABLE}={SEED} repeats them)"


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Yield a source of chance of the test's own."""
    return random.Random(f"{SEED} {request.node.name}")
