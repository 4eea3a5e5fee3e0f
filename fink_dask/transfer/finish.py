"""End a transfer whose ranges are all committed: look at the topic once more, tell the group, let the old go."""

from __future__ import annotations

from collections.abc import Sequence

from fink_dask.config import TransferSettings
from fink_dask.dataset.ledger import Ledger
from fink_dask.dataset.records import Plan
from fink_dask.dataset.restart import delete_old_datasets
from fink_dask.dataset.summary import summarise
from fink_dask.errors import BrokerError, BrokerUnavailableError, LedgerError
from fink_dask.kafka.describe import Inspector
from fink_dask.kafka.group import commit_group_offsets
from fink_dask.transfer.events import Note, Observer
from fink_dask.transfer.inspect import Target
from fink_dask.transfer.plan import planned_ends, spans_to_plan


def finish(settings: TransferSettings, observe: Observer, ledger: Ledger, inspector: Inspector, target: Target) -> None:
    """Complete a transfer, or say why it is not complete.

    Raises
    ------
    LedgerError
        If the topic was made anew meanwhile, or planned offsets are not committed.
    """
    plans = ledger.plans()
    _look_again(settings, observe, inspector, target, plans)
    progress = summarise(ledger)
    if progress.missing:
        raise LedgerError(f"{progress.missing_offsets:,} planned offsets are not committed", settings.topic)
    if settings.group_id is not None:
        try:
            commit_group_offsets(settings.kafka, settings.topic, settings.group_id, planned_ends(plans))
        except BrokerError as error:
            observe(Note(f"the group's offsets were not committed: {error}", warning=True))
    delete_old_datasets(ledger)


def _look_again(
    settings: TransferSettings, observe: Observer, inspector: Inspector, target: Target, plans: Sequence[Plan]
) -> None:
    """Find out whether the topic is still the one that was planned, and whether more has come."""
    try:
        now = inspector.describe(settings.topic)
    except BrokerUnavailableError as error:
        observe(Note(f"whether more has come is not known: {error}", warning=True))
        return
    if now.topic_id != target.description.topic_id:
        raise LedgerError("the topic was deleted and made again during the transfer", settings.topic)
    grown = sum(end - start for start, end in spans_to_plan(now.watermarks, plans, settings.topic).values())
    if grown and settings.limit is None:
        observe(
            Note(
                f"the topic is still being filled: {grown:,} records came after the plan was made; run the same "
                "command again to fetch them (--follow, which waits for them, is to come)",
                warning=True,
            )
        )
