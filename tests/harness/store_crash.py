"""Run a function in a process of its own that uses an object store, and kill it after one change to the store."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import pytest

from fink_dask.store.bucket import Bucket
from tests.harness.crash import kill_self, run

#: What changes a store. A kill between two of these leaves what a kill after the first one leaves.
CHANGES = ("put", "upload", "put_new", "put_instead", "copy", "delete")


_PARTS = 4
#: For tests that kill after one change after the other: each of them is long, all of them together minutes.
SOME_OR_EACH_CHANGE = pytest.mark.parametrize(
    ("first", "every"),
    [
        pytest.param(1, 11, marks=pytest.mark.stores, id="some changes"),
        *(
            pytest.param(first, _PARTS, marks=pytest.mark.kills, id=f"each change, part {first} of {_PARTS}")
            for first in range(1, _PARTS + 1)
        ),
    ],
)


class HasEnvironment(Protocol):
    """A store that an environment leads to."""

    @property
    def environment(self) -> Mapping[str, str]:
        """Return the environment."""


def in_environment(environment: Mapping[str, str], function: Callable[..., object], *arguments: Any) -> None:
    """Call a function in a process that was forked before the store was there."""
    os.environ.update(environment)
    function(*arguments)


def run_on_store(store: HasEnvironment, function: Callable[..., object], *arguments: Any) -> int:
    """Call a function in another process and return how that ended, ``-SIGKILL`` if it was killed."""
    return run(in_environment, store.environment, function, *arguments)


def killed_after(changes: int, function: Callable[..., object], *arguments: Any) -> None:
    """Call a function, and end this process after so many changes to the store."""
    seen = 0

    def count_one() -> None:
        nonlocal seen
        seen += 1
        if seen == changes:
            kill_self()

    def counting(real: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any) -> Any:
            try:
                return real(*given)
            finally:
                count_one()

        async def counted_async(*given: Any) -> Any:
            try:
                return await real(*given)
            finally:
                count_one()

        return counted_async if inspect.iscoroutinefunction(real) else counted

    for name in CHANGES:
        setattr(Bucket, name, counting(getattr(Bucket, name)))
    remove_one = Bucket.delete

    def remove_each(bucket: Bucket, keys: Any) -> None:
        for key in keys:
            remove_one(bucket, [key])

    Bucket.delete = remove_each  # type: ignore[method-assign, assignment]
    function(*arguments)
