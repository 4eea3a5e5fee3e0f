"""Move Kafka topics of Fink astronomical alerts into complete, partitioned Parquet datasets, with Dask."""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fink_dask.api.topic import read_topic
    from fink_dask.api.transfer import TransferResult, plan, transfer, verify
    from fink_dask.dataset.cutouts import cutout
    from fink_dask.dataset.read import open_dataset
    from fink_dask.errors import FinkDaskError
    from fink_dask.lightcurves.find import light_curve

__version__ = "0.1.0"
__all__ = [
    "FinkDaskError",
    "TransferResult",
    "__version__",
    "cutout",
    "light_curve",
    "open_dataset",
    "plan",
    "read_topic",
    "transfer",
    "verify",
]

#: Where each name is: nothing is loaded before it is used, as the command line is quicker without.
_PLACES = {
    "FinkDaskError": "fink_dask.errors",
    "TransferResult": "fink_dask.api.transfer",
    "cutout": "fink_dask.dataset.cutouts",
    "light_curve": "fink_dask.lightcurves.find",
    "open_dataset": "fink_dask.dataset.read",
    "plan": "fink_dask.api.transfer",
    "read_topic": "fink_dask.api.topic",
    "transfer": "fink_dask.api.transfer",
    "verify": "fink_dask.api.transfer",
}

# A library leaves it to its user where its log goes; without a handler, warnings would go to stderr.
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_PLACES[name]), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == __name__:
            raise
        return _lacking(name, error)


def _lacking(name: str, error: ModuleNotFoundError) -> Any:
    """Stand for a function whose library is missing: help and star imports look at all names, and call none."""

    def lacking(*_: Any, **__: Any) -> None:
        raise ImportError(f"{name} needs {error.name}: pip install 'fink-dask[dataframe]'", name=error.name) from error

    lacking.__name__ = lacking.__qualname__ = name
    lacking.__doc__ = f"Needs {error.name}: pip install 'fink-dask[dataframe]'."
    return lacking


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
