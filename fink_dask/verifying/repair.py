"""Repair a dataset: find what its files and markers no longer hold, read that from Kafka again, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from fink_dask.cluster.choice import ClusterChoice
from fink_dask.cluster.readiness import Needs
from fink_dask.compaction.groups import FILE_BYTES
from fink_dask.compaction.workspace import read_compaction
from fink_dask.dashboard.plugin import page_link
from fink_dask.dashboard.reporter import Reporter
from fink_dask.dataset.formats import UNREADABLE, Origin, format_of
from fink_dask.dataset.presence import check_file, check_footer, intervals_of, with_shared_rows
from fink_dask.dataset.schema_versions import mend_versions, partitioning_of, planned_versions
from fink_dask.errors import LedgerError, SchemaError
from fink_dask.kafka.inspect import TopicDescription, is_other_topic, open_inspector
from fink_dask.kafka.offsets import Interval, OffsetRange, merge, subtract, total
from fink_dask.ledger.commit import Attempt, roll_forward
from fink_dask.ledger.lease import Lease, hold_lease
from fink_dask.ledger.ledger import QUARANTINE_DIRECTORY, Ledger
from fink_dask.ledger.outdir import check_dataset, check_is_in_kafka, find_ledger
from fink_dask.ledger.records import DamagedMarker, DataFile, Identity, Plan, unseal
from fink_dask.ledger.remainder import Remainder, rest_of
from fink_dask.ledger.summary import Summary, completeness_of
from fink_dask.planning.plan import known_topic_id
from fink_dask.planning.schemas import restore_schemas
from fink_dask.progress.events import Doing, TransferStarted
from fink_dask.progress.tally import Progress
from fink_dask.ranges.work import TaskSettings, Work
from fink_dask.running.scheduling import run_ranges
from fink_dask.settings import BATCHSIZE, KafkaSettings
from fink_dask.store.location import locate
from fink_dask.units import pluralize
from fink_dask.verifying.files import Finding, Verification, examine_dataset

#: A marker is smaller, even one with a hole at every second offset of its range.
_MAX_MARKER_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Damage:
    """A range that can be repaired."""

    plan_id: str
    range: OffsetRange
    #: What is provably left of it.
    remainder: Remainder
    #: The same with files that no marker vouches for, only their footers and offsets: better than nothing, where Kafka
    #: no longer has what is in them.
    readable: Remainder | None = None

    def gone(self, low: int) -> int:
        """Count the wanted offsets that Kafka, whose partition begins at `low`, no longer has."""
        return total(subtract(self.remainder.wanted, [(low, max(low, self.range.end))]))


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
        summary = completeness_of(plans, markers).summary
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


def find_damage(ledger: Ledger, plans: Sequence[Plan], found: Verification) -> tuple[list[Damage], set[OffsetRange]]:
    """Find the ranges whose files or markers are not as they were written, with what is left of them.

    Returns: what can't: ranges whose rows were compacted into files of many ranges, one of which is damaged. The rows
    of one range can't be taken out of such a file without those of the others.
    Raises LedgerError if a marker is of another plan or range.
    """
    identities = {plan.plan_id: plan.identity for plan in plans}
    compacted = {
        finding.marker.range
        for finding in found.findings
        if any(file.is_shared and file not in finding.files for file in finding.marker.files)
    }
    unmarked = [bad.range for bad in found.damaged]
    if unmarked:
        compacted |= with_shared_rows(ledger, ledger.markers(plans, []), unmarked)
    damages = [_of_files(ledger, finding) for finding in found.findings if finding.marker.range not in compacted]
    damages += [_of_marker(ledger, identities[bad.plan_id], bad) for bad in found.damaged if bad.range not in compacted]
    return damages, compacted


def write_marker(ledger: Ledger, damage: Damage) -> None:
    """Commit the next revision of a range whose marker alone was damaged; nothing has to be read for it.

    Raises LedgerError if another job has changed the range.
    """
    rest = damage.remainder
    attempt = Attempt(ledger, damage.range, damage.plan_id, lambda _: None, rest.revision)
    attempt.begin()
    try:
        attempt.supersede(rest.marker(damage.plan_id, damage.range, attempt.name))
    finally:
        attempt.clean_up()


def _of_files(ledger: Ledger, finding: Finding) -> Damage:
    marker = finding.marker
    kept = [*finding.files, *([finding.quarantine] if finding.quarantine is not None else [])]
    paths = [ledger.outdir / file.path for file in finding.files]
    paths += [ledger.path / file.path for file in kept[len(paths) :]]
    present = [interval for path in paths for interval in _intervals(path, marker.range.partition)]
    # Also what the marker itself superseded: where not all of its files could be published, that is still there.
    superseded = [*marker.superseded, *(file.path for file in marker.files if file not in kept)]
    if marker.quarantine is not None and finding.quarantine is None:
        superseded.append(marker.quarantine.path)
    return Damage(
        marker.plan_id,
        marker.range,
        replace(
            rest_of(marker),
            wanted=_rest(
                marker.range, [*present, *marker.lost, *marker.holes, *marker.duplicates, *marker.handed_over]
            ),
            files=finding.files,
            quarantine=finding.quarantine,
            superseded=tuple(superseded),
            filtered=0,
        ),
    )


def _of_marker(ledger: Ledger, identity: Identity, bad: DamagedMarker) -> Damage:
    """Of a range without a sound marker, keep the files that the damaged one still describes correctly."""
    if _is_sealed(ledger.marker_path(bad.range, bad.revision)):
        raise bad.error  # it is intact, but of another range or plan: nobody can tell what belongs here
    origin = Origin(identity.topic, identity.topic_id, bad.range, bad.plan_id)
    pattern = f"{origin.stem}*"
    files, quarantine = _read_damaged(ledger.marker_path(bad.range, bad.revision))
    kept = tuple(file for file in files if not check_file(ledger.outdir / file.path, file, origin.footer()))
    if quarantine is not None and check_file(ledger.path / quarantine.path, quarantine, origin.footer()):
        quarantine = None
    paths = [ledger.outdir / file.path for file in kept]
    if quarantine is not None:
        paths.append(ledger.path / quarantine.path)
    superseded = {path.relative_to(ledger.outdir) for path in ledger.outdir.rglob(pattern)}
    superseded |= {path.relative_to(ledger.path) for path in (ledger.path / QUARANTINE_DIRECTORY).glob(pattern)}
    superseded -= {Path(file.path) for file in (*kept, *([quarantine] if quarantine is not None else []))}
    proved = Remainder(
        revision=bad.revision + 1,
        wanted=_rest(bad.range, [interval for path in paths for interval in _intervals(path, bad.range.partition)]),
        files=kept,
        quarantine=quarantine,
        superseded=tuple(sorted(path.as_posix() for path in superseded)),
    )
    return Damage(bad.plan_id, bad.range, proved, _with_readable(ledger, proved, origin))


def _with_readable(ledger: Ledger, proved: Remainder, origin: Origin) -> Remainder:
    """Also keep the files that no marker vouches for, where they can be read and hold only wanted offsets."""
    rest = proved
    # Files of later revisions first.
    for name in sorted(proved.superseded, key=lambda name: (len(PurePosixPath(name).name), name), reverse=True):
        is_aside = PurePosixPath(name).parts[0] == QUARANTINE_DIRECTORY
        path = (ledger.path if is_aside else ledger.outdir) / name
        try:
            file, intervals = _read_file(path, name, origin), _intervals(path, origin.range.partition)
        except (*UNREADABLE, LedgerError, SchemaError):
            continue
        is_new = not subtract(intervals, rest.wanted)
        if not is_new or (is_aside and rest.quarantine is not None):
            continue
        rest = replace(
            rest,
            wanted=tuple(subtract(rest.wanted, intervals)),
            files=rest.files if is_aside else (*rest.files, file),
            quarantine=file if is_aside else rest.quarantine,
            superseded=tuple(other for other in rest.superseded if other != name),
        )
    return rest


def _read_file(path: Path, name: str, origin: Origin) -> DataFile:
    """Describe a file as it is, after reading all of it.

    Raises LedgerError if its footer says that it is of something else.
    """
    its_format = format_of(path)
    if problems := check_footer(path, contents := its_format.read_contents(path), origin.footer()):
        raise LedgerError(problems[0])
    its_format.read_through(path)
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return DataFile(name, path.name, contents.rows, path.stat().st_size, digest)


def _is_sealed(path: Path) -> bool:
    try:
        unseal("marker", path)
    except (LedgerError, OSError):
        return False
    return True


def _read_damaged(path: Path) -> tuple[list[DataFile], DataFile | None]:
    """Read what a damaged marker says about its files; no damage makes a hash that fits a file by chance."""
    try:
        with path.open("rb") as file:
            content: Mapping[str, Any] = json.loads(file.read(_MAX_MARKER_BYTES))["marker"]
        quarantine = content["quarantine"]
        return (
            [DataFile(**file) for file in content["files"]],
            None if quarantine is None else DataFile(**quarantine),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, LedgerError):
        return [], None


def _intervals(path: Path, partition: int) -> list[Interval]:
    """List the offsets of a partition whose rows are in a file."""
    partitions, offsets = format_of(path).read_places(path)
    return intervals_of(np.sort(offsets[partitions == partition]))


def _rest(offset_range: OffsetRange, taken: list[Interval]) -> tuple[Interval, ...]:
    return tuple(merge(subtract([(offset_range.start, offset_range.end)], taken)))
