"""How many examples hypothesis makes: those of a test, or many times as many."""

from __future__ import annotations

import os

from hypothesis import settings

#: How many times as many; `make test-fuzz` has more.
VARIABLE = "FINK_DASK_TEST_EXAMPLES"


def examples(count: int) -> settings:
    """Have hypothesis make so many examples, however long each takes."""
    return settings(deadline=None, max_examples=count * int(os.environ.get(VARIABLE) or 1))


# For tests that do not say how many.
settings.register_profile("tests", examples(50))
settings.load_profile("tests")
