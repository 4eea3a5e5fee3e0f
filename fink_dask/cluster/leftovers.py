"""What a transfer changes in the process of its user, put back by the last of those that run at once."""

from __future__ import annotations

import copy
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import dask
import distributed.utils

State = TypeVar("State")

#: The part of Dask's configuration that is ours while workers run.
_PART = "distributed"
#: In the name of each directory of Dask's schedulers and workers.
_SCRATCH = "dask-scratch-space"


class Kept(Generic[State]):
    """Something of the whole process, kept as it was before the first of those that change it."""

    def __init__(self, look: Callable[[], State], put_back: Callable[[State], object]) -> None:
        self._look, self._put_back = look, put_back
        self._lock = threading.Lock()
        self._users = 0
        self._before: list[State] = []

    @contextmanager
    def while_changed(self, change: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Change it, and put it back unless others have changed it meanwhile and are not done."""
        with self._lock:
            if not self._users:
                self._before = [self._look()]
            self._users += 1
        try:
            with self._lock:
                change()
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._put_back(self._before.pop())


def variables(names: Sequence[str]) -> Kept[Mapping[str, str | None]]:
    """Keep variables of the environment."""

    def put_back(before: Mapping[str, str | None]) -> None:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    return Kept(lambda: {name: os.environ.get(name) for name in names}, put_back)


#: Dask's configuration, whether it has chosen what workers are forked with, where modules are looked for, and what is
#: logged.
_State = tuple[Mapping[str, Any], bool, Sequence[str], Mapping[logging.Handler, int]]


def _now() -> _State:
    part = copy.deepcopy(dask.config.config.get(_PART, {}))
    levels = {handler: handler.level for handler in logging.getLogger(_PART).handlers}
    return part, distributed.utils._forkserver_preload_set, list(sys.path), levels


def _put_back(before: _State) -> None:
    dask.config.config[_PART], distributed.utils._forkserver_preload_set, path, levels = before
    for handler, level in levels.items():
        handler.setLevel(level)
    # A scheduler puts its directory there, and leaves it where it ends by an interrupt, or while another one runs.
    sys.path[:] = [entry for entry in sys.path if entry in path or not _is_of_a_scheduler(entry)]


def _is_of_a_scheduler(entry: str) -> bool:
    return _SCRATCH in entry and (entry.endswith(_SCRATCH) or not Path(entry).exists())


_configuration: Kept[_State] = Kept(_now, _put_back)


@contextmanager
def dask_configuration(settings: Mapping[str, Any], is_whole: bool = False) -> Iterator[None]:
    """Set some of Dask's configuration, and put it back.

    `settings`: what to set, all of it of `distributed`.
    `is_whole`: whether the rest is to be Dask's own. What a user has set is made for other clusters: a preload that is
    missing here, a lifetime of workers, encryption that needs certificates.
    """

    def change() -> None:
        if is_whole:
            own = copy.deepcopy(dask.config.merge(*dask.config.defaults)[_PART])
            link = dask.config.get("distributed.dashboard.link", None)
            if isinstance(link, str) and _can_be_made(link):  # such as through the proxy of JupyterHub
                own["dashboard"]["link"] = link
            dask.config.set({_PART: own})
            # Otherwise Dask has the process that workers are forked from import pandas and more, which nobody needs.
            distributed.utils._forkserver_preload_set = True
            # A cluster does so itself, until the first one closes: the others would be heard then.
            for handler in logging.getLogger(_PART).handlers:
                handler.setLevel(logging.CRITICAL)
        dask.config.set(dict(settings))

    with _configuration.while_changed(change):
        yield


def _can_be_made(link: str) -> bool:
    """Tell whether Dask has all that is named in the template of a link."""
    try:
        link.format(**{**os.environ, "scheme": "http", "host": "", "port": 0})
    except (KeyError, IndexError, ValueError):
        return False
    return True
