"""The merge of a group as a task: it can be sent to any process that sees both datasets, and writes a file of its own.

Only whoever holds the lease says that a group is complete. So a task that nobody waits for any more, on a worker that
was lost, leaves at most a file that no document names, and that goes with the directory it is in.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from fink_dask.compaction.groups import Compaction, Group
from fink_dask.compaction.merge import Merged, Merging, merge_group
from fink_dask.compaction.workspace import Workspace
from fink_dask.ledger.ledger import Ledger
from fink_dask.settings import BUFFER_BYTES

#: About the most that a thread holds: a row group as it is read, what waits for the next one, and its encoding.
THREAD_BYTES = 5 * BUFFER_BYTES
#: Seconds between two looks at whether the run may go on.
_LOOK_S = 0.5


@dataclass(frozen=True)
class MergeTask:
    """A group, and what it takes to merge it."""

    group: Group
    merging: Merging
    #: The new dataset, and what it is made of.
    target: Ledger
    compaction: Compaction
    #: Where the file belongs in the new dataset.
    final: str

    @property
    def size(self) -> int:
        """Bytes to read."""
        return sum(file.size for file in self.group.sources)

    def run(self, should_stop: Callable[[], bool], advance: Callable[[int], None] = lambda _: None) -> Merged:
        """Write the file, and bring it to where all of them are; raises as `merge_group` does.

        `should_stop`: asked after each row group; True ends it.
        `advance`: told the bytes of each file that was read.
        """
        workspace = Workspace(self.target, self.compaction)
        with workspace.writing():
            path = workspace.new_file(self.group)
            try:
                return merge_group(
                    *(self.group, self.merging, path, self.final, should_stop, advance),
                    lambda file: workspace.persist(file, should_stop),
                )
            except BaseException:
                path.unlink(missing_ok=True)
                raise


@dataclass(frozen=True)
class Watcher:
    """Who is told of groups as they are merged."""

    #: Told what has become of each, by any thread.
    done: Callable[[MergeTask, Merged], None]
    #: Told the bytes that were read, by any thread.
    advance: Callable[[int], None]
    #: Called now and then; what it raises ends it.
    check: Callable[[], None]


#: Merges groups, several at once; the first that fails ends it.
Merger = Callable[[Sequence[MergeTask], Watcher], None]


@dataclass(frozen=True)
class Threads:
    """Merges groups in so many threads of this process: Arrow releases Python's lock."""

    count: int

    def __call__(self, tasks: Sequence[MergeTask], watcher: Watcher) -> None:
        """Merge them all; see `Merger`."""
        stopped = threading.Event()

        def merge(task: MergeTask) -> None:
            watcher.done(task, task.run(stopped.is_set, watcher.advance))

        with ThreadPoolExecutor(self.count) as pool:
            try:
                left: set[Future[None]] = {pool.submit(merge, task) for task in tasks}
                while left:
                    finished, left = wait(left, _LOOK_S, FIRST_EXCEPTION)
                    for future in finished:
                        future.result()
                    watcher.check()
            except BaseException:
                stopped.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
