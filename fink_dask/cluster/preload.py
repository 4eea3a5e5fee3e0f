"""Imported once by the process that workers are forked from, so that each of them starts with everything loaded.

The import loads the libraries that a range needs, and compiles the decoder, and the loop that copies large ranges from
librdkafka, or loads them from numba's cache.
"""

# ruff: noqa: E402 - first of all, nothing is to be collected meanwhile

from __future__ import annotations

import gc

gc.disable()

# Dask reads the user's configuration files when it is imported. The process that started this one meets a malformed one
# as well, and says so in a line; this one ends silently.
try:
    import dask  # noqa: F401
except ValueError:
    raise SystemExit(1) from None

import distributed.nanny
import distributed.worker

import fink_dask.cluster.worker
import fink_dask.ranges.task
from fink_dask.avro.decoder import ColumnarDecoder
from fink_dask.cluster.forkserver import do_without_pandas, prepare_decoder
from fink_dask.kafka.copying import load

__all__ = ["ColumnarDecoder", "distributed", "fink_dask"]

do_without_pandas()
prepare_decoder()
load()
# All of this stays: a garbage collection in a worker would look through it, and so copy the memory that is shared.
gc.freeze()
gc.enable()
