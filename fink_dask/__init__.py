"""Move Kafka topics of Fink astronomical alerts into complete, partitioned Parquet datasets, with Dask."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fink_dask.dataset.read import open_dataset

__version__ = "0.1.0"
__all__ = ["__version__", "open_dataset"]

# A library leaves it to its user where its log goes; without a handler, warnings would go to stderr.
logging.getLogger(__name__).addHandler(logging.NullHandler())

#: Where each public function is. Loaded when it is asked for: Arrow takes longer to import than --help may.
_PUBLIC = {"open_dataset": "fink_dask.dataset.read"}


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
