"""Compact: write a dataset of many small files once more, as a new one of few, and leave the old one untouched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from fink_dask.avro.schema import field_type
from fink_dask.compaction.groups import Compaction, Form, Group, RangeIndex, make_groups, snapshot_of
from fink_dask.compaction.merge import (
    Duplicates,
    Elsewhere,
    Merged,
    Merging,
    check_identifier,
    check_source,
    find_duplicates,
)
from fink_dask.compaction.task import Merger, MergeTask, Watcher
from fink_dask.compaction.workspace import Workspace, is_settled, read_compaction
from fink_dask.dataset.formats import why_unreadable
from fink_dask.dataset.presence import check_files
from fink_dask.dataset.schema_versions import check_is_parquet, dataset_schema
from fink_dask.errors import LedgerError, SettingsError, StorageError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.ledger.commit import Step, published
from fink_dask.ledger.lease import Lease, hold_lease, is_held
from fink_dask.ledger.ledger import Ledger, storage_error
from fink_dask.ledger.outdir import check_dataset, check_outdir, free_bytes
from fink_dask.ledger.records import Marker, Plan, seal
from fink_dask.ledger.summary import Summary, summarise
from fink_dask.units import format_bytes, pluralize

#: The share of duplicates beyond which the identifier is in doubt.
_MANY = 0.2


@dataclass(frozen=True)
class Compacted:
    """What a compaction has come to."""

    #: What the new dataset holds.
    summary: Summary
    #: Files that it was made of.
    files_before: int
    #: Whether this run has done anything.
    is_new: bool


@dataclass(frozen=True)
class Caller:
    """What a compaction tells, and asks, while it runs."""

    note: Callable[[str], None] = lambda _: None
    #: Is told how many bytes there are to read.
    plan: Callable[[int], None] = lambda _: None
    #: Is told the bytes that were read, by several threads.
    advance: Callable[[int], None] = lambda _: None
    #: Is told the name of each step; tests kill the process there.
    step: Step = lambda _: None


def compact_dataset(
    source: Ledger, target: Ledger, form: Form, merger: Merger, caller: Caller, elsewhere: Elsewhere | None = None
) -> Compacted:
    """Compact a dataset, or go on with it.

    `form`: what the new one is to be like.
    `merger`: what writes the files of the new one.
    `elsewhere`: alerts that it does not get, as other topics of its season hold them.
    Raises FinkDaskError if the dataset is not whole, there is already another one in place of the new one, or the file
    system refuses. What was done is kept, and the same call goes on from there.
    """
    check_dataset(source)
    check_is_parquet(source, "compact")
    if is_held(source):
        raise LedgerError(f"a transfer into {source.outdir} is running: compact it when it has ended")
    if target.outdir == source.outdir:
        raise SettingsError("the new dataset needs a directory of its own: the old one is left untouched")
    try:
        plans = source.plans()
        markers = source.markers(plans)
        check_files(source, plans, markers)
        if len(published(source, markers)) < len(markers):
            raise LedgerError(
                f"{source.outdir} lacks files that are committed: run its transfer again, then compact it"
            )
        others = () if elsewhere is None else elsewhere.snapshots
        compaction = Compaction(str(source.outdir), snapshot_of(plans, markers), form, others)
        before = len({file.path for marker in markers for file in marker.files})
        if not target.exists() and not target.compaction_path.exists():
            check_outdir(target)
        begun = read_compaction(target)
        if begun is not None and is_settled(target):
            compaction = replace(compaction, others=begun.others)
        job = _Job(source, target, plans, markers, compaction, merger, caller, elsewhere)
        is_new = not target.exists()
        if is_new:
            job.check()
        if is_new or Workspace(target, compaction).path.exists():
            for directory in (target.path, target.outdir.parent):
                target.store.make_directory(directory)
            with hold_lease(target) as lease:
                job.run(lease)
        _check_result(target, compaction)
        return Compacted(summarise(target).summary, before, is_new)
    except OSError as error:
        raise storage_error(error, target.path) from error
    except pa.ArrowException as error:
        raise LedgerError(f"the files of {source.outdir} can't be merged: {why_unreadable(error)}") from error


class _Job:
    """One run of a compaction."""

    def __init__(
        self,
        source: Ledger,
        target: Ledger,
        plans: Sequence[Plan],
        markers: Sequence[Marker],
        compaction: Compaction,
        merger: Merger,
        caller: Caller,
        elsewhere: Elsewhere | None,
    ) -> None:
        self._source = source
        self._target = target
        self._plans = plans
        self._markers = markers
        self._compaction = compaction
        self._merger = merger
        self._caller = caller
        self._elsewhere = elsewhere
        self._groups = make_groups(markers, compaction.form.file_bytes)

    def check(self) -> None:
        """Refuse what can't be done, before anything is written.

        Raises SettingsError if the column that is to be unique is not one.
        Raises StorageError if the new dataset can't be renamed into its place.
        """
        outdir, ledger = self._target.outdir, self._target.path
        if self._target.store.renames and outdir.is_mount():
            raise StorageError(f"{outdir} is the top of a file system: choose a directory in it")
        if ledger.exists() and not self._target.store.are_together(ledger, outdir.parent):
            raise StorageError(f"{outdir} and its ledger {ledger} are on two file systems")
        if not self._target.compaction_path.exists() and outdir.exists() and any(outdir.iterdir()):
            raise StorageError(f"{outdir} is not empty: remove what is in it, or choose another directory")
        if self._compaction.form.unique is not None and self._groups:
            check_identifier(dataset_schema(self._source), self._compaction.form.unique)

    def run(self, lease: Lease) -> None:
        """Do what is left to do; the caller holds the lease on the new ledger."""
        begun = read_compaction(self._target)
        if begun is not None:
            workspace = Workspace(self._target, begun, self._caller.step)
            if workspace.is_ready():
                self._caller.note("an earlier run was all but done: completed")
                workspace.publish()
                return
            if self._target.exists():  # only what is of no use any more was left
                workspace.remove()
                return
            if begun.compaction_id != self._compaction.compaction_id:
                self._caller.note("begun anew: the dataset has changed since, or the new one is to be another")
                workspace.remove()
                self._target.compaction_path.unlink()
        elif self._target.exists():
            raise StorageError(
                f"another job has just made a dataset in {self._target.outdir}: choose another directory"
            )
        workspace = Workspace(self._target, self._compaction, self._caller.step)
        workspace.begin()
        self._target.store.put_new(self._target.compaction_path, seal("compaction", self._compaction.to_json()))
        self._caller.step("begun")
        found = ((group.number, workspace.merged(group)) for group in self._groups)
        done = {number: merged for number, merged in found if merged is not None}
        self._merge([group for group in self._groups if group.number not in done], workspace, done, lease)
        lease.check()
        workspace.assemble(self._source, self._plans, self._markers, [done[group.number] for group in self._groups])
        lease.check()
        workspace.publish()

    def _merge(self, groups: list[Group], workspace: Workspace, done: dict[int, Merged], lease: Lease) -> None:
        """Merge groups; `done` has those that were complete before, and takes the others."""
        if not groups:
            return
        size = sum(file.size for group in groups for file in group.sources)
        self._check_space(size)
        self._caller.plan(size)

        def complete(task: MergeTask, merged: Merged) -> None:
            done[task.group.number] = merged
            workspace.complete(task.group, merged)

        self._merger(self._tasks(groups), Watcher(complete, self._caller.advance, lease.check))

    def _tasks(self, groups: list[Group]) -> list[MergeTask]:
        schema = dataset_schema(self._source)
        footer, compression = self._compaction.footer(self._plans[-1]), self._compaction.form.compression
        duplicates = self._find_duplicates(schema)
        ranges_of: dict[str, set[OffsetRange]] = {}
        for marker in self._markers:
            for file in marker.files:
                ranges_of.setdefault(file.path, set()).add(marker.range)
        tasks = []
        for group in groups:
            # Of all ranges, and all duplicates, only its own: they are sent with it.
            ranges = set().union(*(ranges_of[file.path] for file in group.sources))
            index, left_out = RangeIndex(ranges), duplicates.among(ranges)
            merging = Merging(self._source.outdir, schema, index, left_out, footer, compression)
            name = self._compaction.file_name(self._plans[0].identity.topic, group.number)
            final = f"{group.directory}/{name}" if group.directory else name
            tasks.append(MergeTask(group, merging, self._target, self._compaction, final))
        return tasks

    def _find_duplicates(self, schema: pa.Schema) -> Duplicates:
        unique = self._compaction.form.unique
        if unique is None:
            return Duplicates()
        files = [file for group in self._groups for file in group.sources]
        self._caller.note(f"looking for alerts with the same {unique} in {pluralize(len(files), 'file')}")
        for file in files:
            # A file that has gone bad since its group was complete must not decide which alert stays.
            check_source(self._source.outdir, file)
        kind = field_type(schema, unique)
        known = None if self._elsewhere is None else self._elsewhere.ids(kind)
        found = find_duplicates([self._source.outdir / file.path for file in files], unique, kind, known)
        alerts = sum(marker.rows for marker in self._markers)
        if found.within > _MANY * alerts:
            words = f"{found.within:,} of {alerts:,} alerts have the same {unique} as another one"
            self._caller.note(f"warning: {words}: is that what tells alerts apart?")
        return found

    def _check_space(self, size: int) -> None:
        free = free_bytes(self._target.path)
        if free is not None and free < size:
            raise StorageError(
                f"{self._target.path.parent} has {format_bytes(free)} free, and the new dataset needs up to "
                f"{format_bytes(size)}: make room there, or choose another directory"
            )


def _check_result(target: Ledger, compaction: Compaction) -> None:
    """Refuse to take for the result a dataset that was there before, and is made of something else."""
    found = read_compaction(target)
    if found is None:
        raise StorageError(f"{target.outdir} is a dataset that was transferred: choose another directory")
    if found.compaction_id != compaction.compaction_id:
        raise StorageError(
            f"{target.outdir} was compacted from {found.source} as it was, or with other options: choose another "
            "directory, or remove it and its ledger"
        )
