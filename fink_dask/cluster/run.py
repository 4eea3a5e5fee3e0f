"""A whole transfer, from a topic's name to a dataset: inspect, plan, run, finish."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace

from distributed import Client

from fink_dask.cluster.existing import existing_scheduler
from fink_dask.cluster.local import local_cluster
from fink_dask.config import TransferSettings
from fink_dask.dataset.commit import roll_forward
from fink_dask.dataset.lease import Lease, hold_lease
from fink_dask.dataset.ledger import Ledger, check_outdir
from fink_dask.dataset.records import Plan
from fink_dask.dataset.restart import complete_move, delete_old_datasets, old_datasets, set_aside
from fink_dask.dataset.summary import Summary, summarise
from fink_dask.errors import BrokerError, LedgerError
from fink_dask.kafka.describe import Inspector, open_inspector
from fink_dask.kafka.group import commit_group_offsets
from fink_dask.transfer.events import Note, Observer, TransferStarted
from fink_dask.transfer.inspect import Target, inspect_topic
from fink_dask.transfer.job import Work, run_ranges
from fink_dask.transfer.plan import Sizing, alerts_at_most, next_plan, planned_ends, spans_to_plan
from fink_dask.transfer.task import TaskSettings


@dataclass(frozen=True)
class Where:
    """Where a transfer runs.

    Parameters
    ----------
    scheduler : str, optional
        Address of an existing Dask scheduler; otherwise this machine's cores are used.
    dashboard_address : str
        ``host:port`` of the dashboard of a cluster that is started here.
    """

    scheduler: str | None = None
    dashboard_address: str = "127.0.0.1:8787"


@dataclass(frozen=True)
class Outlook:
    """What a transfer would do; the answer of ``--dry-run``.

    Parameters
    ----------
    topic : str
        The topic.
    committed_ranges, committed_alerts : int
        What is in the dataset already.
    open_ranges : int
        Planned ranges that an earlier run left open.
    plan : Plan or None
        What would be planned now.
    offsets : int
        Offsets that would be consumed.
    resume_at : dict of int to int
        The first of them in each partition.
    """

    topic: str
    committed_ranges: int
    committed_alerts: int
    open_ranges: int
    plan: Plan | None
    offsets: int
    resume_at: dict[int, int]


def preview(settings: TransferSettings, restart: bool = False) -> Outlook:
    """Find out what `run_transfer` would do, and write nothing.

    Raises
    ------
    FinkDaskError
        If it would be refused.
    """
    ledger = Ledger(settings.outdir)
    if not restart:
        check_outdir(ledger)
    with open_inspector(settings.kafka) as inspector:
        target = inspect_topic(settings, inspector, ledger, fresh=restart)
        if target is None:
            return Outlook(settings.topic, 0, 0, 0, None, 0, {})
        plans = [] if restart else ledger.plans()
        markers = list(ledger.markers(plans))
        plan = _plan_next(settings, target, inspector, ledger, plans)
    committed = {marker.range for marker in markers}
    left = [range_ for earlier in plans for range_ in earlier.ranges if range_ not in committed]
    todo = [*left, *(plan.ranges if plan else ())]
    resume_at: dict[int, int] = {}
    for range_ in sorted(todo):
        resume_at.setdefault(range_.partition, range_.start)
    return Outlook(
        topic=settings.topic,
        committed_ranges=len(markers),
        committed_alerts=sum(marker.rows for marker in markers),
        open_ranges=len(left),
        plan=plan,
        offsets=sum(len(range_) for range_ in todo),
        resume_at=resume_at,
    )


def run_transfer(settings: TransferSettings, observe: Observer, where: Where, restart: bool = False) -> Summary:
    """Transfer a topic, or go on with it.

    Parameters
    ----------
    settings : TransferSettings
        What to transfer, where to, and how.
    observe : callable
        Takes the events.
    where : Where
        Where it runs.
    restart : bool
        Move what is there aside first.

    Returns
    -------
    Summary
        What the dataset holds now.

    Raises
    ------
    FinkDaskError
        If it was refused or could not be finished; what is committed stays committed.
    """
    began = time.monotonic()
    ledger = Ledger(settings.outdir)
    complete_move(ledger)
    if not restart:
        check_outdir(ledger)
    with open_inspector(settings.kafka) as inspector:
        target = inspect_topic(settings, inspector, ledger, fresh=restart)
        if target is None:
            observe(Note(f"{settings.topic} is empty: there is nothing to transfer"))
            return Summary(settings.topic, "complete", run_seconds=time.monotonic() - began)
        if restart and ledger.path.exists():
            with hold_lease(ledger):
                aside = set_aside(ledger)
            observe(Note(f"what was there is in {aside} until the new dataset is complete"))
        ledger.create()
        try:
            with hold_lease(ledger) as lease:
                added = _Transfer(settings, observe, where, ledger, inspector, target, lease).run()
                _finish(settings, observe, ledger, inspector, target)
        finally:
            ledger.remove_if_unused()
    return replace(summarise(ledger).summary, run_alerts=added, run_seconds=round(time.monotonic() - began, 3))


class _Transfer:
    """One run: continue the plans, make the next one, until there is nothing left to plan."""

    def __init__(
        self,
        settings: TransferSettings,
        observe: Observer,
        where: Where,
        ledger: Ledger,
        inspector: Inspector,
        target: Target,
        lease: Lease,
    ) -> None:
        self._settings = settings
        self._observe = observe
        self._where = where
        self._ledger = ledger
        self._inspector = inspector
        self._target = target
        self._lease = lease

    def run(self) -> int:
        """Return the alerts that were added."""
        plans = self._ledger.plans()
        rolled = roll_forward(self._ledger, plans)
        if rolled:
            self._observe(Note(f"{rolled} ranges that were committed by an earlier run are now in the dataset"))
        added = 0
        with ExitStack() as stack:
            client: Client | None = None
            try:
                while True:
                    plan = _plan_next(self._settings, self._target, self._inspector, self._ledger, plans)
                    if plan is not None:
                        self._ledger.freeze(plan, self._target.schema)
                        plans.append(plan)
                    work = self._open_work(plans)
                    if not work:
                        if client is None:
                            self._observe(Note("nothing new: every offset of the topic is already in the dataset"))
                        return added
                    if client is None:
                        client = stack.enter_context(self._connect(len(work)))
                    self._announce(client, plans, work)
                    results = run_ranges(client, work, self._settings.nconsumers, self._observe, self._lease.check)
                    added += sum(result.rows for result in results if result.transferred)
                    if self._settings.limit is None:
                        return added
            finally:
                stack.close()
                # No attempt of this job runs any more: what a killed one has committed is published, the rest removed.
                roll_forward(self._ledger, plans)

    def _connect(self, ranges: int) -> AbstractContextManager[Client]:
        if self._where.scheduler is not None:
            return existing_scheduler(self._where.scheduler, self._settings.kafka, self._settings.topic, self._ledger)
        return local_cluster(self._settings.nconsumers, ranges, self._where.dashboard_address)

    def _open_work(self, plans: list[Plan]) -> list[Work]:
        committed = {marker.range for marker in self._ledger.markers(plans)}
        work = []
        for plan in plans:
            task = TaskSettings(
                ledger=self._ledger,
                kafka=self._settings.kafka,
                identity=plan.identity,
                plan_id=plan.plan_id,
                partitioning=self._target.partitioning,
                batchsize=self._settings.batchsize,
            )
            work += [Work(range_, task) for range_ in plan.ranges if range_ not in committed]
        return work

    def _announce(self, client: Client, plans: list[Plan], work: list[Work]) -> None:
        planned = [range_ for plan in plans for range_ in plan.ranges]
        offsets, open_offsets = sum(map(len, planned)), sum(len(item.range) for item in work)
        self._observe(
            TransferStarted(
                topic=self._settings.topic,
                ranges=len(planned),
                ranges_committed=len(planned) - len(work),
                offsets=offsets,
                offsets_committed=offsets - open_offsets,
                dashboard=client.dashboard_link or None,
            )
        )


def _plan_next(
    settings: TransferSettings, target: Target, inspector: Inspector, ledger: Ledger, plans: list[Plan]
) -> Plan | None:
    """Plan what no generation holds yet, as far as the limit goes."""
    room = None
    if settings.limit is not None:
        at_most = alerts_at_most(plans, list(ledger.markers(plans)))
        room = settings.limit - at_most
        if room < 0:
            raise LedgerError(
                f"--limit {settings.limit:,}: this dataset holds or has planned {at_most:,} alerts already; "
                "use another --outdir, or --restart"
            )
    spans = spans_to_plan(target.description.watermarks, plans, settings.topic)
    if not spans or room == 0:
        return None
    sizing = Sizing(settings.range_bytes, settings.nconsumers, inspector.sample_sizes(settings.topic, spans))
    return next_plan(len(plans) + 1, target.identity, spans, sizing, room)


def _finish(
    settings: TransferSettings, observe: Observer, ledger: Ledger, inspector: Inspector, target: Target
) -> None:
    """Look once more at the topic, tell the group, and let go of what was moved aside."""
    plans = ledger.plans()
    now = inspector.describe(settings.topic)
    if now.topic_id != target.description.topic_id:
        raise LedgerError("the topic was deleted and made again during the transfer", settings.topic)
    if settings.limit is None:
        grown = sum(end - start for start, end in spans_to_plan(now.watermarks, plans, settings.topic).values())
        if grown:
            observe(
                Note(
                    f"the topic is still being filled: {grown:,} records came after the plan was made; "
                    "run the same command again to fetch them (--follow, which waits for them, is to come)",
                    warning=True,
                )
            )
    progress = summarise(ledger)
    if progress.missing:
        raise LedgerError(f"{progress.missing_offsets:,} planned offsets are not committed", settings.topic)
    if settings.group_id is not None:
        try:
            commit_group_offsets(settings.kafka, settings.topic, settings.group_id, planned_ends(plans))
        except BrokerError as error:
            observe(Note(f"the group's offsets were not committed: {error}", warning=True))
    if old_datasets(ledger):
        delete_old_datasets(ledger)
