"""Decode the quarantine again: a record that becomes a row moves from there into the dataset, exactly once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pyarrow as pa

from fink_dask.avro.framing import NONE, Framing
from fink_dask.avro.reasons import RecordError
from fink_dask.avro.reference import Transcoder
from fink_dask.avro.schema import AvroSchema
from fink_dask.batches import Memory, join_records
from fink_dask.dataset.formats import Origin
from fink_dask.dataset.presence import check_file
from fink_dask.dataset.quarantine import read_quarantine
from fink_dask.dataset.schema_versions import known_versions, partitioning_of, planned_versions, register
from fink_dask.errors import LedgerError, SchemaError, parameter
from fink_dask.ledger.commit import Attempt, roll_forward
from fink_dask.ledger.lease import Lease, hold_lease
from fink_dask.ledger.ledger import Ledger, storage_in_words
from fink_dask.ledger.outdir import check_dataset
from fink_dask.ledger.records import Identity, Marker
from fink_dask.ledger.remainder import rest_of
from fink_dask.ledger.summary import Summary, summarise
from fink_dask.ranges.decode import OutgrownError, RangeDecoder, Widener
from fink_dask.ranges.staged import StagedRange


@dataclass(frozen=True)
class Retry:
    """How a retry ended."""

    #: What the dataset holds now.
    summary: Summary
    #: Records that are alerts of the dataset now.
    recovered: int
    #: Records that could be decoded, but for which the dataset's condition is not true.
    filtered: int


def retry_quarantine(ledger: Ledger, schema: AvroSchema | None, advance: Callable[[int], None]) -> Retry:
    """Decode the quarantine again, and add what becomes a row to the dataset.

    `schema`: what the records were written with; by default the dataset's schema. Records are read with it into the
    dataset's schema, by the rules of Avro's schema resolution.
    `advance`: is told how many records were tried.
    Raises FinkDaskError if there is no ledger, a transfer is running, a file is damaged, or the file system refuses;
    each range that was done stays so.
    """
    check_dataset(ledger)
    done: list[tuple[int, int]] = []
    with hold_lease(ledger) as lease:
        plans = ledger.plans()
        roll_forward(ledger, plans)
        for plan in plans:
            tries = [marker for marker in ledger.markers([plan]) if marker.quarantine is not None]
            if tries:
                done += _retry_plan(ledger, plan.identity, tries, schema, lease, advance)
        return Retry(summarise(ledger).summary, sum(rows for rows, _ in done), sum(filtered for _, filtered in done))


def _retry_plan(
    ledger: Ledger,
    identity: Identity,
    markers: list[Marker],
    schema: AvroSchema | None,
    lease: Lease,
    advance: Callable[[int], None],
) -> list[tuple[int, int]]:
    """Retry the ranges of a plan; return how many records of each became rows, and how many were filtered."""
    ours = planned_versions(ledger, identity)
    partitioning = partitioning_of(identity, ours)
    written: AvroSchema | Transcoder | None = schema
    framing = Framing() if schema is None else Framing(identity.framing)
    if schema is not None and len(known_versions(ledger, identity).schemas) > 1:
        # There is no single schema to resolve to: it becomes one more of those whose columns the dataset has.
        identity = replace(identity, framing=NONE)
        try:
            register(ledger, identity, partitioning, schema)
        except SchemaError as error:
            raise SchemaError(f"{parameter('schema')}: {error}") from error
    elif schema is not None:
        # The user's word on what they were written with outweighs their keys.
        identity = replace(identity, schema_source="file", framing=NONE)
        written = Transcoder(schema, ours.first) if schema != ours.first else None
    done = []
    for marker in markers:
        lease.check()
        widener = Widener(ledger, identity, partitioning, marker.range.partition)
        assert marker.quarantine is not None
        footer = Origin(identity.topic, identity.topic_id, marker.range, marker.plan_id).footer()
        problems = check_file(ledger.path / marker.quarantine.path, marker.quarantine, footer)
        if problems:
            raise LedgerError(f"{problems[0]}; fink-dask repair fetches it again")
        with storage_in_words(ledger.path):
            done.append(_retry_range(ledger, identity, marker, widener, written, framing))
        advance(marker.quarantined)
    return done


def _retry_range(
    ledger: Ledger,
    identity: Identity,
    marker: Marker,
    widener: Widener,
    written: AvroSchema | Transcoder | None,
    framing: Framing,
) -> tuple[int, int]:
    """Commit the next revision of a range's marker, if anything can be decoded now; see `_retry_plan`."""
    while True:
        attempt = Attempt(ledger, marker.range, marker.plan_id, lambda _: None, marker.revision + 1)
        attempt.begin()
        try:
            assert marker.quarantine is not None
            # The records that still can't be decoded make a new quarantine file.
            rest = replace(rest_of(marker), quarantine=None, superseded=(marker.quarantine.path,))
            decoder = widener.decoder(attempt)
            with StagedRange(attempt, identity, decoder, rest) as staged:
                for records in read_quarantine(ledger, marker.quarantine):
                    _decode_again(staged, decoder, records, written, framing)
                if decoder.discovered:
                    raise OutgrownError
                if not (staged.rows or staged.filtered):
                    return 0, 0
                staged.complete()
                files, quarantine = staged.stage()
            attempt.supersede(
                rest.marker(marker.plan_id, marker.range, attempt.name, files, quarantine, filtered=staged.filtered)
            )
            return staged.rows, staged.filtered
        except OutgrownError:
            widener.widen()
        finally:
            attempt.clean_up()


def _decode_again(
    staged: StagedRange,
    decoder: RangeDecoder,
    records: pa.RecordBatch,
    written: AvroSchema | Transcoder | None,
    framing: Framing,
) -> None:
    """Write the rows of the records that can be decoded, and the others back into quarantine, as they were."""
    offsets = records["kafka_offset"].to_pylist()
    none = [-1] * len(offsets)
    batch, unframed = framing.unwrap(
        join_records(offsets, none, records["value"].to_pylist(), records["key"].to_pylist(), Memory())
    )
    values, keys = [batch.value(index) for index in range(len(batch))], list(batch.keys)
    failed = set(unframed)
    if isinstance(written, AvroSchema):
        keys = [written.text.encode()] * len(keys)
    elif written is not None:
        for index, value in enumerate(values):
            try:
                if value is None:
                    raise RecordError("no value")
                values[index] = written.transcode(value)
            except RecordError:
                values[index] = None
                failed.add(index)
    # A key matters only where it holds the schema.
    decoded = decoder.decode(join_records(offsets, none, values, keys, Memory()))
    staged.write_rows(decoded)
    failed |= {index for index, _ in decoded.bad}
    if failed:
        staged.write_quarantine(records.take(pa.array(sorted(failed), pa.int64())))
