"""Loaded by every Python that has this directory on its path: a few alerts then last long enough to be killed in.

`FINK_DASK_TEST_UNHURRIED` names a file: until it is there, a worker waits after each batch, which costs no processor.
"""

import importlib.util
import os
import sys
import time
from pathlib import Path
from typing import Any

from fink_dask import settings

settings.MIN_BATCH_BYTES = 0
#: As long as 25 alerts take that are decoded one at a time.
_PAUSE_S = 0.1
_STAGED = "fink_dask.ranges.staged"


class _Pauses:
    """Has the class that takes batches wait after each of them, once somebody imports it."""

    def find_spec(self, name: str, *_: object) -> Any:
        if name != _STAGED:
            return None
        sys.meta_path.remove(self)
        spec: Any = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def load_with_pauses(module: Any) -> None:
            load(module)
            add, hurry = module.StagedRange.add, Path(os.environ["FINK_DASK_TEST_UNHURRIED"])

            def add_and_wait(self: object, batch: object) -> None:
                add(self, batch)
                if not hurry.exists():
                    time.sleep(_PAUSE_S)

            module.StagedRange.add = add_and_wait

        spec.loader.exec_module = load_with_pauses
        return spec


if "FINK_DASK_TEST_UNHURRIED" in os.environ:
    sys.meta_path.insert(0, _Pauses())
