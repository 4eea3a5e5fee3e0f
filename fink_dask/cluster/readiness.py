"""The workers of a Dask cluster as a job sees them: whether there are any, which of them get tasks, what comes back."""

from __future__ import annotations

import math
import queue
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dask.utils import key_split
from distributed import CancelledError, KilledWorker

from fink_dask.errors import BrokerError, FinkDaskError, InterruptedTransferError, StorageError, TransferError
from fink_dask.kafka.inspect import open_inspector
from fink_dask.ledger.ledger import Ledger
from fink_dask.progress.events import Note, Observer
from fink_dask.ranges.work import GO_ON
from fink_dask.settings import KafkaSettings

#: The result of a task that a worker did not begin, as it lacks something: its address, and what it lacks.
NotReady = tuple[str, str]

#: How often a task is tried when the cause may pass: an absent broker, a killed worker.
TRIES = 4
#: Tasks that wait for a thread where a cluster may grow: one that adapts itself starts workers for what waits.
BACKLOG = 4
#: Seconds between two looks at whatever else happens, and at the workers: that costs as much as a small range.
LOOK_S = 0.25
#: Seconds to wait for a result that was just there: if its worker has died, Dask computes it again.
_RESULT_S = 60.0
#: Seconds that a scheduler may be without workers: a nanny needs a few to replace one.
NO_WORKERS_S = 60.0
#: Seconds that a scheduler may take to answer.
_ANSWER_S = 10.0
#: Seconds without workers before that is said: a cluster that adapts itself starts some first.
SAID_S = 5.0
#: Seconds after which a worker that lacked something is tried again: a directory may be mounted late.
_AGAIN_S = 60.0
#: Tasks after which Dask forgets how it split their names: it would remember the last 100,000, 0.4 kB each.
_FORGET = 1_000


@dataclass(frozen=True)
class Needs:
    """What a worker must have to take part in a run."""

    #: To whose directories it writes.
    ledger: Ledger
    #: kafka, topic: the brokers that it must reach, and what it must find there; None where nothing is read from Kafka.
    kafka: KafkaSettings | None
    topic: str
    #: A file that it must see.
    reads: Path | None = None
    #: Where keys and logs of its jobs are in the ledger; a run that holds no lease to its end has a place of its own.
    room: str = "jobs"


def check_fitness(needs: Needs, made: Path) -> None:
    """Check that this process has what a run needs.

    `made`: something in the ledger that the job made, under a name that nobody else would use.
    Raises StorageError if this process does not see the ledger as the job does, or may not write there.
    Raises BrokerError if it can't reach Kafka, or does not find the topic.
    """
    ledger = needs.ledger
    token = ledger.path / f".token-{uuid.uuid4().hex}"
    try:
        made.stat()
        token.write_text("seen")
        token.unlink()
    except OSError as error:
        words = f"it does not see {ledger.path} as this machine does, or may not write to it ({error.strerror})"
        raise StorageError(words) from error
    try:
        if needs.reads is not None:
            needs.reads.stat()
    except OSError as error:
        raise StorageError(f"it does not see {needs.reads} as this machine does ({error.strerror})") from error
    if needs.kafka is None:
        return
    try:
        with open_inspector(needs.kafka) as inspector:
            inspector.describe(needs.topic)
    except FinkDaskError as error:
        kind = type(error) if isinstance(error, BrokerError) else BrokerError
        raise kind(f"it can't reach Kafka: {error.line}") from error


@dataclass(frozen=True)
class Lookahead:
    """Ranges that workers prepare while others are decoded, and write to disk while the next ones are decoded."""

    #: How many, on all workers together; each needs a thread.
    ranges: int
    #: Threads of a worker that decode at once; None for all of them.
    turns: int | None


NO_LOOKAHEAD = Lookahead(0, None)


def no_workers(patience_s: float) -> Note:
    """Say that a scheduler has no workers, and for how long they are waited for."""
    limit = "" if math.isinf(patience_s) else f", up to {patience_s:.0f} s"
    return Note(f"the Dask scheduler has no workers: waiting for some{limit}", warning=True)


class LostTaskError(TransferError):
    """Dask has lost a task, with its worker or by cancelling it; it may be tried again."""

    transient = True


class WorkerPool:
    """Hands tasks to workers, but for a while not to one that was found to lack something; and takes what they return.

    Where no worker lacks anything, Dask chooses among all of them. Otherwise tasks are confined to the rest, and have
    to be handed out anew if all of those go.
    """

    def __init__(self, client: Any, observe: Observer, patience_s: float = NO_WORKERS_S) -> None:
        self._client = client
        # Is warned of workers that lack something, or are all away.
        self._observe = observe
        # Seconds that it may be without workers.
        self._patience_s = patience_s
        self._is_said = False
        self._seen = self._looked = time.monotonic()
        self._here: set[str] = set()
        self._count = 0
        #: Threads of all workers.
        self.threads = 0
        #: Workers that lack something, and when each may be tried again; and all that ever did.
        self._unfit: dict[str, float] = {}
        self._told: set[str] = set()
        self._lack = ""
        self._confined: dict[Any, set[str]] = {}
        self._submitted = 0
        self._finished: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def has_room(self) -> bool:
        """Tell whether there may be a worker that lacks nothing."""
        return not self._unfit or bool(self._fit())

    def count(self) -> int:
        """Count the workers."""
        if not self._count:
            self._ask()
        return self._count

    def tell(self, workers: Collection[str], function: Callable[..., Any], *arguments: Any) -> None:
        """Call a function on workers, outside of any task; whether and when it has been called is not waited for."""

        async def call() -> None:
            with suppress(Exception):  # a worker that has gone needs to know nothing
                await self._client.run(function, *arguments, workers=list(workers), on_error="ignore")

        self._client.loop.add_callback(call)

    def submit(self, function: Callable[..., Any], *arguments: Any, name: str) -> Any:
        """Have a worker call a function; return Dask's future."""
        fit = self._fit() if self._unfit else set()
        self._submitted += 1
        if self._submitted % _FORGET == 0:
            with suppress(AttributeError):  # how Dask remembers them is its own affair
                key_split.cache_clear()
        # Unique, so that Dask never takes an old result for that of a new try.
        key = f"{name}-{uuid.uuid4().hex[:8]}"
        future = self._client.submit(function, *arguments, key=key, pure=False, workers=sorted(fit) or None)
        if fit:
            self._confined[future] = fit
        future.add_done_callback(self._finished.put)
        return future

    def finished(self, timeout_s: float = LOOK_S) -> Iterator[Any]:
        """Wait for a task that has ended, well or badly, then take all that have; cancelled ones are among them."""
        with suppress(queue.Empty):
            yield self._finished.get(timeout=timeout_s)
            while True:
                yield self._finished.get_nowait()

    def result(self, future: Any) -> Any:
        """Return what a task has returned; None where it is to be handed out again, as if it had not been tried.

        That is where its worker lacks something, and where the scheduler is gone, which `look` says.
        Raises what the task has raised, or a LostTaskError.
        """
        try:
            result = future.result(timeout=_RESULT_S)
        except KilledWorker as error:
            raise LostTaskError(f"workers died on it: {error}") from error
        except TimeoutError as error:
            raise LostTaskError("its worker died before its result was fetched") from error
        except InterruptedTransferError as error:
            raise LostTaskError("its worker was closed") from error
        except CancelledError as error:
            if self._client.status != "running":  # together with everything else
                return None
            raise LostTaskError("Dask has cancelled it") from error
        if isinstance(result, tuple):
            self.reject(result)
            return None
        return result

    def release(self, future: Any) -> None:
        """Let go of a task: Dask would compute a result that is still held again if its worker went."""
        self._confined.pop(future, None)
        future.release()

    def cancel(self, futures: Collection[Any]) -> None:
        """Cancel tasks, if there is still a scheduler to tell; whoever uses the pool next knows nothing of them."""
        for future in futures:
            self._confined.pop(future, None)
        if self._client.status == "running":
            self._client.cancel(list(futures), force=True)

    def look(self) -> None:
        """Look at the cluster, at most four times a second.

        Raises TransferError if the scheduler is gone, or has had no workers that can do the work for a while.
        """
        if self._client.status in {"closing", "closed"}:
            raise TransferError(f"the Dask scheduler went away; {GO_ON}")
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return
        is_answered, self._looked = self._ask(), time.monotonic()
        # That others may come is no reason to wait longer for a scheduler that is silent, or with workers that lack
        # something.
        may_grow = is_answered and not self._here
        limit_s = self._patience_s if may_grow else min(self._patience_s, NO_WORKERS_S)
        if is_answered and self._here - self._unfit.keys():
            self._seen, self._is_said = now, False
        elif now - self._seen > limit_s:
            if not is_answered:
                raise TransferError(f"the Dask scheduler has not answered for {now - self._seen:.0f} s; {GO_ON}")
            if self._here:
                raise TransferError(f"{self._lack}, and no other worker came within {limit_s:.0f} s; {GO_ON}")
            raise TransferError(f"the Dask scheduler has had no workers for {limit_s:.0f} s; {GO_ON}")
        elif now - self._seen > SAID_S and not self._here and not self._is_said:
            self._is_said = True
            self._observe(no_workers(self._patience_s))

    def take_back(self) -> list[Any]:
        """Cancel the tasks that are confined to workers that have all gone; return them, to be handed out again."""
        stranded = [each for each, workers in self._confined.items() if not workers & self._here and not each.done()]
        for future in stranded:
            self._client.cancel([future], force=True)
            self.release(future)
        return stranded

    def reject(self, unfit: NotReady) -> None:
        """Give a worker no more tasks for a while; the first time, say so."""
        worker, lack = unfit
        is_new = worker not in self._told
        self._told.add(worker)
        self._unfit[worker] = time.monotonic() + _AGAIN_S
        self._lack = f"worker {worker} can't work here: {lack}"
        if is_new:
            self._ask()
            self._observe(Note(f"{self._lack}; it gets nothing to do", warning=True))

    def accept(self, worker: str) -> None:
        """Take note that a worker works."""
        self._unfit.pop(worker, None)

    def _fit(self) -> set[str]:
        now = time.monotonic()
        return self._here - {worker for worker, until in self._unfit.items() if until > now}

    def _ask(self) -> bool:
        # One is enough to know that there are any; details of 200 take a while. At the end there are none at all.
        count = -1 if self._told else 1

        async def ask() -> dict[str, Any]:
            scheduler = self._client.scheduler  # none once the client is closed
            return {} if scheduler is None else await scheduler.identity(n_workers=count)

        try:
            info = self._client.sync(ask, callback_timeout=_ANSWER_S)
        except (OSError, TimeoutError):  # it is stopped, or going away, which is seen elsewhere
            return False
        self._here = set(info.get("workers", ()))
        self._count, self.threads = info.get("n_workers", 0), info.get("total_threads", 0)
        return True
