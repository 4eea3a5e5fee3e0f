"""Finish a transfer whose ranges are all committed: look at the topic again, tell the group, delete old datasets."""

from __future__ import annotations

from collections.abc import Sequence

from fink_dask.config import TransferSettings
from fink_dask.dataset.presence import check_files
from fink_dask.errors import BrokerError, BrokerUnavailableError, LedgerError
from fink_dask.kafka.inspect import Inspector, is_other_topic
from fink_dask.kafka.overview import commit_group_offsets
from fink_dask.ledger.lease import Lease
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.progress import summarise
from fink_dask.ledger.records import Plan
from fink_dask.ledger.restart import delete_old_dataset, old_datasets
from fink_dask.transfers.events import Note, Observer
from fink_dask.transfers.plan import known_topic_id, planned_ends, spans_to_plan
from fink_dask.units import counted


def finish(settings: TransferSettings, observe: Observer, ledger: Ledger, inspector: Inspector, lease: Lease) -> None:
    """Complete a transfer, or say why it is not complete.

    Raises
    ------
    LedgerError
        If the topic was made anew meanwhile, planned offsets are not committed, files are gone, or another job has
        taken over.
    """
    plans = ledger.plans()
    _look_again(settings, observe, inspector, plans)
    progress = summarise(ledger)
    if progress.missing:
        raise LedgerError(f"not committed: {counted(progress.missing_offsets, 'planned offset')}", settings.topic)
    check_files(ledger, plans)
    lease.check()
    if settings.group_id is not None:
        try:
            commit_group_offsets(settings.kafka, settings.topic, settings.group_id, planned_ends(plans))
        except BrokerError as error:
            observe(Note(f"the group's offsets were not committed: {error}", warning=True))
    lease.check()
    for old in old_datasets(ledger):
        alerts = old.alerts
        if alerts is not None and alerts <= progress.summary.alerts and progress.summary.state == "complete":
            delete_old_dataset(old)
        else:
            # Kafka may no longer have what the old one holds.
            held = "an unknown number of alerts" if alerts is None else counted(alerts, "alert")
            words = f"the old dataset is kept in {old.path}: it holds {held}, the new one "
            words += f"{progress.summary.alerts:,} and is {progress.summary.state}; delete it once you don't need it"
            observe(Note(words, warning=True))


def _look_again(settings: TransferSettings, observe: Observer, inspector: Inspector, plans: Sequence[Plan]) -> None:
    """Find out whether the topic is still the one that was planned, and whether more has arrived."""
    try:
        now = inspector.describe(settings.topic)
    except BrokerUnavailableError as error:
        observe(Note(f"can't tell whether more has arrived: {error}", warning=True))
        return
    if is_other_topic(known_topic_id(plans), now.topic_id):
        raise LedgerError(
            "the topic was deleted and made again during the transfer; what is committed stays as it is, and the new "
            "topic needs another --outdir",
            settings.topic,
        )
    spans = spans_to_plan(now.watermarks, planned_ends(plans), settings.topic)
    grown = sum(end - start for start, end in spans.values())
    if grown and settings.limit is None:
        observe(
            Note(
                f"the topic is still being filled: {counted(grown, 'record')} came after the plan was made; run the "
                "same command again to fetch them (--follow waits for them)",
                warning=True,
            )
        )
