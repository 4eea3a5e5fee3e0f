"""Say what a transfer would do, and do nothing."""

from __future__ import annotations

from dataclasses import dataclass

from fink_dask.config import TransferSettings
from fink_dask.dataset.ledger import Ledger
from fink_dask.dataset.outdir import check_outdir
from fink_dask.dataset.records import Plan
from fink_dask.kafka.describe import open_inspector
from fink_dask.transfer.inspect import inspect_topic
from fink_dask.transfer.plan import still_there
from fink_dask.transfer.prepare import open_ranges, plan_next


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
    removed : int
        Offsets that would be declared lost, as Kafka has removed them.
    resume_at : dict of int to int
        The first of them in each partition.
    """

    topic: str
    committed_ranges: int
    committed_alerts: int
    open_ranges: int
    plan: Plan | None
    offsets: int
    removed: int
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
            return Outlook(settings.topic, 0, 0, 0, None, 0, 0, {})
        plans = [] if restart else ledger.plans()
        markers = list(ledger.markers(plans))
        plan = plan_next(settings, target, inspector, ledger, plans)
    left = [range_ for _, range_ in open_ranges(plans, markers)]
    todo = [*left, *(plan.ranges if plan else ())]
    offsets = still_there(todo, target.description.watermarks)
    resume_at: dict[int, int] = {}
    for range_ in sorted(todo):
        resume_at.setdefault(range_.partition, range_.start)
    return Outlook(
        topic=settings.topic,
        committed_ranges=len(markers),
        committed_alerts=sum(marker.rows for marker in markers),
        open_ranges=len(left),
        plan=plan,
        offsets=offsets,
        removed=sum(map(len, todo)) - offsets,
        resume_at=resume_at,
    )
