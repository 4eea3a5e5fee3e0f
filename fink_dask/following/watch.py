"""Look at topics again and again while their ranges are transferred."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from fink_dask.errors import BrokerError, BrokerUnavailableError
from fink_dask.kafka.client import Suspicion
from fink_dask.kafka.inspect import Inspector
from fink_dask.transfers.find import Finder, Look

#: Seconds between two looks: by so much the end of a run may be late, besides the work that is left, or by `_MOST_S`
#: on a slow line.
LOOK_S = 0.5
#: It rests for so many times as long as a look took, and at most so many seconds.
_RESTS, _MOST_S = 4, 10.0


@dataclass(frozen=True)
class Round:
    """One look at all topics.

    Parameters
    ----------
    looks : mapping of str to Look
        What was seen of each.
    error : Exception or None
        Why nothing was seen of any of them.
    """

    looks: Mapping[str, Look] = field(default_factory=dict)
    error: Exception | None = None


class Watch:
    """Looks at topics in a thread of its own, so that an absent broker holds nobody up; a context manager.

    Parameters
    ----------
    inspector : Inspector
        Asks the broker; nobody else may use it meanwhile.
    finder : Finder
        Knows which topics are meant; nobody else may use it either, except to take what it has found.
    """

    def __init__(self, inspector: Inspector, finder: Finder) -> None:
        self._inspector = inspector
        self._finder = finder
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fink-dask-watch", daemon=True)
        self._latest: Round | None = None
        self._suspicion = Suspicion()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    @property
    def latest(self) -> Round | None:
        """The last round; None before the first one."""
        return self._latest

    def _run(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            self._latest = self._look()
            # A look brings the list of all topics: on a slow line it must not take what the alerts need.
            took = time.monotonic() - began
            self._over.wait(min(_MOST_S, max(LOOK_S, _RESTS * took)))

    def _look(self) -> Round:
        try:
            looks = self._finder.look(self._inspector)
        except BrokerUnavailableError as error:
            return Round(error=error)
        except BrokerError as error:
            if self._suspicion.confirms("refused"):
                return Round(error=error)
            return Round(error=BrokerUnavailableError(error.message, error.topic))
        except Exception as error:  # whatever it is, the run has to know, or it would wait for ever
            return Round(error=error)
        self._suspicion.clear()
        return Round(looks)
