"""From a topic and a ledger to the ranges to transfer now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from fink_dask.avro.framing import NONE, PREDICTION, Framing
from fink_dask.dataset.schema_versions import reconcile_versions
from fink_dask.errors import BrokerError, SettingsError, parameter
from fink_dask.kafka.inspect import Inspector, Sample
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.ledger import KnownMarkers, Ledger
from fink_dask.ledger.records import Marker, Plan
from fink_dask.planning.plan import (
    Generations,
    Sizing,
    alerts_at_most,
    next_plan,
    planned_ends,
    removed_heads,
    spans_to_plan,
    window_to_plan,
)
from fink_dask.planning.schemas import Target
from fink_dask.progress.events import Note, Observer
from fink_dask.ranges.memory import FULL_SHARE, MemoryShare
from fink_dask.ranges.work import TaskSettings, Work
from fink_dask.settings import TransferSettings
from fink_dask.units import pluralize


@dataclass(frozen=True)
class Draft:
    """What would be planned."""

    #: The plan; None when there is nothing to plan.
    plan: Plan | None = None
    #: The sizes that it was made with.
    sample: Sample | None = None


def plan_next(
    settings: TransferSettings,
    target: Target,
    inspector: Inspector,
    ledger: Ledger,
    plans: Sequence[Plan],
    known: KnownMarkers | None = None,
) -> Draft:
    """Plan what no generation holds yet, as far as the limit allows, without freezing the plan.

    `known`: has the markers that were read before.
    Raises BrokerError if Kafka has removed something, and the settings call that a failure.
    Raises SettingsError if the dataset holds more than the limit.
    Raises LedgerError if the topic holds less than was planned.
    """
    room = None
    watermarks = target.description.watermarks
    if settings.limit is not None:
        at_most = alerts_at_most(plans, ledger.markers(plans, known=known), watermarks)
        room = settings.limit - at_most
        if room < 0:
            raise SettingsError(
                f"{parameter('limit')} {settings.limit:,}: this dataset already holds or has planned "
                f"{pluralize(at_most, 'alert')}; "
                f"use another {parameter('outdir')}, or {parameter('restart', True)}"
            )
    planned = planned_ends(plans)
    spans = spans_to_plan(watermarks, planned, settings.topic)
    heads = removed_heads(watermarks, planned)
    check_heads(settings, heads, lambda _: None)
    if not (spans or heads) or room == 0:
        return Draft()
    sample = inspector.sample(settings.topic, spans)
    sizing = Sizing(settings.range_bytes, settings.nconsumers, sample.sizes, sample.wire_sizes)
    window = window_to_plan(target.identity, not plans, watermarks, settings.until)
    plan = next_plan(len(plans) + 1, target.identity, spans, sizing, room, heads, window)
    if plan is not None and room is not None and room < sum(end - start for start, end in spans.values()):
        plan = replace(plan, limit=settings.limit)
    return Draft(plan, sample)


def freeze_plan(ledger: Ledger, target: Target, plan: Plan, earlier: Generations, observe: Observer) -> Plan:
    """Freeze a plan, with the names of all schemas that the dataset has taken in so far; it becomes an earlier one.

    Raises LedgerError if another job has written this generation, or the ledger is damaged.
    """
    if not earlier.count and (framing := Framing(plan.identity.framing)).kind not in {NONE, PREDICTION}:
        observe(Note(f"its values have {framing.in_words()} around each record, which is taken off"))
    if plan.identity.schema_source == "record key":
        identity = reconcile_versions(ledger, plan.identity, target.partitioning, target.versions, not earlier.count)
        plan = replace(plan, identity=identity)
        if len(identity.more_schemas) > earlier.more_schemas:
            words = f"keys hold {len(identity.each_schema)} schemas that fit each other: from here on files have the"
            observe(Note(f"{words} columns of all of them, with nulls where a record has no value"))
    ledger.freeze(plan, target.schema, earlier.ids)
    earlier.add(plan)
    return plan


def check_heads(settings: TransferSettings, heads: Mapping[int, tuple[int, int]], observe: Observer) -> None:
    """Warn of what Kafka has removed before it could be read.

    Raises BrokerError if the settings call that a failure.
    """
    if not heads:
        return
    if settings.on_loss == "fail":
        partition, (start, end) = next(iter(heads.items()))
        words = (
            f"Kafka has removed offsets {start} to {end - 1} before they could be read; "
            f"{parameter('on_loss', 'continue')} would "
        )
        raise BrokerError(f"{words}declare them lost", settings.topic, partition, start)
    removed = sum(end - start for start, end in heads.values())
    words = f"Kafka has removed {pluralize(removed, 'offset')} of this topic before they were read: declared lost"
    observe(Note(words, warning=True))


def open_ranges(plans: Iterable[Plan], markers: Iterable[Marker]) -> list[tuple[Plan, OffsetRange]]:
    """List the planned ranges that no marker commits, each with its plan, in plan order."""
    committed = {marker.range for marker in markers}
    return [(plan, offset_range) for plan in plans for offset_range in plan.ranges if offset_range not in committed]


def make_work(
    settings: TransferSettings,
    target: Target,
    ledger: Ledger,
    opened: Iterable[tuple[Plan, OffsetRange]],
    memory: MemoryShare = FULL_SHARE,
    sample: Sample | None = None,
) -> list[Work]:
    """Put each open range together with what it needs to be transferred.

    `settings, target, ledger, opened, memory`: what there is, and what it is for.
    """
    tasks: dict[str, TaskSettings] = {}
    work = []
    for plan, offset_range in opened:
        if plan.plan_id not in tasks:
            record_bytes, expansion = (0, 1.0) if sample is None else (sample.plain_bytes, max(1.0, sample.expansion))
            range_bytes = int(plan.estimated_bytes / max(1, len(plan.ranges)))
            tasks[plan.plan_id] = TaskSettings(
                ledger=ledger,
                kafka=replace(
                    settings.kafka,
                    queue_bytes=memory.ahead(range_bytes, record_bytes),
                    record_bytes=record_bytes,
                    expansion=expansion,
                ),
                identity=plan.identity,
                plan_id=plan.plan_id,
                partitioning=target.partitioning,
                batchsize=settings.batchsize,
                memory=memory,
                compression=settings.compression,
                on_bad_record=settings.on_bad_record,
                on_loss=settings.on_loss,
                # Keys that hold a schema are larger than what is estimated.
                range_bytes=range_bytes if plan.identity.schema_source != "record key" else 0,
            )
        work.append(Work(offset_range, tasks[plan.plan_id]))
    return work


def offsets_by_partition(planned: Iterable[OffsetRange], work: Iterable[Work]) -> dict[int, tuple[int, int]]:
    """Count, for each partition, the planned offsets, and those of them that are done."""
    offsets: Counter[int] = Counter()
    still: Counter[int] = Counter()
    for offset_range in planned:
        offsets[offset_range.partition] += len(offset_range)
    for item in work:
        still[item.range.partition] += len(item.range)
    return {partition: (count, count - still[partition]) for partition, count in sorted(offsets.items())}
