"""Ledgers with made-up ranges, for tests of what is written without a Kafka to read from."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fink_dask.avro.schema import parse_schema
from fink_dask.batches import Memory, join_records
from fink_dask.dataset.formats import KAFKA_FIELDS, Origin
from fink_dask.dataset.partitioning import resolve_partitioning
from fink_dask.dataset.quarantine import QUARANTINE_SCHEMA, quarantine_rows
from fink_dask.dataset.writer import StagedWriter
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.commit import Attempt, Step, is_published, publish, roll_forward
from fink_dask.ledger.ledger import QUARANTINE_DIRECTORY, Ledger
from fink_dask.ledger.outdir import create_ledger
from fink_dask.ledger.records import Identity, Marker, Plan
from fink_dask.verifying.files import verify_dataset
from tests.harness.crash import kill_self

SCHEMA = parse_schema(
    json.dumps(
        {
            "type": "record",
            "name": "alert",
            "fields": [{"name": "class", "type": "string"}, {"name": "jd", "type": "double"}],
        }
    )
)
IDENTITY = Identity(
    topic="ftransfer_ztf_2026-02-24_1",
    topic_id="kafka-id",
    partitionby=("class",),
    survey=None,
    schema_sha256=SCHEMA.fingerprint,
    schema_source="file",
)
COLUMNS = pa.schema([*SCHEMA.arrow, *KAFKA_FIELDS])
Place = tuple[int, int]
#: What a transfer of the first 25 offsets of a partition tells, one after the other: they are of three classes.
STEPS = ["staged", "marked", "linked", "renamed", "renamed", "renamed", "renamed", "published"]


def make_plan(ranges: Sequence[OffsetRange], generation: int = 1, topic: str = IDENTITY.topic) -> Plan:
    """Plan these ranges."""
    return Plan(generation, replace(IDENTITY, topic=topic), tuple(ranges), estimated_bytes=1000)


def make_ledger(outdir: Path, plan: Plan | None = None) -> Ledger:
    """Make a ledger, with a frozen plan if one is given."""
    ledger = Ledger(outdir)
    create_ledger(ledger)
    if plan is not None:
        ledger.freeze(plan, SCHEMA)
    return ledger


def begin_attempt(outdir: Path, origin: Origin) -> Attempt:
    """Begin an attempt at a range of a plan that is made up as well."""
    ledger = make_ledger(outdir)
    (ledger.staging_path / origin.plan_id).mkdir(exist_ok=True)
    attempt = Attempt(ledger, origin.range, origin.plan_id, lambda _: None)
    attempt.begin()
    return attempt


def alerts_of(offset_range: OffsetRange) -> list[int]:
    """Offsets that hold an alert: every tenth holds a record that can't be decoded, every other tenth nothing."""
    return [offset for offset in range(offset_range.start, offset_range.end) if offset % 10 not in {7, 9}]


def places(plan: Plan) -> list[Place]:
    """Partition and offset of every alert of a plan."""
    return sorted(
        (offset_range.partition, offset) for offset_range in plan.ranges for offset in alerts_of(offset_range)
    )


def rows_of(partition: int, offsets: Sequence[int]) -> pa.RecordBatch:
    """Make the alerts of these offsets."""
    columns = [[f"class {offset % 3}" for offset in offsets], [2460000.5 + offset for offset in offsets]]
    return pa.RecordBatch.from_pydict(
        dict(zip(COLUMNS.names, [*columns, [partition] * len(offsets), offsets], strict=True)), schema=COLUMNS
    )


def stage_range(attempt: Attempt, plan: Plan, offset_range: OffsetRange) -> Marker:
    """Stage a range as a transfer does, one batch of ten offsets after the other."""
    origin = Origin(plan.identity.topic, plan.identity.topic_id, offset_range, plan.plan_id, attempt.revision)
    partitioning = resolve_partitioning(plan.identity.partitionby, None, SCHEMA.arrow)
    file_schema = partitioning.file_schema(COLUMNS)
    offsets = range(offset_range.start, offset_range.end)
    bad = [offset for offset in offsets if offset % 10 == 7]
    with (
        StagedWriter(attempt, file_schema, origin) as data,
        StagedWriter(attempt, QUARANTINE_SCHEMA, origin, prefix="quarantine-") as quarantine,
    ):
        for start in range(0, len(alerts_of(offset_range)), 10):
            batch = rows_of(offset_range.partition, alerts_of(offset_range)[start : start + 10])
            split = partitioning.split(batch)
            for directory, here in split.slices():
                data.write(directory, batch.take(pa.array(split.order[here])).select(file_schema.names))
        if bad:
            raw = join_records(bad, [-1] * len(bad), [b"?"] * len(bad), [b"k", *[None] * (len(bad) - 1)], Memory())
            reasons = [(index, "made up") for index in range(len(bad))]
            quarantine.write(QUARANTINE_DIRECTORY, quarantine_rows(raw, reasons, offset_range.partition))
        data.complete()
        quarantine.complete()
        files, quarantine_files = data.stage(), quarantine.stage()
    return Marker(
        plan_id=plan.plan_id,
        range=offset_range,
        attempt=attempt.name,
        rows=len(alerts_of(offset_range)),
        raw_bytes=100 * len(offset_range),
        files=files,
        quarantined=len(bad),
        quarantine=quarantine_files[0] if bad else None,
        holes=tuple((offset, offset + 1) for offset in offsets if offset % 10 == 9),
        revision=attempt.revision,
    )


def transfer(ledger: Ledger, plan: Plan, offset_range: OffsetRange, step: Step = lambda _: None) -> Marker:
    """Make a range part of the dataset, as `fink_dask.ranges.task.transfer_range` does."""
    marker = ledger.marker(offset_range, plan.plan_id)
    if marker is None:
        attempt = Attempt(ledger, offset_range, plan.plan_id, step)
        attempt.begin()
        try:
            marker = attempt.commit(stage_range(attempt, plan, offset_range))
        finally:
            attempt.clean_up()
    if not is_published(ledger, marker):
        publish(ledger, marker, step)
    return marker


def make_whole(outdir: Path, plans: Sequence[Plan]) -> Ledger:
    """Make a dataset that has all of these plans, one generation after the other."""
    ledger = make_ledger(outdir)
    for plan in plans:
        ledger.freeze(plan, SCHEMA)
        for offset_range in plan.ranges:
            transfer(ledger, plan, offset_range)
    return ledger


def revise(ledger: Ledger, plan: Plan, offset_range: OffsetRange, step: Step = lambda _: None) -> Marker:
    """Commit the next revision of a range's marker, with files of its own in the place of all that it had."""
    revision = ledger.revisions().get(offset_range.name, 0)
    before = ledger.marker(offset_range, plan.plan_id, revision)
    assert before is not None
    attempt = Attempt(ledger, offset_range, plan.plan_id, step, revision + 1)
    attempt.begin()
    try:
        superseded = [file.path for file in before.files]
        superseded += [] if before.quarantine is None else [before.quarantine.path]
        marker = attempt.commit(replace(stage_range(attempt, plan, offset_range), superseded=tuple(superseded)))
        if not is_published(ledger, marker):
            publish(ledger, marker, step)
        return marker
    finally:
        attempt.clean_up()


def resume(ledger: Ledger, plan: Plan) -> None:
    """Go on as the next job does."""
    create_ledger(ledger)
    roll_forward(ledger, ledger.plans())
    for offset_range in plan.ranges:
        if ledger.marker(offset_range, plan.plan_id) is None:  # else whoever transfers it would publish it as well
            transfer(ledger, plan, offset_range)


def transfer_and_die(ledger: Ledger, plan: Plan, at: int | str) -> None:
    """Transfer the first range of a plan, until the step of this number or name kills the process."""
    seen = 0

    def step(name: str) -> None:
        nonlocal seen
        seen += 1
        if at in (seen, name):
            kill_self()

    transfer(ledger, plan, plan.ranges[0], step)


def assert_whole(ledger: Ledger, plan: Plan) -> None:
    """Fail unless all alerts of a plan are there once, and nothing else is, nor is left over."""
    assert read_places(ledger) == places(plan)
    assert ledger.staged() == []
    assert verify_dataset(ledger).problems == ()


def assert_only_committed_is_seen(ledger: Ledger, plan: Plan) -> None:
    """Fail if a reader sees what is not committed."""
    committed = {(marker.range.partition, o) for marker in ledger.markers([plan]) for o in alerts_of(marker.range)}
    assert set(read_places(ledger)) <= committed


def files_below(directory: Path) -> list[Path]:
    """List every file of a directory tree."""
    return sorted(path for path in directory.rglob("*") if path.is_file())


def hashes_of(ledger: Ledger) -> dict[Path, str]:
    """Hash each file of a dataset and of its ledger."""
    paths = [*files_below(ledger.outdir), *files_below(ledger.path)]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def copy_of(whole: Path, outdir: Path) -> Ledger:
    """Copy a dataset with its ledger, to do something to it."""
    ledger = Ledger(outdir)
    shutil.copytree(whole, outdir)
    shutil.copytree(Ledger(whole).path, ledger.path)
    return ledger


def read_places(ledger: Ledger) -> list[Place]:
    """Partition and offset of every row that a reader of the output directory sees, whatever the ledger says."""
    found: list[Place] = []
    for path in ledger.store.files_below(ledger.outdir):
        table = pq.ParquetFile(BytesIO(path.read_bytes())).read(columns=["kafka_partition", "kafka_offset"])
        found += zip(table["kafka_partition"].to_pylist(), table["kafka_offset"].to_pylist(), strict=True)
    return sorted(found)
