"""Groups of a compaction as Dask tasks: workers write their files, and the command that holds the lease all else."""

from __future__ import annotations

import pickle
import queue
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pyarrow as pa
from distributed import CancelledError, Future, KilledWorker, get_worker

import fink_dask
from fink_dask.cluster.choice import ClusterChoice
from fink_dask.cluster.local import Cluster
from fink_dask.cluster.readiness import Needs, NotReady, WorkerPool
from fink_dask.cluster.worker import find_lack, give_memory_back, is_unwanted, make_errand
from fink_dask.compaction.merge import Merged
from fink_dask.compaction.task import THREAD_BYTES, Merger, MergeTask, Threads
from fink_dask.errors import InterruptedTransferError, TransferError
from fink_dask.progress.events import Event, Note
from fink_dask.progress.tally import Progress
from fink_dask.ranges.slots import DecodeSlot, DecodeSlots

#: How often a group is tried whose workers die.
_TRIES = 4
#: Groups that wait for a thread, so that a cluster that adapts itself sees that it should grow.
_BACKLOG = 4
#: Seconds between two looks at whatever else happens.
_LOOK_S = 0.25
#: Seconds to wait for a result that was just there: if its worker has died, Dask computes it again.
_RESULT_S = 60.0

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

    progress = Progress(say)
    with ExitStack() as stack:
        known: list[_Workers] = []

        def merge(
            tasks: Sequence[MergeTask],
            done: Callable[[MergeTask, Merged], None],
            advance: Callable[[int], None],
            check: Callable[[], None],
        ) -> None:
            if not known:
                count = chosen.consumers()
                groups = count if is_season else len(tasks)
                cluster = stack.enter_context(chosen.connect(_needs(tasks[0]), count, groups, None, progress))
                known.append(_Workers(cluster, count, progress))
            known[0].merge(tasks, done, advance, check)

        yield merge


def _needs(task: MergeTask) -> Needs:
    """Say what a worker must have: it reads the one dataset, and writes beside the other."""
    # When the topic is complete, jobs go on for others of its season, and a transfer into it may have its own.
    return Needs(task.target, None, "", task.merging.root / task.group.sources[0].path, "compaction-jobs")


class _Workers:
    """The workers of a cluster, as groups of one topic after the other are merged there."""

    def __init__(self, cluster: Cluster, count: int, progress: Progress) -> None:
        self._cluster = cluster
        # How many groups are merged at once, where that does not follow from the threads that there are.
        self._count = count
        self._progress = progress
        self._pool = WorkerPool(cluster.client, cluster.patience_s)
        self._run = uuid.uuid4().hex

    def merge(
        self,
        tasks: Sequence[MergeTask],
        done: Callable[[MergeTask, Merged], None],
        advance: Callable[[int], None],
        check: Callable[[], None],
    ) -> None:
        """Merge them all; see `Merger`."""
        # The largest first: a large one that starts last would keep one worker busy while the others idle.
        waiting = deque(sorted(tasks, key=lambda task: task.size, reverse=True))
        running: dict[Future, MergeTask] = {}
        tries: Counter[int] = Counter()
        finished: queue.SimpleQueue[Future] = queue.SimpleQueue()
        try:
            while waiting or running:
                while waiting and len(running) < self._most() and self._pool.has_room():
                    future = self._submit(task := waiting.popleft())
                    running[future] = task
                    future.add_done_callback(finished.put)
                for future in _taken(finished):
                    if (mine := running.pop(future, None)) is None:
                        continue
                    if (merged := self._result(future, mine, tries)) is None:
                        waiting.appendleft(mine)
                    else:
                        done(mine, merged)
                        advance(mine.size)
                self._check_cluster(waiting, running)
                check()
        finally:
            if self._cluster.client.status == "running":
                self._cluster.client.cancel(list(running), force=True)

    def _most(self) -> int:
        """Return how many groups are out at once."""
        return self._pool.threads + _BACKLOG if self._cluster.all_threads else self._count

    def _submit(self, task: MergeTask) -> Future:
        call = pickle.dumps((merge_on_worker, task, _needs(task), self._run, self._cluster.lookahead.turns))
        key = f"merge_group-{task.group.number}-{uuid.uuid4().hex[:8]}"
        return self._pool.submit(make_errand(), fink_dask.__version__, call, key=key)

    def _result(self, future: Future, task: MergeTask, tries: Counter[int]) -> Merged | None:
        """Return what has become of a group; None where it has to be tried again.

        Raises what its worker has raised, or a TransferError if too many workers have died on it.
        """
        try:
            result: Merged | NotReady = future.result(timeout=_RESULT_S)
        except (KilledWorker, TimeoutError, CancelledError, InterruptedTransferError) as error:
            tries[task.group.number] += 1
            if tries[task.group.number] >= _TRIES:
                raise TransferError(f"workers died on the files of {task.final}, {_TRIES} times") from error
            return None
        finally:
            self._pool.release(future)
        if isinstance(result, Merged):
            return result
        if (refusal := self._pool.reject(result)) is not None:
            self._progress(Note(refusal, warning=True))
        return None

    def _check_cluster(self, waiting: deque[MergeTask], running: dict[Future, MergeTask]) -> None:
        """Raise a TransferError when the scheduler is gone, or has had no workers for a while."""
        self._progress.pass_on()
        self._cluster.check()
        if (words := self._pool.look()) is not None:
            self._progress(Note(words, warning=True))
        for future in self._pool.stranded():
            waiting.appendleft(running.pop(future))
            self._cluster.client.cancel([future], force=True)
            self._pool.release(future)


def _taken(finished: queue.SimpleQueue[Any]) -> Iterator[Any]:
    """Wait for one, then take all that have come."""
    try:
        yield finished.get(timeout=_LOOK_S)
        while True:
            yield finished.get_nowait()
    except queue.Empty:
        pass


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
