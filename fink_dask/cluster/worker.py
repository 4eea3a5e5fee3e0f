"""What a Dask worker runs: a range or a few, with the connections and the turns that the process's threads share."""

from __future__ import annotations

import atexit
import pickle
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import pyarrow as pa
from distributed import WorkerPlugin, get_worker
from distributed.worker import WORKER_ANY_RUNNING

import fink_dask
from fink_dask.cluster.profiling import look_at_threads_safely
from fink_dask.cluster.readiness import Needs, NotReady, check_fitness
from fink_dask.errors import FinkDaskError
from fink_dask.kafka.connection import ConnectionPool
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.remainder import Remainder
from fink_dask.progress.events import RangeProgress
from fink_dask.ranges.slots import DecodeSlot, DecodeSlots
from fink_dask.ranges.work import RangeResult, TaskSettings
from fink_dask.settings import KafkaSettings
from fink_dask.store.bucket import wait_for_stores

#: Seconds between two reports of a range, while it moves and while it waits; the scheduler handles each.
REPORT_S, IDLE_S = 0.3, 1.0
#: The most reports a second, of all ranges together: each costs scheduler and client 0.3 ms.
_REPORTS = 500
#: What a report begins with that has the results of a task.
RESULTS_OF = "results of"

#: The connections of this process.
_connections = ConnectionPool()
#: The runs and ledgers for which this process is known to have what it needs.
_fit: set[tuple[str, Path]] = set()
#: The turns that its threads wait for, by how many of them decode at once.
_turns: dict[int, DecodeSlots] = {}

look_at_threads_safely()


@dataclass(frozen=True)
class Share:
    """What part of the rate a process may use."""

    #: The later of two shares has the higher one: a range may begin long after it was handed out.
    number: int = 0
    #: 1 for all of it.
    part: float = 1.0


class Shares:
    """Knows where ranges run, and what share of the rate each process has."""

    def __init__(self) -> None:
        #: That of each process, as it was last said.
        self.share = Share()
        #: The worker that each range was last seen on; none for a range that may begin anywhere.
        self._running: dict[Hashable, str | None] = {}
        self._told: frozenset[str] = frozenset()

    def begin(self, offset_range: Hashable) -> None:
        """Take note of a range that is handed out, and may begin on any worker."""
        self._running[offset_range] = None

    def see(self, offset_range: Hashable, worker: str) -> None:
        """Take note of where a range runs."""
        if offset_range in self._running:
            self._running[offset_range] = worker

    def end(self, offset_range: Hashable) -> None:
        """Take note of a range that has ended, or has to begin again."""
        self._running.pop(offset_range, None)

    def divide(self, here: int, coming: int = 0) -> frozenset[str]:
        """Divide the rate again, if it has to be.

        `coming`: ranges that are about to be handed out.
        Returns: the workers to be told of the new share; none where all know it.
        """
        at_work = frozenset(worker for worker in self._running.values() if worker is not None)
        anywhere = coming + sum(worker is None for worker in self._running.values())
        # A range that was not seen yet may begin where none of the others run.
        processes = max(1, len(at_work), min(len(at_work) + anywhere, here))
        is_new = 1 / processes != self.share.part
        if is_new:
            self.share = Share(self.share.number + 1, 1 / processes)
        # A worker that is new may have begun with an older share, which was larger.
        told, self._told = self._told, at_work
        return at_work if is_new else at_work - told


class Portions:
    """What part of the rate is this process's, for each run that has ranges here; any thread may use it."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[Share, int]] = {}
        self._lock = Lock()

    @property
    def part(self) -> float:
        """The part; the smallest where several runs have ranges here."""
        with self._lock:
            return min((share.part for share, _ in self._of.values()), default=1.0)

    def enter(self, run: str, share: Share) -> None:
        """Take note that a range begins, and of the share that it came with."""
        with self._lock:
            known, ranges = self._of.get(run, (share, 0))
            self._of[run] = (max(known, share, key=lambda each: each.number), ranges + 1)

    def leave(self, run: str) -> None:
        """Take note that a range has ended."""
        with self._lock:
            share, ranges = self._of.pop(run)
            if ranges > 1:
                self._of[run] = (share, ranges - 1)

    def take(self, run: str, share: Share) -> None:
        """Take note of a share that was told, if it is the latest and there are ranges that it concerns."""
        with self._lock:
            if run in self._of and share.number > self._of[run][0].number:
                self._of[run] = (share, self._of[run][1])


atexit.register(_connections.close)

#: What part of the rate that is set for all processes is this one's.
_portions = Portions()


def give_memory_back() -> None:
    """Let Arrow use an allocator that gives freed memory back; with the wheels' default it looks like a leak."""
    try:
        pa.set_memory_pool(pa.jemalloc_memory_pool())
    except NotImplementedError:  # Arrow was built without jemalloc
        pa.set_memory_pool(pa.system_memory_pool())


class WarmUp(WorkerPlugin):  # type: ignore[misc]  # Dask ships no types
    """Has a worker connect to Kafka while the plan is still being made: over a long way that takes seconds."""

    def __init__(self, kafka: KafkaSettings, connections: int, topics: Sequence[str], workers: int) -> None:
        # How to reach it.
        self._kafka = kafka
        # How many ranges the worker will read at once.
        self._connections = connections
        # Topics whose ranges they will be.
        self._topics = topics
        # How many workers do this, over the same line.
        self._workers = workers

    def setup(self, worker: Any) -> None:
        """Begin to connect; nothing waits for it, and what fails is said when it is needed."""
        _connections.line.begin_among(self._workers)
        with suppress(FinkDaskError):
            _connections.warm_up(self._kafka, self._connections, self._topics)


def report_interval_s(ranges: float) -> float:
    """Return the seconds between two reports of each of so many ranges that run at once."""
    return max(REPORT_S, ranges / _REPORTS)


def bootstrapped(*call: Any) -> tuple[Callable[[str, bytes], Any], str, bytes]:
    """Wrap a call, a function and its arguments, for a worker that may lack this package or have another version of it.

    A worker that can't load a task does not say so: its connection breaks, and it ends. The function that is returned
    travels by value, because it belongs to no module, and the call that it carries travels as bytes.
    """

    def bootstrap(version: str, call: bytes) -> Any:
        try:
            from fink_dask import __version__ as found
        except ImportError:
            found = ""
        if found == version:
            function, *arguments = pickle.loads(call)  # noqa: S301 - from the job itself
            return function(*arguments)
        return (
            get_worker().address,
            f"it has {f'fink-dask {found}' if found else 'no fink-dask'}, but the job has {version}",
        )

    return bootstrap, fink_dask.__version__, pickle.dumps(call)


def find_lack(run: str, needs: Needs, made: Path) -> str | None:
    """Check once for each run and ledger whether this process can do the work; return what it lacks."""
    key = (run, needs.ledger.path)
    if key in _fit:
        return None
    try:
        check_fitness(needs, made)
    except FinkDaskError as error:
        return str(error)
    _fit.add(key)
    return None


def is_unwanted(worker: Any) -> Callable[[], bool]:
    """Return what tells whether nobody waits any more for what this thread does.

    Cancelling does not reach a running thread, but the worker's own state of the task tells. A worker that closes waits
    for its threads, where no nanny ends its process.
    """
    key = worker.get_current_task()

    def should_stop() -> bool:
        task = worker.state.tasks.get(key)
        return task is None or task.state == "cancelled" or worker.status not in WORKER_ANY_RUNNING

    return should_stop


def take_share(run: str, share: Share) -> None:
    """Take note of what part of the rate is this process's now; called from outside of any task."""
    _portions.take(run, share)
    _connections.line.part = _portions.part


@contextmanager
def _sharing(run: str, share: Share | None) -> Iterator[None]:
    """Keep to this process's part of the rate, where one is set, as long as a range of the run is here."""
    if share is None:
        yield
        return
    _portions.enter(run, share)
    _connections.line.part = _portions.part
    try:
        yield
    finally:
        _portions.leave(run)
        _connections.line.part = _portions.part


def transfer_on_worker(
    ranges: Sequence[OffsetRange],
    settings: TaskSettings,
    progress_topic: str,
    turns: int | None,
    remainder: Remainder | None = None,
    looks: bool = False,
    share: Share | None = None,
    report_s: float = REPORT_S,
) -> list[RangeResult] | NotReady:
    """Run `transfer_range` on a Dask worker: report to the scheduler, and stop when nobody waits for the results.

    The results go with the reports as well, before Dask says that there are any: who has subscribed to them need not
    fetch them, which takes as long as all other messages of a short range together.

    `ranges`: one, or a few that are transferred one after the other, up to the first that fails.
    `turns`: threads of this worker that decode at once; None for all of them.
    `remainder`: what is left of the range, where one is to be repaired.
    `looks`: whether this worker may not have been checked yet: then it checks itself, once.
    `share`: what part of the rate that the settings allow is this process's.
    `report_s`: seconds between two reports.
    """
    # Imported here: only workers decode, and the compiler takes a third of a second to import.
    from fink_dask.ranges.task import transfer_range

    worker = get_worker()
    wait_for_stores(settings.kafka.reconnect_timeout_s)
    if looks:
        ledger = settings.ledger
        made = ledger.store.plan_directory(ledger.staging_path / settings.plan_id)
        needs = Needs(ledger, settings.kafka, settings.identity.topic)
        if (lack := find_lack(progress_topic, needs, made)) is not None:
            return worker.address, lack
    give_memory_back()
    key = worker.get_current_task()
    reported, received = 0.0, -1

    def notify(progress: RangeProgress) -> None:
        nonlocal reported, received
        now = time.monotonic()
        if now - reported >= (max(IDLE_S, report_s) if progress.received == received else report_s):
            reported, received = now, progress.received
            worker.log_event(progress_topic, asdict(progress))

    should_stop = is_unwanted(worker)
    try:
        with _sharing(progress_topic, share):
            results = [
                transfer_range(
                    offset_range,
                    settings,
                    notify,
                    should_stop,
                    connect=_connections.connect,
                    turn=DecodeSlot(
                        None if turns is None else _turns.setdefault(turns, DecodeSlots(turns)), should_stop
                    ),
                    remainder=remainder,
                    line=_connections.line,
                )
                for offset_range in ranges
            ]
            worker.log_event(progress_topic, {RESULTS_OF: key, "results": [asdict(each) for each in results]})
            return results
    finally:
        # Arrow's allocator keeps what was freed, and Dask would pause a worker that looks full.
        pa.default_memory_pool().release_unused()
