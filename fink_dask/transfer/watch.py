"""Look at a topic again and again while its ranges are transferred."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from fink_dask.errors import BrokerError, BrokerUnavailableError, FinkDaskError
from fink_dask.kafka.describe import Inspector, TopicDescription
from fink_dask.kafka.suspicion import Suspicion

#: Seconds between two looks: what the end of a run may be late by, beside the work that is left.
LOOK_S = 0.5


@dataclass(frozen=True)
class Look:
    """One look at a topic.

    Parameters
    ----------
    description : TopicDescription or None
        What was seen.
    error : FinkDaskError or None
        Why nothing was seen.
    """

    description: TopicDescription | None
    error: FinkDaskError | None = None


class Watch:
    """Looks at a topic in a thread of its own, so that a broker which is away holds nobody up; a context manager.

    Parameters
    ----------
    inspector : Inspector
        Asks the broker; nobody else may use it meanwhile.
    topic : str
        The topic.
    """

    def __init__(self, inspector: Inspector, topic: str) -> None:
        self._inspector = inspector
        self._topic = topic
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fink-dask-watch", daemon=True)
        self._latest: Look | None = None
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
    def latest(self) -> Look | None:
        """The last look; None before the first one."""
        return self._latest

    def _run(self) -> None:
        while not self._over.is_set():
            self._latest = self._look()
            self._over.wait(LOOK_S)

    def _look(self) -> Look:
        try:
            description = self._inspector.describe(self._topic)
        except BrokerUnavailableError as error:
            return Look(None, error)
        except BrokerError as error:
            # A broker that has just come back may not know its topics yet.
            if self._suspicion.confirms(str(error)):
                return Look(None, error)
            return Look(None, BrokerUnavailableError(str(error), self._topic))
        except FinkDaskError as error:
            return Look(None, error)
        self._suspicion.clear()
        return Look(description)
