"""Imported once by the process that workers are forked from, so that each of them starts with everything loaded.

The import loads the libraries that a range needs, and compiles the decoder or loads it from numba's cache.
"""

from __future__ import annotations

# Dask reads the user's configuration files when it is imported. The process that started this one meets a malformed one
# as well, and says so in a line; this one ends silently.
try:
    import dask  # noqa: F401
except ValueError:
    raise SystemExit(1) from None

import gc
import sys
from importlib.abc import MetaPathFinder

import distributed.nanny
import distributed.worker
import numpy as np
import pyarrow as pa

import fink_dask.cluster.worker
import fink_dask.ranges.task
from fink_dask.avro.decoder import ColumnarDecoder
from fink_dask.cluster.forkserver import prepare_decoder

__all__ = ["ColumnarDecoder", "distributed", "fink_dask"]


class _NoPandas(MetaPathFinder):
    """Finds nothing, and ends the search for pandas."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


def _do_without_pandas() -> None:
    """Let pyarrow look for pandas, which it does only once, while it can't be found.

    Importing pandas takes as long as everything else here, and no worker needs it.
    """
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array(np.zeros(0)).to_numpy(zero_copy_only=False)
    finally:
        sys.meta_path.remove(finder)


_do_without_pandas()
prepare_decoder()
# All of this stays: a garbage collection in a worker would look through it, and so copy the memory that is shared.
gc.freeze()
