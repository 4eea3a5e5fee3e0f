"""The watch over the jobs of a batch system: a job that ends is noticed, reported, and replaced as long as that helps.

dask-jobqueue submits jobs and waits: it says nothing about one that was refused, or that died before its worker came,
and does not replace one that is lost.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from fink_dask.cluster.jobs import UNREACHED, WatchedJob, ask_states
from fink_dask.cluster.jobspec import JobSpec
from fink_dask.cluster.systems import JobState
from fink_dask.errors import TransferError
from fink_dask.progress.events import Note
from fink_dask.progress.tally import Progress

log = logging.getLogger(__name__)

#: Seconds between two looks at the workers.
_LOOK_S = 1.0
#: Seconds between two questions to the batch system, while a job has no worker: at first, and at most.
_ASK_S, _ASK_MOST_S = 2.0, 30.0
#: Seconds after its submission from which a job that the batch system does not list has ended.
_UNLISTED_S = 6.0
#: Seconds after which a job that runs without workers is replaced; a nanny takes a few to restart a worker.
_ALONE_S = 15.0
#: A job whose worker stayed for fewer seconds than this was no help.
_SHORT_S = 60.0
#: How many times each job that is no help is replaced; after that, something is wrong that no replacement mends.
_REPLACEMENTS = 5
#: Seconds until the next try after a job that was no help; doubled for each one in a row.
_PAUSE_S, _PAUSE_MOST_S = 2.0, 60.0
#: Seconds that others are waited for after the first worker.
_OTHERS_S = 3.0
#: Looks in a row at which a job is idle before it is ended, where there may be fewer jobs.
_IDLE_LOOKS = 10
#: Seconds between two looks at whether workers have come.
_SLEEP_S = 0.1
_SAFE = "what is committed is safe, and the same command goes on from there"


class JobWatch:
    """Watch over the jobs of a cluster."""

    def __init__(self, cluster: Any, spec: JobSpec, jobs: int, progress: Progress) -> None:
        # The cluster; its jobs are `WatchedJob`.
        self._cluster = cluster
        # What was asked for.
        self._spec = spec
        self._most = jobs
        self._least = min(jobs, spec.asked.min_jobs or jobs)
        # Takes the notes, which `check` passes on.
        self._progress = progress
        self._failure: str | None = None
        self._joined = False
        self._workers = 0
        self._useless = 0
        self._refused, self._refusal = 0, ""
        self._not_before = 0.0
        self._asked_at, self._ask_s = 0.0, _ASK_S
        self._waiting = ""
        self._idle: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Submit the jobs, and begin to watch them."""
        self._cluster.scale(jobs=self._least)
        self._cluster.sync(self._begin)

    def stop(self) -> None:
        """Stop watching: the jobs that end now are meant to."""
        self._cluster.sync(self._end)

    def check(self) -> None:
        """Report what has happened.

        Raises TransferError if jobs can't be had, or do not help.
        """
        self._progress.pass_on()
        if self._failure is not None:
            raise TransferError(f"{self._failure}; {_SAFE}" if self._joined else self._failure)

    def wait_for_workers(self) -> None:
        """Wait for the first workers, however long the queue is.

        Raises TransferError if jobs can't be had.
        """
        self.check()
        while not self._workers:
            time.sleep(_SLEEP_S)
            self.check()
        deadline = time.monotonic() + _OTHERS_S
        while self._workers < self._least * self._spec.processes and time.monotonic() < deadline:
            time.sleep(_SLEEP_S)

    async def _begin(self) -> None:
        self._task = asyncio.create_task(self._watch())

    async def _end(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _watch(self) -> None:
        while True:
            try:
                await self._look()
            except Exception:  # the next look may go better, and without any the transfer still works
                log.exception("could not look at the jobs")
            await asyncio.sleep(_LOOK_S)

    async def _look(self) -> None:
        now = time.monotonic()
        here = {worker.name for worker in self._cluster.scheduler.workers.values()}
        alone: dict[str, WatchedJob] = {}
        for name, job in self._cluster.workers.items():
            if here & self._workers_of(name):
                if job.joined is None:
                    job.joined = now
                    self._joined = True
                    self._refused = 0
                job.alone = None
            else:
                job.alone = job.alone or now
                alone[name] = job
        self._workers = len(here)
        if alone:
            await self._look_at(alone, now)
        if self._failure is None:
            self._submit(now)
            if self._least < self._most:
                await self._adapt()

    async def _look_at(self, alone: dict[str, WatchedJob], now: float) -> None:
        """Find the jobs that have no workers and will get none."""
        for name, job in list(alone.items()):
            if job.refusal is not None:
                await self._lose(name, job, job.refusal)
                del alone[name]
        if not alone or now - self._asked_at < self._ask_s:
            return
        states = await ask_states(self._spec.asked.system)
        self._asked_at, self._ask_s = time.monotonic(), min(_ASK_MOST_S, 1.5 * self._ask_s)
        waiting = []
        for name, job in alone.items():
            state = None if states is None else states.get(job.job_id)
            if state is not None and state.waits and not state.ended:
                waiting.append(state)
            elif (words := self._why_lost(job, states, state, now)) is not None:
                await self._lose(name, job, words)
        self._say_waiting(waiting)

    def _why_lost(
        self, job: WatchedJob, states: dict[str, JobState] | None, state: JobState | None, now: float
    ) -> str | None:
        if state is not None and state.ended:
            return state.words
        if states is not None and state is None and now - max(job.submitted, job.alone or 0.0) > _UNLISTED_S:
            return "ended"
        if job.joined is not None and now - (job.alone or now) > _ALONE_S:
            return f"has had no workers for {_ALONE_S:g} s"
        return None

    async def _lose(self, name: str, job: WatchedJob, words: str) -> None:
        """Do without a job, and decide whether another one may help."""
        self._cluster.workers.pop(name, None)
        await job.close()
        what = f"{self._spec.system} {'refused a job' if job.refusal else f'job {job.job_id}'}: {words}"
        if job.refusal and any(other.job_id for other in self._cluster.workers.values()):
            self._do_without(name, what)
            return
        helped = job.joined is not None and (job.alone or time.monotonic()) - job.joined >= _SHORT_S
        self._useless = 0 if helped else self._useless + 1
        said = "" if job.refusal or job.joined is not None else job.tail()
        if said:
            what += f" ({said})"
        if UNREACHED in said:
            what += "; the nodes can't reach this scheduler: choose its network with --cluster-option interface=NAME"
        if not self._joined and (job.refusal or self._useless >= max(2, self._least)):
            self._failure = what if job.refusal else f"{what}; none of {self._useless} jobs has brought a worker"
            if not job.refusal and job.log() is not None:
                self._failure += f", see {job.log()}"
            return
        if self._useless > _REPLACEMENTS * self._most:
            self._cluster.worker_spec.pop(name, None)
            self._note(f"{what}; it is not replaced, as the last {self._useless} jobs were no help")
            if not self._cluster.worker_spec:
                self._failure = f"{what}; none of the last {self._useless} jobs was any help"
            return
        self._pause(self._useless)
        self._note(f"{what}; another takes its place")

    def _do_without(self, name: str, what: str) -> None:
        """Try again later to add a job to those that were accepted: a user may be allowed only a few, and they do."""
        self._refused += 1
        words = f"{what}; the jobs that it accepted go on, and another is tried later"
        if self._refused > _REPLACEMENTS * self._most:
            self._cluster.worker_spec.pop(name, None)
            words = f"{what}; the jobs that it accepted go on without another"
        if words != self._refusal:  # where there are too many, each further one is refused
            self._note(words)
        self._refusal = words
        self._pause(self._refused)

    def _pause(self, in_a_row: int) -> None:
        self._not_before = time.monotonic() + min(_PAUSE_MOST_S, _PAUSE_S * 2 ** min(max(0, in_a_row - 1), 10))

    def _submit(self, now: float) -> None:
        """Submit replacements for the jobs that were lost."""
        wanted = self._cluster.worker_spec
        if set(wanted) - set(self._cluster.workers) and now >= self._not_before:
            self._ask_s = _ASK_S
            self._not_before = now + _PAUSE_S  # a submission takes a while
            self._cluster.scale(jobs=len(wanted))

    async def _adapt(self) -> None:
        """Keep as many jobs as there is work for; a busy one is never ended."""
        scheduler, wanted = self._cluster.scheduler, self._cluster.worker_spec
        busy = {worker.name for worker in scheduler.workers.values() if worker.processing}
        idle = [name for name, job in self._cluster.workers.items() if job.joined and not busy & self._workers_of(name)]
        waits = len(scheduler.queued) + len(scheduler.unrunnable)
        coming = sum(job.joined is None for job in self._cluster.workers.values())
        room = (coming + len(idle)) * self._spec.cores
        if waits > room and len(wanted) < self._most:
            self._ask_s = _ASK_S
            self._cluster.scale(jobs=min(self._most, len(wanted) + -(-(waits - room) // self._spec.cores)))
        self._idle = {name: self._idle.get(name, 0) + 1 for name in idle}
        spare = [name for name, looks in self._idle.items() if looks > _IDLE_LOOKS]
        if spare and not waits and len(wanted) > self._least:
            await self._cluster.scale_down(spare[: len(wanted) - self._least])

    def _workers_of(self, name: str) -> set[str]:
        """Name the workers of a job."""
        group = self._cluster.worker_spec.get(name, {}).get("group", [""])
        return {f"{name}{suffix}" for suffix in group}

    def _say_waiting(self, waiting: list[JobState]) -> None:
        """Say what the transfer waits for, each reason once."""
        words = waiting[0].words if waiting and not self._workers else ""
        if words and words != self._waiting:
            self._note(f"waiting for {self._spec.system}, which says {words}", warning=False)
        self._waiting = words or self._waiting

    def _note(self, words: str, warning: bool = True) -> None:
        self._progress(Note(words, warning=warning))
