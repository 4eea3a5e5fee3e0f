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
from fink_dask.dataset.restart import complete_move, set_aside
from fink_dask.dataset.summary import Summary, summarise
from fink_dask.kafka.describe import Inspector, open_inspector
from fink_dask.transfer.events import Note, Observer, TransferStarted
from fink_dask.transfer.finish import finish
from fink_dask.transfer.inspect import Target, inspect_topic
from fink_dask.transfer.job import run_ranges
from fink_dask.transfer.prepare import open_work, plan_next
from fink_dask.transfer.task import Work


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
                finish(settings, observe, ledger, inspector, target)
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
                    plan = plan_next(self._settings, self._target, self._inspector, self._ledger, plans)
                    work = open_work(self._settings, self._target, self._ledger, plans)
                    if plan is None and not work:
                        if client is None:
                            self._observe(Note(self._nothing_new()))
                        return added
                    if client is None:
                        # Before the plan is frozen: what can't run leaves nothing to continue.
                        client = stack.enter_context(self._connect(len(work) + (len(plan.ranges) if plan else 0)))
                    if plan is not None:
                        self._ledger.freeze(plan, self._target.schema)
                        plans.append(plan)
                        work = open_work(self._settings, self._target, self._ledger, plans)
                    self._announce(client, plans, work)
                    results = run_ranges(client, work, self._settings.nconsumers, self._observe, self._lease.check)
                    added += sum(result.rows for result in results if result.transferred)
                    if self._settings.limit is None:
                        return added
            finally:
                stack.close()
                self._lease.check()
                # No attempt of this job runs any more: what a killed one has committed is published, the rest removed.
                roll_forward(self._ledger, plans)

    def _nothing_new(self) -> str:
        if self._settings.limit is None:
            return "nothing new: every offset of the topic is already in the dataset"
        return f"nothing new: the dataset holds all there is, or the limit of {self._settings.limit:,} alerts"

    def _connect(self, ranges: int) -> AbstractContextManager[Client]:
        if self._where.scheduler is not None:
            return existing_scheduler(self._where.scheduler, self._settings.kafka, self._settings.topic, self._ledger)
        return local_cluster(self._settings.nconsumers, ranges, self._where.dashboard_address, self._observe)

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
