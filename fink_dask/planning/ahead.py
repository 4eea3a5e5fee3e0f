"""The first questions to Kafka, asked while the program still loads, and what their answers say of how much it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path

from fink_dask.errors import FinkDaskError, SettingsError, StorageError
from fink_dask.kafka.admin import in_background
from fink_dask.kafka.inspect import Inspector, TopicDescription, open_inspector
from fink_dask.kafka.topics import TopicChoice
from fink_dask.ledger.outdir import find_ledger
from fink_dask.settings import KafkaSettings
from fink_dask.units import Window

#: What is not more than both takes a core a few tenths of a second; processes to share it take longer to start.
SMALL_ALERTS, SMALL_BYTES = 10_000, 16 * 2**20


def is_small(alerts: int, size: float) -> bool:
    """Tell whether so many alerts, of so many bytes in all, are not worth processes of their own."""
    return alerts <= SMALL_ALERTS and size <= SMALL_BYTES


def is_resumed(outdir: Path, choice: TopicChoice, restart: bool) -> bool:
    """Tell whether a single topic was planned before."""
    if restart or choice.is_several:
        return False
    with suppress(SettingsError, StorageError):  # it is said when the ledger is needed
        return find_ledger(outdir.resolve()).exists()
    return False


class FirstLook:
    """What is asked before anything is planned, and the inspector that asks."""

    def __init__(self, inspector: Inspector, choice: TopicChoice, limit: int | None = None) -> None:
        #: For whoever plans: the first time, it has its answers already.
        self.inspector = inspector
        # The most alerts that are wanted.
        self._limit = limit
        described = inspector.ask_ahead(choice.of)
        self._is_large: Future[bool | None] = in_background(lambda: self._find(described))

    def when_large(self, do: Callable[[], object]) -> None:
        """Do something, in another thread, once it is known that there is too much for this process."""
        self._is_large.add_done_callback(lambda found: do() if found.result() else None)

    @property
    def may_be_small(self) -> bool:
        """Whether it is not known that there is too much for this process, nor that there is no answer."""
        return not self._is_large.done() or self._is_large.result() is False

    def _find(self, described: Future[list[TopicDescription]]) -> bool | None:
        """Find out whether there is too much; None where there is no answer."""
        try:
            alerts, size = 0, 0.0
            for each in described.result():
                count = sum(marks.end - marks.start for marks in each.watermarks.values())
                alerts, size = alerts + count, size + count * self.inspector.mean_bytes(each.topic)
            wanted = alerts if self._limit is None else min(alerts, self._limit)
            return not is_small(wanted, size * wanted / max(1, alerts))
        except FinkDaskError:  # it is said by whoever needs the answer
            return None


@contextmanager
def look_ahead(
    kafka: KafkaSettings, choice: TopicChoice, window: Window, limit: int | None, resumed: bool
) -> Iterator[FirstLook]:
    """Begin to ask what there is of some topics; see `open_inspector`."""
    with open_inspector(kafka, choice.names, resumed, window) as inspector:
        # Of what was planned before, only the ledger knows how much is left.
        yield FirstLook(inspector, choice, 0 if resumed else limit)
