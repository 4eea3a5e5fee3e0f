"""Repair a dataset: read from Kafka again what its files no longer hold, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from fink_dask.cluster.choice import ClusterChoice
from fink_dask.cluster.readiness import Needs
from fink_dask.compaction.groups import FILE_BYTES
from fink_dask.compaction.workspace import read_compaction
from fink_dask.dashboard.plugin import page_link
from fink_dask.dashboard.reporter import Reporter
from fink_dask.dataset.schema_versions import mend_versions, partitioning_of, planned_versions
from fink_dask.errors import LedgerError
from fink_dask.kafka.inspect import TopicDescription, is_other_topic, open_inspector
from fink_dask.kafka.offsets import OffsetRange, total
from fink_dask.ledger.commit import roll_forward
from fink_dask.ledger.lease import Lease, hold_lease
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.outdir import check_dataset, check_is_in_kafka, find_ledger
from fink_dask.ledger.records import DamagedMarker, Plan
from fink_dask.ledger.summary import Summary, progress_of
from fink_dask.planning.plan import known_topic_id
from fink_dask.planning.schemas import restore_schemas
from fink_dask.progress.events import Doing, TransferStarted
from fink_dask.progress.tally import Progress
from fink_dask.ranges.work import TaskSettings, Work
from fink_dask.running.scheduling import run_ranges
from fink_dask.settings import BATCHSIZE, KafkaSettings
from fink_dask.store.location import locate
from fink_dask.units import pluralize
from fink_dask.verifying.damage import Damage, find_damage, write_marker
from fink_dask.verifying.files import examine_dataset


@dataclass(frozen=True)
class Repair:
    """How a repair ended."""

    #: What the dataset holds now; ``failed`` where something is still wrong.
    summary: Summary
    #: ranges, offsets: ranges that were repaired, and the offsets that were read again for them.
    ranges: int
    offsets: int
    #: What could not be repaired, and why, one line each.
    left: tuple[str, ...]
    #: Files that no range wrote; they stay where they are.
    foreign: tuple[Path, ...]


def run_repair(
    ledger: Ledger,
    kafka: KafkaSettings,
    show: Callable[[], Progress],
    advance: Callable[[int], None],
    on_loss: str,
    chosen: ClusterChoice,
) -> Repair:
    """Repair what `verify` complains about, as far as Kafka still has it.

    `show`: returns what is told of the rest, once the files are checked and there is something to tell.
    `advance`: is told the bytes of each file that was checked.
    `on_loss`: leave a range alone where Kafka no longer holds all of it, or repair what can be and declare the rest
    lost.
    `chosen`: where it is read again.
    Raises FinkDaskError if there is no ledger, a transfer is running, Kafka does not answer or holds another topic of
    this name, workers lack something, or a range fails; what was repaired stays so.
    """
    check_dataset(ledger)
    check_is_in_kafka(ledger, "repair")
    with hold_lease(ledger) as lease:
        plans = ledger.plans()
        roll_forward(ledger, plans)
        found = examine_dataset(ledger, advance)
        if found.schemas:
            show()(Doing("connecting to Kafka, and reading the schemas again"))
            _restore_schemas(ledger, plans, kafka)
        damages, compacted = find_damage(ledger, plans, found)
        wanted = [damage for damage in damages if damage.remainder.wanted]
        if wanted:
            show()(Doing("connecting to Kafka, and looking at the topic"))
        taken, left = _choose(wanted, _describe(kafka, plans), on_loss) if wanted else ([], ())
        mended = [damage for damage in damages if not damage.remainder.wanted]
        mended += [damage for damage in taken if not damage.remainder.wanted]
        taken = [damage for damage in taken if damage.remainder.wanted]
        for damage in mended:
            write_marker(ledger, damage)
        if taken:
            try:
                _read_again(ledger, plans, kafka, taken, show(), on_loss, lease, chosen)
            finally:
                lease.check()
                roll_forward(ledger, plans)
        damaged: list[DamagedMarker] = []
        if compacted:
            left = (*left, _say_compacted(ledger, compacted))
        markers = ledger.markers(plans, damaged)
        summary = progress_of(plans, markers).summary
        # A foreign file may have been replaced by one of the same name.
        known = {ledger.outdir / file.path for marker in markers for file in marker.files}
        foreign = tuple(path for path in found.foreign if path not in known)
    return Repair(
        replace(summary, state="failed") if left or damaged or foreign else summary,
        len(taken) + len(mended),
        sum(total(damage.remainder.wanted) for damage in taken),
        left,
        foreign,
    )


def _read_again(
    ledger: Ledger,
    plans: Sequence[Plan],
    kafka: KafkaSettings,
    damages: Sequence[Damage],
    progress: Progress,
    on_loss: str,
    lease: Lease,
    chosen: ClusterChoice,
) -> None:
    tasks: dict[str, TaskSettings] = {}
    nconsumers, topic = chosen.consumers(), plans[0].identity.topic
    progress(Doing("starting workers"))
    with ExitStack() as stack:
        needs = Needs(ledger, kafka, topic)
        cluster = stack.enter_context(chosen.connect(needs, nconsumers, len(damages), None, progress))
        stack.enter_context(Reporter(cluster.client, progress, outlived=chosen.scheduler is not None))

        def check() -> None:
            progress.pass_on()
            lease.check()
            cluster.check()

        for plan in plans:
            identity = plan.identity
            partitioning = partitioning_of(identity, planned_versions(ledger, identity))
            tasks[plan.plan_id] = TaskSettings(
                ledger=ledger,
                kafka=replace(kafka, queue_bytes=cluster.memory.queue_bytes),
                identity=identity,
                plan_id=plan.plan_id,
                partitioning=partitioning,
                batchsize=BATCHSIZE,
                memory=cluster.memory,
                on_loss=on_loss,
            )
        work = [Work(damage.range, tasks[damage.plan_id], damage.remainder) for damage in damages]
        offsets = sum(total(damage.remainder.wanted) for damage in damages)
        progress(
            TransferStarted(
                *(topic, len(work), 0, offsets, 0, page_link(cluster.client)),
                reconnect_timeout_s=kafka.reconnect_timeout_s,
                limit_rate=kafka.limit_rate,
            )
        )
        run_ranges(cluster, work, nconsumers, progress, check, reconnect_timeout_s=kafka.reconnect_timeout_s)


def _restore_schemas(ledger: Ledger, plans: Sequence[Plan], kafka: KafkaSettings) -> None:
    """Fetch the writer schemas again; without them nothing can be decoded."""
    mend_versions(ledger, plans)
    with open_inspector(kafka) as inspector:
        for identity in dict.fromkeys(plan.identity for plan in plans):
            restore_schemas(ledger, identity, plans, inspector)


def _say_compacted(ledger: Ledger, ranges: Collection[OffsetRange]) -> str:
    """Say how to recover ranges whose rows are in damaged files of many ranges."""
    compaction = read_compaction(ledger)
    words = f"ranges with rows in compacted files that are damaged: {len(ranges):,}; "
    if compaction is None or not find_ledger(locate(compaction.source)).exists():
        return f"{words}the dataset that it was compacted from is gone: transfer the topic again while Kafka has it"
    form = compaction.form
    options = f" --unique {form.unique}" if form.unique is not None else ""
    options += f" --file-size {form.file_bytes}" if form.file_bytes != FILE_BYTES else ""
    return (
        f"{words}make it again in another directory with fink-dask compact {compaction.source} OTHERDIR{options}, and "
        "let a transfer into that directory fetch what came since"
    )


def _describe(kafka: KafkaSettings, plans: Sequence[Plan]) -> TopicDescription:
    """Describe the topic as it is now, and make sure that it is the one that was planned."""
    with open_inspector(kafka) as inspector:
        topic = inspector.describe(plans[0].identity.topic)
    if is_other_topic(known_topic_id(plans), topic.topic_id):
        raise LedgerError("the topic was deleted and made again: it no longer holds these alerts", topic.topic)
    return topic


def _choose(damages: Sequence[Damage], topic: TopicDescription, on_loss: str) -> tuple[list[Damage], tuple[str, ...]]:
    """Choose what can be repaired; the rest, with the reason, stays as it is: a damaged file is better than none."""
    chosen, left = [], []
    for damage in damages:
        offset_range, marks = damage.range, topic.watermarks.get(damage.range.partition)
        low = marks.low if marks is not None and marks.last_stable_offset >= damage.range.end else damage.range.end
        if damage.readable is not None and damage.gone(low):
            damage = replace(damage, remainder=damage.readable)  # noqa: PLW2901 - the same range
            if not damage.remainder.wanted:
                chosen.append(damage)
                continue
        if marks is None or marks.last_stable_offset < damage.remainder.wanted[-1][1]:
            left.append(f"{offset_range}: the topic ends before this range: it was truncated, or made anew")
            continue
        gone = damage.gone(marks.low)
        if gone and on_loss == "fail":
            words = f"Kafka no longer has {gone:,} of {pluralize(total(damage.remainder.wanted), 'missing offset')}"
            others = "fetch the others and " if gone < total(damage.remainder.wanted) else ""
            left.append(f"{offset_range}: {words}; --on-loss continue would {others}declare these lost")
            continue
        chosen.append(damage)
    return chosen, tuple(left)
