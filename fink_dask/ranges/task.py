"""Transfer one range: consume, decode, split, write, commit, publish. A plain function; a loop can run it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime

from fink_dask.errors import BrokerError, parameter
from fink_dask.kafka.connection import Connect, open_connection
from fink_dask.kafka.line import Line
from fink_dask.kafka.offsets import OffsetRange, total
from fink_dask.kafka.reader import RangeReader
from fink_dask.ledger.commit import Attempt, Step, is_published, publish
from fink_dask.ledger.ledger import storage_error
from fink_dask.ledger.records import Marker
from fink_dask.ledger.remainder import Remainder, whole_range
from fink_dask.progress.events import RangeProgress
from fink_dask.progress.profile import Stopwatch
from fink_dask.ranges.decode import OutgrownError, RangeDecoder, Widener
from fink_dask.ranges.slots import DecodeSlot
from fink_dask.ranges.staged import StagedRange
from fink_dask.ranges.work import RangeResult, TaskSettings


def transfer_range(
    offset_range: OffsetRange,
    settings: TaskSettings,
    notify: Callable[[RangeProgress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
    step: Step = lambda _: None,
    connect: Connect = open_connection,
    turn: DecodeSlot | None = None,
    remainder: Remainder | None = None,
    line: Line | None = None,
) -> RangeResult:
    """Make a range part of the dataset, exactly once however often this is called.

    `notify`: takes a `RangeProgress` after each batch, and several times a second while nothing comes.
    `should_stop`: asked several times a second; True ends the attempt.
    `step`: is told the name of each step of the commit.
    `connect`: opens or lends a connection to Kafka.
    `turn`: to be waited for before anything is decoded; another range has it while this one is synced to disk.
    `remainder`: what is left of a range that was committed; without it the range is transferred for the first time.
    `line`: the line to Kafka, where others read over it as well.
    Raises BrokerError if Kafka refuses, does not answer, or no longer holds what was planned.
    Raises SchemaError if a record can't be decoded, and the settings call that a failure.
    Raises SettingsError if the range has too many partition keys.
    Raises LedgerError if the ledger is damaged, or is no longer the one of this plan.
    Raises StorageError if the file system refuses.
    Raises InterruptedTransferError if `should_stop` said so.
    """
    try:
        watch, took = Stopwatch(), {}
        rest = remainder or whole_range(offset_range)
        marker = settings.ledger.marker(offset_range, settings.plan_id, rest.revision)
        if marker is None:
            caller = _Caller(notify, should_stop, step, connect, turn or DecodeSlot(), rest, line or Line())
            marker = _attempt(offset_range, settings, caller, watch)
            took = watch.seconds
        if not is_published(settings.ledger, marker):
            publish(settings.ledger, marker, step)
        watch.lap("commit")
    except OSError as error:
        raise storage_error(error, settings.ledger.outdir) from error
    return RangeResult(
        offset_range,
        marker.rows,
        marker.raw_bytes,
        marker.quarantined,
        total(marker.lost),
        marker.filtered,
        marker.newest_ms,
        took,
    )


@dataclass(frozen=True)
class _Caller:
    """What `transfer_range` was called with; see there."""

    notify: Callable[[RangeProgress], None]
    should_stop: Callable[[], bool]
    step: Step
    connect: Connect
    turn: DecodeSlot
    rest: Remainder
    line: Line


def _attempt(offset_range: OffsetRange, settings: TaskSettings, caller: _Caller, watch: Stopwatch) -> Marker:
    widener = Widener(settings.ledger, settings.identity, settings.partitioning, offset_range.partition)
    while True:
        attempt = Attempt(
            settings.ledger, offset_range, settings.plan_id, caller.step, caller.rest.revision, caller.should_stop
        )
        attempt.begin()
        try:
            return attempt.commit(_stage(attempt, settings, caller, watch, widener.decoder(attempt)))
        except OutgrownError:
            # A record had a schema that the dataset did not have: again, with columns for all schemas that were met.
            widener.widen()
        finally:
            attempt.clean_up()


def _stage(
    attempt: Attempt, settings: TaskSettings, caller: _Caller, watch: Stopwatch, decoder: RangeDecoder
) -> Marker:
    """Consume the range into staged files; return the marker that would commit them."""
    identity, rest = settings.identity, caller.rest
    offset_range = rest.span(attempt.range)
    bounds = (settings.memory.batch_bytes, settings.min_batch_bytes, decoder.max_records)
    with StagedRange(
        attempt,
        identity,
        decoder,
        rest,
        watch,
        memory=settings.memory,
        compression=settings.compression,
        on_bad_record=settings.on_bad_record,
    ) as staged:
        with caller.connect(settings.kafka) as connection:
            turn = caller.turn

            def report() -> None:
                caller.notify(_progress(attempt, identity.topic, reader, staged))

            reader = RangeReader(
                connection,
                identity.topic,
                offset_range,
                caller.should_stop,
                identity.topic_id,
                turn.given_away,
                caller.line,
                report,
                settings.range_bytes,
            )
            connection.learn(identity.topic, reader.check_stop)
            reader.prefetch()
            with closing(reader), turn:
                watch.skip()
                for batch in reader.batches(settings.batchsize, *bounds):
                    watch.lap("poll")
                    staged.add(batch)
                    report()
                    del batch  # before the next one is read
                    watch.lap("write")
                    _check_loss(reader, settings, offset_range.partition)
                watch.lap("poll")
                _check_loss(reader, settings, offset_range.partition)
                if not decoder.discovered:
                    staged.complete()
                watch.lap("write")
        if decoder.discovered:
            raise OutgrownError
        files, quarantine = staged.stage()
        watch.lap("fsync")
    watch.move(reader.join_seconds, "poll", "copy")
    watch.move(decoder.split_seconds, "decode", "split")
    lost, holes = rest.absent(reader.lost, reader.holes)
    return rest.marker(
        settings.plan_id,
        attempt.range,
        attempt.name,
        files,
        quarantine,
        staged.raw_bytes,
        lost,
        holes,
        datetime.now(UTC).isoformat(timespec="seconds") if lost else None,
        staged.newest_ms,
        staged.filtered,
    )


def _progress(attempt: Attempt, topic: str, reader: RangeReader, staged: StagedRange) -> RangeProgress:
    return RangeProgress(
        topic,
        attempt.range,
        attempt.name,
        reader.position,
        staged.rows,
        staged.raw_bytes,
        staged.quarantined,
        filtered=staged.filtered,
        received=reader.received,
        received_bytes=reader.received_bytes,
        quiet_s=reader.quiet_s,
        waits=not reader.has_room,
        throttled_s=reader.throttled_s,
        expansion=reader.expansion,
    )


def _check_loss(reader: RangeReader, settings: TaskSettings, partition: int) -> None:
    """Fail where retention has removed something, and the settings call that a failure."""
    if reader.lost and settings.on_loss == "fail":
        start, end = reader.lost[0]
        raise BrokerError(
            f"Kafka's retention has removed offsets {start} to {end - 1}; {parameter('on_loss', 'continue')} "
            "would declare them lost",
            settings.identity.topic,
            partition,
            start,
        )
