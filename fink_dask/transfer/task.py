"""Transfer one range: consume, decode, split, write, commit, publish. A plain function; a loop can run it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa

from fink_dask.avro.schema import AvroSchema
from fink_dask.config import BATCH_BYTES, BUFFER_BYTES, KafkaSettings
from fink_dask.dataset.commit import Attempt, Step, is_published, publish
from fink_dask.dataset.ledger import Ledger, storage_error
from fink_dask.dataset.partitioning import Partitioning
from fink_dask.dataset.quarantine import QUARANTINE_DIRECTORY, QUARANTINE_SCHEMA, quarantine_rows
from fink_dask.dataset.records import Identity, Marker
from fink_dask.dataset.writer import Origin, StagedWriter
from fink_dask.kafka.client import open_consumer
from fink_dask.kafka.consume import RangeReader
from fink_dask.kafka.offsets import Range, total
from fink_dask.transfer.decode import RangeDecoder
from fink_dask.transfer.events import RangeProgress


@dataclass(frozen=True)
class TaskSettings:
    """What every range of a plan has in common.

    Parameters
    ----------
    ledger : Ledger
        Dataset and ledger.
    kafka : KafkaSettings
        How to reach Kafka.
    identity : Identity
        Topic and form of the dataset.
    plan_id : str
        The plan.
    partitioning : Partitioning
        What the directories come from.
    batchsize : int
        The most alerts that are decoded at once.
    buffer_bytes : int
        Decoded bytes that are held back to fill row groups.
    batch_bytes : int
        The most bytes of their values.
    """

    ledger: Ledger
    kafka: KafkaSettings
    identity: Identity
    plan_id: str
    partitioning: Partitioning
    batchsize: int
    buffer_bytes: int = BUFFER_BYTES
    batch_bytes: int = BATCH_BYTES


@dataclass(frozen=True)
class Work:
    """A range to transfer.

    Parameters
    ----------
    range : Range
        The range.
    settings : TaskSettings
        How, and where to.
    """

    range: Range
    settings: TaskSettings


@dataclass(frozen=True)
class RangeResult:
    """What became of a range; the marker says it in full.

    Parameters
    ----------
    range : Range
        The range.
    rows, raw_bytes, quarantined, lost : int
        Alerts written, bytes consumed, records quarantined, offsets lost.
    transferred : bool
        False where an earlier attempt had committed it.
    """

    range: Range
    rows: int
    raw_bytes: int
    quarantined: int
    lost: int
    transferred: bool


def transfer_range(
    range_: Range,
    settings: TaskSettings,
    notify: Callable[[RangeProgress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
    step: Step = lambda _: None,
) -> RangeResult:
    """Make a range part of the dataset, exactly once however often this is called.

    Parameters
    ----------
    range_ : Range
        What to transfer.
    settings : TaskSettings
        How, and where to.
    notify : callable
        Takes a `RangeProgress` after each batch.
    should_stop : callable
        Asked several times a second; True ends the attempt.
    step : callable
        Told the name of each step of the commit.

    Returns
    -------
    RangeResult
        What the range's marker says.

    Raises
    ------
    BrokerError
        If Kafka refuses, does not answer, or no longer holds what was planned.
    SettingsError
        If the range has too many partition keys.
    LedgerError
        If the ledger is damaged, or is not the one of this plan any more.
    StorageError
        If the file system refuses.
    InterruptedTransferError
        If `should_stop` said so.
    """
    try:
        marker = settings.ledger.marker(range_, settings.plan_id)
        transferred = marker is None
        if marker is None:
            marker = _attempt(range_, settings, notify, should_stop, step)
        if not is_published(settings.ledger, marker):
            publish(settings.ledger, marker, step)
    except OSError as error:
        raise storage_error(error, settings.ledger.outdir) from error
    return RangeResult(range_, marker.rows, marker.raw_bytes, marker.quarantined, total(marker.lost), transferred)


def _attempt(
    range_: Range,
    settings: TaskSettings,
    notify: Callable[[RangeProgress], None],
    should_stop: Callable[[], bool],
    step: Step,
) -> Marker:
    attempt = Attempt(settings.ledger, range_, settings.plan_id, step)
    attempt.begin()
    try:
        return attempt.commit(_stage(attempt, range_, settings, notify, should_stop))
    finally:
        attempt.clean_up()


def _stage(
    attempt: Attempt,
    range_: Range,
    settings: TaskSettings,
    notify: Callable[[RangeProgress], None],
    should_stop: Callable[[], bool],
) -> Marker:
    """Consume the range into staged files; return the marker that would commit them."""
    topic = settings.identity.topic
    origin = Origin(topic, settings.identity.topic_id, range_, settings.plan_id)
    decoder = RangeDecoder(_schema(settings.ledger, settings.identity), settings.identity, range_.partition)
    file_schema = settings.partitioning.file_schema(decoder.columns)
    rows = raw_bytes = quarantined = 0
    with (
        open_consumer(settings.kafka) as (consumer, errors),
        StagedWriter(attempt, file_schema, origin, buffer_bytes=settings.buffer_bytes) as data,
        StagedWriter(attempt, QUARANTINE_SCHEMA, origin, prefix="quarantine-") as quarantine,
    ):
        reader = RangeReader(consumer, errors, settings.kafka, topic, range_, should_stop, origin.topic_id)
        for batch in reader.batches(settings.batchsize, settings.batch_bytes):
            decoded, positions, bad = decoder.decode(batch)
            split = settings.partitioning.split(decoded)
            for directory, chosen in split.rows:
                part = decoded if len(chosen) == decoded.num_rows else decoded.take(pa.array(chosen))
                if part.num_rows:
                    data.write(directory, part.select(file_schema.names))
                    rows += part.num_rows
            bad += [(int(positions[row]), reason) for row, reason in split.refused]
            if bad:
                quarantine.write(QUARANTINE_DIRECTORY, quarantine_rows(batch, sorted(bad), range_.partition))
                quarantined += len(bad)
            raw_bytes += batch.raw_bytes
            notify(RangeProgress(range_, attempt.name, reader.position, rows, raw_bytes, quarantined))
        files = data.finish()
        quarantine_files = quarantine.finish()
    return Marker(
        plan_id=settings.plan_id,
        range=range_,
        attempt=attempt.name,
        rows=rows,
        raw_bytes=raw_bytes,
        files=files,
        quarantined=quarantined,
        quarantine=quarantine_files[0] if quarantine_files else None,
        lost=tuple(reader.lost),
        holes=tuple(reader.holes),
    )


@lru_cache(maxsize=8)
def _schema(ledger: Ledger, identity: Identity) -> AvroSchema:
    """Read the writer schema from the ledger, once a process: it is too large to travel with every range."""
    return ledger.schema(identity)
