"""A topic of FinkAI's predictions: transfer them and their alerts as any topics are, and join the two datasets.

While topics are followed, what has come is joined again and again, in a thread beside the transfer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from types import TracebackType
from typing import Self

from fink_dask.errors import FinkDaskError
from fink_dask.joining.join import join_datasets
from fink_dask.kafka.topics import TopicChoice
from fink_dask.ledger.lease import hold_lease
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.outdir import find_ledger, total_of
from fink_dask.ledger.restart import set_aside
from fink_dask.ledger.summary import Summary, summarise
from fink_dask.planning.predicted import with_alerts
from fink_dask.planning.topic import retire_old_datasets
from fink_dask.progress.events import Doing, Note
from fink_dask.progress.tally import Progress
from fink_dask.settings import TransferSettings
from fink_dask.units import pluralize

#: How many times longer than a join it rests at least.
_RESTS = 4


def transfer_predictions(
    settings: TransferSettings,
    progress: Progress,
    restart: bool,
    transfer: Callable[[TopicChoice, TransferSettings], None],
) -> Summary:
    """Transfer predictions and their alerts, and join them; see `run_topics`.

    `settings`: what was asked for, and where the joined dataset is.
    `transfer`: transfers topics, and raises an error where one has failed.
    Raises FinkDaskError if it is refused or can't be finished; what is committed stays committed.
    """
    choice, parts = with_alerts(settings, progress, restart)
    target = find_ledger(settings.outdir)
    alerts, predictions = (find_ledger(parts.outdir / name, joins=True) for name in choice.names)
    if restart and target.exists():
        with hold_lease(target):
            set_aside(target)
    before = summarise(target).summary if target.exists() else Summary(settings.topic, "interrupted")
    beside: AbstractContextManager[object] = nullcontext()
    if settings.follow is not None:
        join = _join(alerts, predictions, target, settings)
        beside = _Beside(join, settings.follow.roll_interval_s)
    with beside:
        transfer(choice, parts)
    run_seconds = time.monotonic() - progress.began
    if not (alerts.exists() and predictions.exists()):
        return Summary(settings.topic, "complete", run_seconds=run_seconds)
    progress(Doing("joining predictions with their alerts"))
    _join(alerts, predictions, target, settings)(lambda: False)
    of_alerts, of_predictions, joined = (summarise(each).summary for each in (alerts, predictions, target))
    retire_old_datasets(target, joined, progress)
    if without := of_alerts.alerts - joined.alerts:
        words = (
            f"{pluralize(without, 'alert')} of {of_alerts.alerts:,} have no prediction yet: run the same command again"
        )
        progress(Note(f"{words} later to get them, or let --follow wait for them", warning=True))
    return replace(
        joined,
        topic=settings.topic,
        state=total_of([of_alerts, of_predictions, joined]).state,
        run_alerts=joined.alerts - before.alerts,
        run_seconds=time.monotonic() - progress.began,
    )


def _join(
    alerts: Ledger, predictions: Ledger, target: Ledger, settings: TransferSettings
) -> Callable[[Callable[[], bool]], None]:
    """Return what joins, as long as it is not told to stop."""
    return lambda should_stop: join_datasets(alerts, predictions, target, settings.compression, should_stop)


class _Beside:
    """Joins in a thread of its own, every so many seconds; a context manager."""

    def __init__(self, join: Callable[[Callable[[], bool]], None], interval_s: float) -> None:
        self._join = join
        self._interval_s = interval_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fink-dask-join", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        took = 0.0
        while not self._over.wait(max(self._interval_s, _RESTS * took)):
            began = time.monotonic()
            with suppress(FinkDaskError):  # said when all is joined at the end; nothing may be there yet
                self._join(self._over.is_set)
            took = time.monotonic() - began
