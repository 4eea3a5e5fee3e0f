"""A whole transfer, from a topic's name to a dataset: inspect, plan, run, finish."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace

from distributed import Client

from fink_dask.cluster.existing import Scheduler, existing_scheduler
from fink_dask.cluster.joboptions import JobSpec
from fink_dask.cluster.jobqueue import job_queue_cluster
from fink_dask.cluster.local import Cluster, local_cluster
from fink_dask.config import FollowSettings, TransferSettings
from fink_dask.dataset.lease import Lease, hold_lease
from fink_dask.dataset.ledger import Ledger
from fink_dask.dataset.outdir import check_outdir, create_ledger, remove_if_unused
from fink_dask.dataset.records import Plan
from fink_dask.dataset.restart import complete_move, set_aside
from fink_dask.dataset.roll_forward import roll_forward
from fink_dask.dataset.summary import Summary, summarise
from fink_dask.errors import StorageError
from fink_dask.kafka.describe import Inspector, open_inspector
from fink_dask.transfer.events import Note, Observer, TransferStarted
from fink_dask.transfer.finish import check_files, finish
from fink_dask.transfer.follow import Follower, wait_for_first
from fink_dask.transfer.inspect import Target, inspect_topic
from fink_dask.transfer.job import run_ranges
from fink_dask.transfer.plan import removed_heads
from fink_dask.transfer.prepare import check_heads, make_work, open_ranges, plan_next
from fink_dask.transfer.profile import Profile, Profiler
from fink_dask.transfer.watch import Watch
from fink_dask.transfer.work import Work


@dataclass(frozen=True)
class Where:
    """Where a transfer runs.

    Parameters
    ----------
    scheduler : Scheduler, optional
        An existing Dask scheduler; otherwise this machine's cores are used.
    dashboard_address : str
        ``host:port`` of the dashboard of a cluster that is started here.
    jobs : JobSpec, optional
        Jobs of a batch system, which are submitted for the transfer.
    """

    scheduler: Scheduler | None = None
    dashboard_address: str = "127.0.0.1:8787"
    jobs: JobSpec | None = None


@dataclass(frozen=True)
class Outcome:
    """What a run has come to.

    Parameters
    ----------
    summary : Summary
        What the dataset holds, and what the run has added.
    profile : Profile
        Where its time went.
    """

    summary: Summary
    profile: Profile


def run_transfer(
    settings: TransferSettings, observe: Observer, where: Where, restart: bool = False, began: float | None = None
) -> Outcome:
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
    began : float, optional
        When the program began, on the clock of `time.monotonic`; otherwise the run begins now.

    Returns
    -------
    Outcome
        What the dataset holds now, and what this run took.

    Raises
    ------
    FinkDaskError
        If it was refused or could not be finished; what is committed stays committed.
    """
    profiler = Profiler(observe, began)
    ledger = Ledger(settings.outdir)
    complete_move(ledger)
    if not restart:
        check_outdir(ledger)
    with open_inspector(settings.kafka) as inspector:
        target = inspect_topic(settings, inspector, ledger, fresh=restart)
        if target is None and settings.follow is not None:
            target = wait_for_first(settings, settings.follow, inspector, ledger, restart, observe)
        if target is None:
            observe(Note(f"{settings.topic} is empty: there is nothing to transfer"))
            return _outcome(Summary(settings.topic, "complete"), profiler, 0)
        if restart and ledger.path.exists():
            with hold_lease(ledger):
                aside = set_aside(ledger)
            observe(Note(f"what was there is in {aside} until the new dataset is complete"))
        made = create_ledger(ledger)
        try:
            with hold_lease(ledger) as lease:
                before = summarise(ledger).summary.alerts
                _transfer(settings, profiler, where, ledger, inspector, target, lease)
                finish(settings, observe, ledger, inspector, lease)
                outcome = _outcome(summarise(ledger).summary, profiler, before)
                if outcome.profile.ranges:
                    _keep(outcome.profile, ledger, observe)
        finally:
            remove_if_unused(ledger, made)
    return outcome


def _keep(profile: Profile, ledger: Ledger, observe: Observer) -> None:
    try:
        ledger.add_profile(profile.to_json())
    except StorageError as error:  # the dataset is complete without it
        observe(Note(f"the profile of this run could not be kept: {error}", warning=True))


def _outcome(summary: Summary, profiler: Profiler, before: int) -> Outcome:
    profile = profiler.profile()
    return Outcome(replace(summary, run_alerts=summary.alerts - before, run_seconds=profile.seconds), profile)


def _transfer(
    settings: TransferSettings,
    observe: Observer,
    where: Where,
    ledger: Ledger,
    inspector: Inspector,
    target: Target,
    lease: Lease,
) -> None:
    """Continue the plans and make the next one, until there is nothing left to plan."""
    plans = ledger.plans()
    rolled = roll_forward(ledger, plans)
    if rolled:
        observe(Note(f"{rolled} ranges that were committed by an earlier run are now in the dataset"))
    check_files(ledger, plans)
    with ExitStack() as stack:
        cluster: Cluster | None = None

        def check() -> None:
            lease.check()
            if cluster is not None:
                cluster.check()

        try:
            while True:
                plan = plan_next(settings, target, inspector, ledger, plans)
                opened = open_ranges(plans, ledger.markers(plans))
                if plan is None and not opened and settings.follow is None:
                    if cluster is None:
                        observe(Note(_nothing_new(settings)))
                    return
                if cluster is None:
                    # Before the plan is frozen: what can't run leaves nothing to continue.
                    ranges = len(opened) + (len(plan.ranges) if plan else 0)
                    if settings.follow is not None:  # there will be more
                        ranges = max(ranges, settings.nconsumers)
                    cluster = stack.enter_context(_connect(settings, observe, where, ledger, ranges))
                if plan is not None:
                    check_heads(settings, removed_heads(target.description.watermarks, plans), observe)
                    ledger.freeze(plan, target.schema)
                    plans.append(plan)
                    opened += [(plan, range_) for range_ in plan.ranges]
                work = make_work(settings, target, ledger, opened, cluster.memory)
                _announce(settings, observe, cluster.client, plans, work)
                if settings.follow is not None:
                    _follow(settings, settings.follow, observe, ledger, inspector, target, plans, work, cluster, check)
                    return
                run_ranges(cluster.client, work, settings.nconsumers, observe, check, cluster.lookahead)
                if settings.limit is None:
                    return
        finally:
            stack.close()
            lease.check()
            # What an attempt that was killed has committed is published; the staged files of others go, and should
            # one still run, on a scheduler of somebody else's, it finds no directory to commit from.
            roll_forward(ledger, plans)


def _follow(
    settings: TransferSettings,
    follow: FollowSettings,
    observe: Observer,
    ledger: Ledger,
    inspector: Inspector,
    target: Target,
    plans: list[Plan],
    work: list[Work],
    cluster: Cluster,
    check: Callable[[], None],
) -> None:
    """Transfer what is planned, and what comes, until it is the end."""
    with Watch(inspector, settings.topic) as watch:
        follower = Follower(settings, follow, target, ledger, plans, watch, observe)

        def more(waiting: int, running: int) -> list[Work] | None:
            opened = follower.more(waiting, running)
            return None if opened is None else make_work(settings, target, ledger, opened, cluster.memory)

        run_ranges(cluster.client, work, settings.nconsumers, follower.observe, check, cluster.lookahead, more)


def _nothing_new(settings: TransferSettings) -> str:
    if settings.limit is None:
        return "nothing new: every offset of the topic is already in the dataset"
    return f"nothing new: the dataset holds all there is, or the limit of {settings.limit:,} alerts"


def _connect(
    settings: TransferSettings, observe: Observer, where: Where, ledger: Ledger, ranges: int
) -> AbstractContextManager[Cluster]:
    if where.jobs is not None:
        if settings.kafka.security.password is not None and not where.jobs.is_encrypted:
            words = "Kafka's password goes unencrypted to the workers: without protocol=tcp it would not"
            observe(Note(words, warning=True))
        return job_queue_cluster(where.jobs, settings, ledger, ranges, where.dashboard_address, observe)
    if where.scheduler is not None:
        if settings.kafka.security.password is not None and where.scheduler.is_open:
            words = f"Kafka's password goes unencrypted to the workers of {where.scheduler.address}: use tls://"
            observe(Note(words, warning=True))
        return existing_scheduler(where.scheduler, settings.kafka, settings.topic, ledger, settings.memory_limit)
    return local_cluster(settings.nconsumers, ranges, where.dashboard_address, settings.memory_limit)


def _announce(
    settings: TransferSettings, observe: Observer, client: Client, plans: list[Plan], work: list[Work]
) -> None:
    planned = [range_ for plan in plans for range_ in plan.ranges]
    offsets, open_offsets = sum(map(len, planned)), sum(len(item.range) for item in work)
    observe(
        TransferStarted(
            topic=settings.topic,
            ranges=len(planned),
            ranges_committed=len(planned) - len(work),
            offsets=offsets,
            offsets_committed=offsets - open_offsets,
            # Dask names an address also where no dashboard is served.
            dashboard=client.dashboard_link if "dashboard" in client.scheduler_info().get("services", ()) else None,
        )
    )
