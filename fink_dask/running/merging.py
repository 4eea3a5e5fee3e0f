"""Groups of a compaction as Dask tasks: workers write their files, and the command that holds the lease all else."""

from __future__ import annotations

import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pyarrow as pa
from distributed import Future, get_worker

from fink_dask.cluster.choice import ClusterChoice
from fink_dask.cluster.local import Cluster
from fink_dask.cluster.readiness import BACKLOG, TRIES, LostTaskError, Needs, NotReady, WorkerPool
from fink_dask.cluster.worker import bootstrapped, find_lack, give_memory_back, is_unwanted
from fink_dask.compaction.merge import Merged
from fink_dask.compaction.task import THREAD_BYTES, Merger, MergeTask, Threads, Watcher
from fink_dask.errors import TransferError
from fink_dask.progress.events import Event, Note
from fink_dask.progress.tally import Progress
from fink_dask.ranges.slots import DecodeSlot, DecodeSlots

#: The turns that the threads of a worker wait for, by how many of them merge at once.
_turns: dict[int, DecodeSlots] = {}


@contextmanager
def merging_on(chosen: ClusterChoice, threads: int, is_season: bool, note: Callable[[str], None]) -> Iterator[Merger]:
    """Yield what merges groups, on a cluster to which it connects when there is the first of them.

    `threads`: how many groups are merged at once where it is this machine.
    `is_season`: whether there will be groups of several topics, one topic after the other.
    `note`: is told what happens to workers, in a line.
    """
    if chosen.is_here:
        yield Threads(threads)
        return

    def say(event: Event) -> None:
        if isinstance(event, Note):
            note(f"{'warning: ' if event.warning else ''}{event.text}")

    with ExitStack() as stack:
        yield _Workers(chosen, is_season, Progress(say), stack)


class _Workers:
    """The workers of a cluster, as groups of one topic after the other are merged there."""

    def __init__(self, chosen: ClusterChoice, is_season: bool, progress: Progress, stack: ExitStack) -> None:
        self._chosen = chosen
        self._is_season = is_season
        self._progress = progress
        # Disconnects at the end.
        self._stack = stack
        # Connected to for the first group, as there may be none.
        self._connected: tuple[Cluster, WorkerPool] | None = None
        # How many groups are merged at once, where that does not follow from the threads that there are.
        self._count = 0
        self._run = uuid.uuid4().hex

    def __call__(self, tasks: Sequence[MergeTask], watcher: Watcher) -> None:
        """Merge them all; see `Merger`."""
        cluster, pool = self._connected = self._connected or self._connect(tasks)
        # The largest first: a large one that starts last would keep one worker busy while the others idle.
        waiting = deque(sorted(tasks, key=lambda task: task.size, reverse=True))
        running: dict[Future, MergeTask] = {}
        tries: Counter[int] = Counter()
        try:
            while waiting or running:
                most = pool.threads + BACKLOG if cluster.all_threads else self._count
                while waiting and len(running) < most and pool.has_room():
                    task = waiting.popleft()
                    call = (merge_on_worker, task, _needs(task), self._run, cluster.lookahead.turns)
                    running[pool.submit(*bootstrapped(*call), name=f"merge_group-{task.group.number}")] = task
                for future in pool.finished():
                    if (ended := running.pop(future, None)) is None:
                        continue
                    if (merged := _result(pool, future, ended, tries)) is None:
                        waiting.appendleft(ended)
                    else:
                        watcher.done(ended, merged)
                        watcher.advance(ended.size)
                self._progress.pass_on()
                cluster.check()
                pool.look()
                waiting.extendleft(running.pop(future) for future in pool.take_back())
                watcher.check()
        finally:
            pool.cancel(running)

    def _connect(self, tasks: Sequence[MergeTask]) -> tuple[Cluster, WorkerPool]:
        self._count = self._chosen.consumers()
        groups = self._count if self._is_season else len(tasks)
        connection = self._chosen.connect(_needs(tasks[0]), self._count, groups, None, self._progress)
        cluster = self._stack.enter_context(connection)
        return cluster, WorkerPool(cluster.client, self._progress, cluster.patience_s)


def _needs(task: MergeTask) -> Needs:
    """Say what a worker must have: it reads the one dataset, and writes beside the other."""
    # When the topic is complete, jobs go on for others of its season, and a transfer into it may have its own.
    return Needs(task.target, None, "", task.merging.root / task.group.sources[0].path, "compaction-jobs")


def _result(pool: WorkerPool, future: Future, task: MergeTask, tries: Counter[int]) -> Merged | None:
    """Return what has become of a group; None where it has to be tried again.

    Raises what its worker has raised, or a TransferError if too many workers have died on it.
    """
    try:
        result: Merged | None = pool.result(future)
        return result
    except LostTaskError as error:
        tries[task.group.number] += 1
        if tries[task.group.number] >= TRIES:
            raise TransferError(f"the files of {task.final}, tried {TRIES} times: {error.message}") from error
        return None
    finally:
        pool.release(future)


def merge_on_worker(task: MergeTask, needs: Needs, run: str, turns: int | None) -> Merged | NotReady:
    """Merge a group on a Dask worker, and stop when nobody waits for the result.

    `run`: name of the run; this worker checks once for each and ledger whether it has what it needs.
    `turns`: threads of this worker that merge at once; None for all of them, as far as half of its memory lets them.
    """
    worker = get_worker()
    if (lack := find_lack(run, needs, task.target.compaction_path)) is not None:
        return worker.address, lack
    give_memory_back()
    should_stop = is_unwanted(worker)
    at_once, limit = turns or worker.state.nthreads, worker.memory_manager.memory_limit
    if limit:
        at_once = max(1, min(at_once, limit // (2 * THREAD_BYTES)))
    try:
        with DecodeSlot(_turns.setdefault(at_once, DecodeSlots(at_once)), should_stop):
            return task.run(should_stop)
    finally:
        # Arrow's allocator keeps what was freed, and Dask would pause a worker that looks full.
        pa.default_memory_pool().release_unused()
