"""Topics of predictions: which topic has their alerts, and where both are transferred to before they are joined."""

from __future__ import annotations

from dataclasses import replace

from fink_dask.errors import BrokerError, LedgerError, SettingsError, parameter
from fink_dask.kafka.inspect import open_inspector
from fink_dask.kafka.topics import TopicChoice, alert_topics, holds_predictions, no_such_topic
from fink_dask.kafka.window import EVERYTHING
from fink_dask.ledger.outdir import check_outdir, datasets_in, find_ledger, parts_of
from fink_dask.ledger.records import JOINED
from fink_dask.ledger.restart import complete_move
from fink_dask.planning.waiting import wait_for_topics
from fink_dask.progress.events import Doing, Observer
from fink_dask.settings import RECORD_OUTFORMATS, TransferSettings
from fink_dask.store.location import check_is_local

#: The field that alerts and predictions have in common.
_COMMON = "candid"


def is_predicted(choice: TopicChoice) -> bool:
    """Tell whether one topic was asked for, and it holds predictions."""
    return not choice.is_several and holds_predictions(choice.names[0])


def with_alerts(settings: TransferSettings, observe: Observer, restart: bool) -> tuple[TopicChoice, TransferSettings]:
    """Find the alerts of a topic of predictions; return what is to be transferred, the alerts first, and where to.

    Raises SettingsError if something was asked for that does not go with predictions.
    Raises LedgerError if there is a dataset that is made of something else.
    Raises BrokerError if there are no such topics, or the broker refuses or does not answer.
    """
    _check(settings)
    target, parts = find_ledger(settings.outdir), parts_of(settings.outdir)
    complete_move(target)
    if not restart:
        check_outdir(target)
    observe(Doing("connecting to Kafka, and looking for the topic of the alerts"))
    with open_inspector(settings.kafka, (settings.topic,)) as inspector:
        wait_for_topics(settings, TopicChoice((settings.topic,)), inspector, observe)
        listed = inspector.topics()
    begun = {ledger.outdir.name for ledger in datasets_in(parts)}
    likely = alert_topics(settings.topic, settings.survey)
    alerts = next((each for there in (begun, listed) for each in likely if each in there), None)
    if settings.topic not in listed and not begun:
        raise no_such_topic(settings.topic, listed)
    if alerts is None:
        raise BrokerError(f"there is no topic with its alerts on this Kafka: {' or '.join(likely)}", settings.topic)
    if target.exists():
        before = target.begun_with()
        if before.schema_source != JOINED or before.topic != alerts or target.compaction_path.exists():
            words = f"{settings.outdir} is another dataset, of {before.topic}: choose another {parameter('outdir')}"
            raise LedgerError(words, settings.topic)
    return TopicChoice((alerts, settings.topic)), replace(settings, outdir=parts)


def _check(settings: TransferSettings) -> None:
    """Refuse what does not go with predictions, before Kafka is asked."""
    check_is_local(settings.outdir, f"joining the predictions of {settings.topic} with their alerts")
    if settings.outformat in RECORD_OUTFORMATS:
        raise SettingsError(
            f"{parameter('outformat', settings.outformat)} keeps alerts as they came: predictions are joined with them "
            f"in Parquet, so leave it out"
        )
    if settings.window != EVERYTHING:
        raise SettingsError(
            f"{parameter('since')} and {parameter('until')} don't go with predictions, which come later than their "
            "alerts: leave them out"
        )
    if settings.columns is not None and _COMMON not in settings.columns:
        raise SettingsError(f"{parameter('columns')} must have {_COMMON}, as predictions are joined with alerts by it")
    if _COMMON in (settings.partitionby or ()):
        raise SettingsError(f"{parameter('partitionby')} {_COMMON}: predictions are joined with alerts by that column")
