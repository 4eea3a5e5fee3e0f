"""Imported once by the process that workers are forked from, so that each of them starts with everything loaded.

Importing this module loads the libraries that a range needs, and compiles the decoder or loads it from numba's cache.
"""

from __future__ import annotations

import distributed.nanny
import distributed.worker

import fink_dask.transfer.job
from fink_dask.avro.columnar import ColumnarDecoder
from fink_dask.avro.warm_up import warm_up

__all__ = ["ColumnarDecoder", "distributed", "fink_dask"]

warm_up()
