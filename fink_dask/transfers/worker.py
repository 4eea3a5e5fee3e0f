"""What a Dask worker runs: one range, with the connections and the turns that the threads of its process share."""

from __future__ import annotations

import atexit
import pickle
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pyarrow as pa
from distributed import get_worker

from fink_dask.errors import FinkDaskError
from fink_dask.kafka.offsets import Range
from fink_dask.kafka.pool import ConnectionPool
from fink_dask.ledger.remainder import Remainder
from fink_dask.store.durable import admission
from fink_dask.transfers.events import RangeProgress
from fink_dask.transfers.fitness import Unfit, check_fitness
from fink_dask.transfers.turn import Turn, Turns
from fink_dask.transfers.work import RangeResult, TaskSettings

#: Seconds between two reports of a range; the scheduler handles each.
REPORT_S = 0.3

#: The connections of this process.
_connections = ConnectionPool()
atexit.register(_connections.close)
#: The runs and topics for which this process has what it needs.
_fit: set[tuple[str, str]] = set()
#: What its threads wait for, by how many of them decode at once.
_turns: dict[int, Turns] = {}


def _give_memory_back() -> None:
    """Have Arrow use an allocator that gives back what is freed; the wheels' default looks like a leak."""
    try:
        pa.set_memory_pool(pa.jemalloc_memory_pool())
    except NotImplementedError:  # built without it
        pa.set_memory_pool(pa.system_memory_pool())


def make_errand() -> Callable[[str, bytes], Any]:
    """Make a function that makes a call, on a worker that may lack this package or have another version of it.

    A worker that lacks what a task consists of does not say so: its connection breaks, and it ends. This function
    travels as what it is, because it belongs to no module, and what it is to call travels as bytes.
    """

    def errand(version: str, call: bytes) -> Any:
        try:
            from fink_dask import __version__ as found
        except ImportError:
            found = ""
        if found == version:
            function, *arguments = pickle.loads(call)  # noqa: S301 - of the job
            return function(*arguments)
        return (
            get_worker().address,
            f"it has {f'fink-dask {found}' if found else 'no fink-dask'}, but the job {version}",
        )

    return errand


def _find_lack(run: str, settings: TaskSettings) -> str | None:
    """Look once for each run and topic whether this process can do the work; returns what it lacks."""
    topic, ledger = settings.identity.topic, settings.ledger
    if (run, topic) in _fit:
        return None
    try:
        check_fitness(ledger, admission(ledger.staging_path / settings.plan_id), settings.kafka, topic)
    except FinkDaskError as error:
        return str(error)
    _fit.add((run, topic))
    return None


def transfer_on_worker(
    range_: Range,
    settings: TaskSettings,
    progress_topic: str,
    turns: int | None,
    remainder: Remainder | None = None,
    looks: bool = False,
) -> RangeResult | Unfit:
    """Run `transfer_range` on a Dask worker: report to the scheduler, and stop when nobody waits for the result.

    Parameters
    ----------
    range_ : Range
        What to transfer.
    settings : TaskSettings
        How, and where to.
    progress_topic : str
        Dask's topic for the reports.
    turns : int or None
        Threads of this worker that decode at once; None for all of them.
    remainder : Remainder, optional
        What is left of a range that is to be repaired.
    looks : bool
        Whether nobody may have looked yet at what this worker has: it looks itself, once.
    """
    # Here and not above: only workers decode, and the compiler takes a third of a second to import.
    from fink_dask.transfers.task import transfer_range

    worker = get_worker()
    if looks and (lack := _find_lack(progress_topic, settings)) is not None:
        return worker.address, lack
    _give_memory_back()
    key = worker.get_current_task()
    reported = 0.0

    def notify(progress: RangeProgress) -> None:
        nonlocal reported
        now = time.monotonic()
        if now - reported >= REPORT_S:
            reported = now
            worker.log_event(progress_topic, asdict(progress))

    def should_stop() -> bool:
        # Cancelling does not reach a running thread; the worker's own state of the task tells.
        task = worker.state.tasks.get(key)
        return task is None or task.state == "cancelled"

    try:
        return transfer_range(
            range_,
            settings,
            notify,
            should_stop,
            connect=_connections.connect,
            turn=Turn(None if turns is None else _turns.setdefault(turns, Turns(turns)), should_stop),
            remainder=remainder,
        )
    finally:
        # Arrow's allocator keeps what it has freed, and Dask would pause a worker that looks full.
        pa.default_memory_pool().release_unused()
