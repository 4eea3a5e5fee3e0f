"""Find what there is to transfer; a follower waits for the first alert, and for the schema."""

from __future__ import annotations

import time
from collections.abc import Callable

from fink_dask.config import FollowSettings, TransferSettings
from fink_dask.dataset.ledger import Ledger
from fink_dask.errors import BrokerUnavailableError, MissingSchemaError
from fink_dask.kafka.describe import Inspector
from fink_dask.transfer.events import Note, Observer
from fink_dask.transfer.inspect import Target, inspect_topic
from fink_dask.transfer.pace import Pace
from fink_dask.transfer.watch import LOOK_S

#: Schemas that don't fit of which it is said; there may be as many as records.
_SHOWN_MISFITS = 3


def find_target(
    settings: TransferSettings, inspector: Inspector, ledger: Ledger, fresh: bool, observe: Observer
) -> Target | None:
    """Inspect a topic; None where it holds nothing, to a follower until the end.

    Raises
    ------
    FinkDaskError
        If the topic can't be transferred, or Kafka was away for too long.
    """
    target, missing = None, None
    try:
        target = inspect_topic(settings, inspector, ledger, fresh)
    except MissingSchemaError as error:
        if settings.follow is None:
            raise
        missing = error
    if target is None and settings.follow is not None:
        target = wait_for_first(settings, settings.follow, inspector, ledger, fresh, observe, missing=missing)
    for misfit in () if target is None else target.misfits[:_SHOWN_MISFITS]:
        words = f"records of this topic go to the quarantine: {misfit.reason}; --dump-schemas writes all schemas, and "
        observe(Note(f"{words}--schema FILE with another --outdir makes a dataset of such a one", warning=True))
    return target


def wait_for_first(
    settings: TransferSettings,
    follow: FollowSettings,
    inspector: Inspector,
    ledger: Ledger,
    fresh: bool,
    observe: Observer,
    sleep: Callable[[float], None] = time.sleep,
    missing: MissingSchemaError | None = None,
) -> Target | None:
    """Wait for the first alert of an empty topic, and for the schema; None where the end comes before any alert.

    Raises
    ------
    FinkDaskError
        If Kafka was away for too long, there is still no schema at the end, or the topic can't be transferred.
    """
    if missing is None:
        observe(Note(f"{settings.topic} is empty: waiting for its first alert"))
    else:
        observe(_waiting_for_schema(settings))
    heard = time.monotonic()
    pace = Pace(follow, heard)
    while True:
        sleep(LOOK_S)
        now = time.monotonic()
        if pace.is_idle(now) or pace.is_late():
            if missing is not None:
                raise missing
            return None
        try:
            target = inspect_topic(settings, inspector, ledger, fresh)
        except BrokerUnavailableError:
            if now - heard > follow.reconnect_timeout_s:
                raise
            continue
        except MissingSchemaError as error:
            if missing is None:
                observe(_waiting_for_schema(settings))
                pace = Pace(follow, now)  # the topic is empty no longer
            missing, target = error, None
        heard = now
        if target is not None:
            return target


def _waiting_for_schema(settings: TransferSettings) -> Note:
    return Note(f"{settings.topic} has no schema yet: waiting for it")
