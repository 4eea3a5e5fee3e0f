"""What a Dask worker runs: one range, with the connections and the turns that the threads of its process share."""

from __future__ import annotations

import atexit
import time
from dataclasses import asdict

import pyarrow as pa
from distributed import get_worker

from fink_dask.dataset.remainder import Remainder
from fink_dask.kafka.offsets import Range
from fink_dask.kafka.pool import ConnectionPool
from fink_dask.transfers.events import RangeProgress
from fink_dask.transfers.turn import Turn, Turns
from fink_dask.transfers.work import RangeResult, TaskSettings

#: Seconds between two reports of a range; the scheduler handles each.
_REPORT_S = 0.3

#: The connections of this process.
_connections = ConnectionPool()
atexit.register(_connections.close)
#: What its threads wait for, by how many of them decode at once.
_turns: dict[int, Turns] = {}


def _give_memory_back() -> None:
    """Have Arrow use an allocator that gives back what is freed; the wheels' default looks like a leak."""
    try:
        pa.set_memory_pool(pa.jemalloc_memory_pool())
    except NotImplementedError:  # built without it
        pa.set_memory_pool(pa.system_memory_pool())


def transfer_on_worker(
    range_: Range,
    settings: TaskSettings,
    progress_topic: str,
    turns: int | None,
    remainder: Remainder | None = None,
) -> RangeResult:
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
    """
    # Here and not above: only workers decode, and the compiler takes a third of a second to import.
    from fink_dask.transfers.task import transfer_range

    _give_memory_back()
    worker = get_worker()
    key = worker.get_current_task()
    reported = 0.0

    def notify(progress: RangeProgress) -> None:
        nonlocal reported
        now = time.monotonic()
        if now - reported >= _REPORT_S:
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
