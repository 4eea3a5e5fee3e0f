"""Compile what the columnar decoder runs, once and where a user can be told."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from fink_dask.avro.kernels import is_cached, is_kept
from fink_dask.avro.operations import LIMIT_BYTES
from fink_dask.avro.pass_one import walk
from fink_dask.avro.pass_two import fill


def _examples() -> tuple[tuple[Any, tuple[Any, ...]], ...]:
    """Return what is compiled, with arguments of the only types that it is ever called with."""
    read_only = np.zeros(1, np.uint8)
    read_only.flags.writeable = False
    ints, table = np.zeros(0, np.int64), np.zeros((0, 8), np.int64)
    limits = np.zeros((0, LIMIT_BYTES), np.uint8)
    letters, int32s = np.zeros(0, np.uint8), np.zeros(0, np.int32)
    return (
        (walk, (read_only, ints, table, limits, ints, 0, ints, ints, table, ints, ints, ints)),
        (
            fill,
            (
                read_only,
                ints,
                table,
                table,
                table,
                ints,
                ints,
                letters,
                table,
                ints,
                ints,
                letters,
                int32s,
                ints,
                ints,
                ints,
            ),
        ),
    )


def warm_up() -> float:
    """Compile everything, or load it from numba's cache, once for this process.

    Returns
    -------
    float
        Seconds it took.
    """
    start = time.perf_counter()
    for function, arguments in _examples():
        function(*arguments)
    return time.perf_counter() - start


def is_compiled() -> bool:
    """Tell whether `warm_up` needs no compiler.

    Returns
    -------
    bool
        Whether everything is compiled in this process, or kept on disk for it.
    """
    return all(is_cached(function, arguments) for function, arguments in _examples())


def is_kept_on_disk() -> bool:
    """Tell whether what `warm_up` compiles is kept for the next process as well.

    Returns
    -------
    bool
        False where numba may write neither beside the code nor to the user's cache directory.
    """
    return all(is_kept(function) for function, _ in _examples())
