"""What a compaction has done so far, in the staging directory of the new ledger; complete, it becomes the dataset.

::

    staging/<compaction>/
      <group>-<nonce>.parquet     the file of a group
      group-<group>.json          says that it is complete, and whose rows are in it
      assembled-<nonce>/dataset/ quarantine/ markers/ plans/    the dataset and its ledger
      ready.json                  says which of these is complete

The four directories are renamed into their places, the plans last: before that rename there is no new dataset, after it
there is all of it. On an object store they are copied, and of the plans the first one last: a ledger that lacks it is
refused. A job that stood still for so long that another one has taken over may wake at any moment: it has an
assembly of its own, and can't take anything out of the other's.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from fink_dask.compaction.groups import Compaction, Group
from fink_dask.compaction.merge import Merged
from fink_dask.dataset.schema_versions import copy_versions
from fink_dask.errors import LedgerError, StorageError
from fink_dask.kafka.offsets import Interval, OffsetRange, merge, total
from fink_dask.ledger.commit import Step
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.outdir import directories_above
from fink_dask.ledger.records import DataFile, Marker, Plan, seal, unseal
from fink_dask.store.local import LOCAL, directories_down_to, has_size
from fink_dask.store.location import store_of
from fink_dask.store.newfile import NewFile
from fink_dask.units import pluralize

_ASSEMBLY = re.compile(r"assembled-[0-9a-f]{32}")


class Workspace:
    """The staging directory of one compaction."""

    def __init__(self, target: Ledger, compaction: Compaction, step: Step = lambda _: None) -> None:
        self._target = target
        self._store = target.store
        # What it is made of.
        self._compaction = compaction
        # Told the name of each step; tests end the process there.
        self._step = step
        self.path = target.staging_path / compaction.compaction_id
        # Where files are written.
        self._scratch = self.path
        self._ready = self.path / "ready.json"

    def begin(self) -> None:
        """Make the directory."""
        self._store.make_directory(self.path)
        self._store.remove_unfinished(self.path)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Have a place where files are written."""
        self._scratch = self._store.scratch(self.path)
        try:
            yield
        finally:
            if self._scratch != self.path:
                LOCAL.remove_tree(self._scratch)

    def is_ready(self) -> bool:
        """Tell whether everything but the renames is done."""
        return self._ready.exists()

    def new_file(self, group: Group) -> Path:
        """Name the file of a group; nobody else has the name."""
        return self._scratch / f"{group.number:06d}-{uuid.uuid4().hex[:8]}.parquet"

    def persist(self, file: NewFile, should_stop: Callable[[], bool]) -> None:
        """Bring the file of a group to the disk, or to the store."""
        self._store.persist([file], self.path, should_stop)
        self._store.sync(self.path)

    def merged(self, group: Group) -> Merged | None:
        """Return what has become of a group, or None where it is not complete, or what says so is damaged."""
        try:
            content = unseal("group", self._document(group.number))
            file = None if content["file"] is None else DataFile(**content["file"])
            rows = {OffsetRange(*offset_range): int(count) for *offset_range, count in content["rows"]}
            left_out = {
                OffsetRange(*offset_range): [(int(start), int(end)) for start, end in intervals]
                for *offset_range, intervals in content["left_out"]
            }
        except (FileNotFoundError, LedgerError, KeyError, TypeError, ValueError):
            return None
        return Merged(file, rows, left_out) if file is None or has_size(self.path, file.staged, file.size) else None

    def complete(self, group: Group, merged: Merged) -> None:
        """Say that a group is complete; its file is on the disk.

        Raises StorageError if it is not there: whoever wrote it sees another directory under this name.
        """
        if merged.file is not None and not has_size(self.path, merged.file.staged, merged.file.size):
            raise StorageError(f"a worker has written {self.path / merged.file.staged}, and it is not there")
        content = {
            "file": None if merged.file is None else asdict(merged.file),
            "rows": [[*asdict(offset_range).values(), rows] for offset_range, rows in merged.rows.items()],
            "left_out": [
                [*asdict(offset_range).values(), intervals] for offset_range, intervals in merged.left_out.items()
            ],
        }
        document = self._document(group.number)
        document.unlink(missing_ok=True)  # of a file that is gone
        self._store.put_new(document, seal("group", content))
        self._step("group")

    def assemble(self, source: Ledger, plans: Sequence[Plan], markers: Sequence[Marker], merged: list[Merged]) -> None:
        """Put the new dataset and its ledger together.

        Raises LedgerError if a file of the old dataset's quarantine is not what was written, or rows are missing.
        """
        assembly = self.path / f"assembled-{uuid.uuid4().hex}"
        quarantine, ledger_markers, dataset, ledger_plans = (staged for staged, _ in self._moves(assembly.name))
        for directory in (quarantine, ledger_markers, dataset, ledger_plans):
            self._store.make_directory(directory)
        touched = {quarantine, ledger_markers, dataset, ledger_plans, assembly, self.path}

        def share(file: DataFile) -> None:
            self._store.make_directory_of(dataset, file.path)
            self._store.share(self.path / file.staged, dataset / file.path)

        def write(marker: Marker) -> None:
            name = self._target.marker_path(marker.range, marker.revision).name
            self._store.write_new(ledger_markers / name, marker.sealed())
            if marker.quarantine is not None:
                _copy(source.path, marker.quarantine, quarantine)

        for file, _ in self._store.for_each(share, [one.file for one in merged if one.file is not None]):
            touched.update(directories_down_to(dataset, file.path))
        self._step("dataset")
        for _ in self._store.for_each(write, _new_markers(markers, merged, self._compaction)):
            pass
        copy_versions(source, self._target, plans[-1].identity)
        for plan in plans:
            self._store.write_new(ledger_plans / self._target.plan_path(plan).name, seal("plan", plan.to_json()))
        for directory in touched:
            self._store.sync(directory)
        self._step("assembled")
        # Where another job has said so first, its assembly is the one.
        self._store.put_new(self._ready, seal("ready", {"assembly": assembly.name}))
        self._step("ready")

    def publish(self) -> None:
        """Rename what was assembled into its place; repeatable, also after a kill whose traces a power cut may undo.

        Raises LedgerError if what says which assembly is complete is damaged.
        """
        name = str(unseal("ready", self._ready).get("assembly"))
        if not _ASSEMBLY.fullmatch(name):
            raise LedgerError(f"{self._ready} is damaged")
        # A run that was killed may have made them without bringing them to the disk.
        for directory in directories_above(self._target):
            self._store.sync(directory)
        for staged, final in self._moves(name):
            self._store.move_tree(staged, final)  # or an earlier run has
            if not self._store.is_there(final):
                raise LedgerError(f"{final} is neither there nor staged: remove {self._target.path}, and compact again")
            self._store.sync(final.parent)
            if staged.parent.exists():  # it goes when all is done
                self._store.sync(staged.parent)
            self._step(f"renamed {final.name}")
        if not self._target.exists():
            raise LedgerError(f"{self._target.plans_path} is not there: remove {self._target.path}, and compact again")
        self.remove()

    def remove(self) -> None:
        """Remove what is no longer of use."""
        self._store.remove_tree(self.path)

    def _moves(self, assembly: str) -> tuple[tuple[Path, Path], ...]:
        """Say what is renamed and where to, in this order: without its plans a ledger is none."""
        staged = self.path / assembly
        return (
            (staged / "quarantine", self._target.quarantine_path),
            (staged / "markers", self._target.markers_path),
            (staged / "dataset", self._target.outdir),
            (staged / "plans", self._target.plans_path),
        )

    def _document(self, number: int) -> Path:
        return self.path / f"group-{number:06d}.json"


def read_compaction(ledger: Ledger) -> Compaction | None:
    """Read what a dataset was compacted from, or is being; None for one that was transferred.

    Raises LedgerError if that can't be read.
    """
    try:
        return Compaction.from_json(unseal("compaction", ledger.compaction_path))
    except FileNotFoundError:
        return None


def is_settled(ledger: Ledger) -> bool:
    """Tell whether a compaction is complete, or lacks nothing but the renames."""
    begun = read_compaction(ledger)
    return begun is not None and (ledger.exists() or Workspace(ledger, begun).is_ready())


def _new_markers(markers: Sequence[Marker], merged: Sequence[Merged], compaction: Compaction) -> list[Marker]:
    """Say of each range where its rows are now."""
    shares: dict[OffsetRange, list[DataFile]] = {}
    left_out: dict[OffsetRange, list[Interval]] = {}
    for one in merged:
        for offset_range, intervals in one.left_out.items():
            left_out.setdefault(offset_range, []).extend(intervals)
        for offset_range, rows in one.rows.items():
            assert one.file is not None
            shares.setdefault(offset_range, []).append(replace(one.file, rows=rows))
    new = []
    for marker in markers:
        files = tuple(sorted(shares.get(marker.range, []), key=lambda file: file.path))
        rows, duplicates = sum(file.rows for file in files), merge(left_out.get(marker.range, []))
        if rows + total(duplicates) != marker.rows:
            words = (
                f"files hold {pluralize(rows + total(duplicates), 'row')} of it, but its marker says {marker.rows:,}"
            )
            raise LedgerError(f"range {marker.range.name}: {words}; fink-dask verify says more")
        new.append(
            replace(
                marker,
                attempt=compaction.compaction_id,
                rows=rows,
                files=files,
                # The revision stays: the quarantine file has the name that it gave, and the next one must have another.
                superseded=(),
                duplicates=tuple(merge((*marker.duplicates, *duplicates))),
            )
        )
    return new


def _copy(source: Path, file: DataFile, directory: Path) -> None:
    """Copy a quarantine file, if it is what was written."""
    content = (source / file.path).read_bytes()
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise LedgerError(
            f"{source / file.path}: its content is not what was written: fink-dask repair fetches it again"
        )
    store_of(directory).write_new(directory / Path(file.path).name, content)
