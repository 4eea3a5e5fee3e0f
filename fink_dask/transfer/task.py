"""Transfer one range: consume, decode, split, write, commit, publish. A plain function; a loop can run it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from fink_dask.avro.schema import AvroSchema
from fink_dask.dataset.commit import Attempt, Step, is_published, publish
from fink_dask.dataset.ledger import Ledger, storage_error
from fink_dask.dataset.quarantine import QUARANTINE_DIRECTORY, QUARANTINE_SCHEMA, quarantine_rows
from fink_dask.dataset.records import Identity, Marker
from fink_dask.dataset.writer import Origin, StagedWriter
from fink_dask.kafka.connection import open_connection
from fink_dask.kafka.consume import RangeReader
from fink_dask.kafka.offsets import Range, total
from fink_dask.kafka.pool import Connect
from fink_dask.transfer.decode import RangeDecoder
from fink_dask.transfer.events import RangeProgress
from fink_dask.transfer.profile import Stopwatch
from fink_dask.transfer.turn import Turn
from fink_dask.transfer.work import RangeResult, TaskSettings


def transfer_range(
    range_: Range,
    settings: TaskSettings,
    notify: Callable[[RangeProgress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
    step: Step = lambda _: None,
    connect: Connect = open_connection,
    turn: Turn | None = None,
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
    connect : callable
        Opens or lends a connection to Kafka.
    turn : Turn, optional
        What is waited for before anything is decoded; another range has it while this one is brought to the disk.

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
        watch, took = Stopwatch(), {}
        marker = settings.ledger.marker(range_, settings.plan_id)
        if marker is None:
            marker = _attempt(range_, settings, _Caller(notify, should_stop, step, connect, turn or Turn()), watch)
            took = watch.seconds
        if not is_published(settings.ledger, marker):
            publish(settings.ledger, marker, step)
        watch.lap("commit")
    except OSError as error:
        raise storage_error(error, settings.ledger.outdir) from error
    return RangeResult(range_, marker.rows, marker.raw_bytes, marker.quarantined, total(marker.lost), took)


@dataclass(frozen=True)
class _Caller:
    """What `transfer_range` was called with; see there."""

    notify: Callable[[RangeProgress], None]
    should_stop: Callable[[], bool]
    step: Step
    connect: Connect
    turn: Turn


def _attempt(range_: Range, settings: TaskSettings, caller: _Caller, watch: Stopwatch) -> Marker:
    attempt = Attempt(settings.ledger, range_, settings.plan_id, caller.step)
    attempt.begin()
    try:
        return attempt.commit(_stage(attempt, settings, caller, watch))
    finally:
        attempt.clean_up()


def _stage(attempt: Attempt, settings: TaskSettings, caller: _Caller, watch: Stopwatch) -> Marker:
    """Consume the range into staged files; return the marker that would commit them."""
    range_, topic = attempt.range, settings.identity.topic
    origin = Origin(topic, settings.identity.topic_id, range_, settings.plan_id)
    schema = _schema(settings.ledger, settings.identity)
    decoder = RangeDecoder(schema, settings.identity, settings.partitioning, range_.partition)
    rows = raw_bytes = quarantined = 0
    bounds = (settings.memory.batch_bytes, settings.least_batch_bytes, schema.most_rows)
    with (
        StagedWriter(
            attempt,
            decoder.file_schema,
            origin,
            buffer_bytes=settings.memory.buffer_bytes,
            compression=settings.compression,
        ) as data,
        StagedWriter(
            attempt, QUARANTINE_SCHEMA, origin, prefix="quarantine-", buffer_bytes=settings.memory.batch_bytes
        ) as quarantine,
    ):
        with caller.connect(settings.kafka) as connection:
            reader = RangeReader(connection, topic, range_, caller.should_stop, origin.topic_id, caller.turn.given_away)
            reader.prefetch()
            with caller.turn:
                watch.skip()
                for batch in reader.batches(settings.batchsize, *bounds):
                    watch.lap("poll")
                    decoded = decoder.decode(batch)
                    watch.lap("decode")
                    for directory, part in decoded.parts:
                        data.write(directory, part)
                        rows += part.num_rows
                    if decoded.bad:
                        quarantine.write(QUARANTINE_DIRECTORY, quarantine_rows(batch, decoded.bad, range_.partition))
                        quarantined += len(decoded.bad)
                    raw_bytes += batch.raw_bytes
                    caller.notify(RangeProgress(range_, attempt.name, reader.position, rows, raw_bytes, quarantined))
                    del batch, decoded  # before the next one is read
                    watch.lap("write")
                watch.lap("poll")
                data.complete()
                quarantine.complete()
                watch.lap("write")
        files, quarantine_files = data.stage(), quarantine.stage()
        watch.lap("fsync")
    watch.move(reader.join_seconds, "poll", "copy")
    watch.move(decoder.split_seconds, "decode", "split")
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
