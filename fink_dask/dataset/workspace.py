"""What a compaction has done so far, in the staging directory of the new ledger; complete, it becomes the dataset.

::

    staging/<compaction>/
      <group>-<nonce>.parquet     the file of a group
      group-<group>.json          says that it is complete, and whose rows are in it
      dataset/ quarantine/ markers/ plans/    the dataset and its ledger, once all groups are complete
      ready.json                  says that these are complete

The four directories are renamed into their places, the plans last: before that rename there is no new dataset, after it
there is all of it.
"""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from fink_dask.dataset.compaction import Compaction, Group
from fink_dask.dataset.documents import seal, unseal
from fink_dask.dataset.durable import (
    has_size,
    make_directory,
    prepare_directory,
    publish_file,
    sync_directory,
    write_file,
)
from fink_dask.dataset.ledger import Ledger
from fink_dask.dataset.merge import Merged
from fink_dask.dataset.records import DataFile, Marker, Plan
from fink_dask.errors import LedgerError
from fink_dask.kafka.offsets import Range

Step = Callable[[str], None]


class Workspace:
    """The staging directory of one compaction.

    Parameters
    ----------
    target : Ledger
        The new dataset.
    compaction : Compaction
        What it is made of.
    step : callable
        Told the name of each step; tests end the process there.
    """

    def __init__(self, target: Ledger, compaction: Compaction, step: Step = lambda _: None) -> None:
        self._target = target
        self._compaction = compaction
        self._step = step
        self.path = target.staging_path / compaction.compaction_id
        self._ready = self.path / "ready.json"
        # In the order in which they are renamed: without its plans a ledger is none.
        self._moves = (
            (self.path / "quarantine", target.quarantine_path),
            (self.path / "markers", target.markers_path),
            (self.path / "dataset", target.outdir),
            (self.path / "plans", target.plans_path),
        )

    def begin(self) -> None:
        """Make the directory."""
        make_directory(self.path)

    def is_ready(self) -> bool:
        """Tell whether all is done but the renames."""
        return self._ready.exists()

    def new_file(self, group: Group) -> Path:
        """Name the file of a group; nobody else has the name."""
        return self.path / f"{group.number:06d}-{uuid.uuid4().hex[:8]}.parquet"

    def merged(self, group: Group) -> Merged | None:
        """Return what has become of a group, or None where it is not complete."""
        try:
            content = unseal("group", self._document(group.number))
        except FileNotFoundError:
            return None
        file = None if content["file"] is None else DataFile(**content["file"])
        counts = ({Range(*range_): rows for *range_, rows in content[name]} for name in ("rows", "left_out"))
        merged = Merged(file, *counts)
        return merged if file is None or self._is_there(file) else None

    def complete(self, group: Group, merged: Merged) -> None:
        """Say that a group is complete; its file is on the disk."""
        sync_directory(self.path)
        content = {
            "file": None if merged.file is None else asdict(merged.file),
            "rows": [[*asdict(range_).values(), rows] for range_, rows in merged.rows.items()],
            "left_out": [[*asdict(range_).values(), rows] for range_, rows in merged.left_out.items()],
        }
        document = self._document(group.number)
        document.unlink(missing_ok=True)  # of a file that is gone
        publish_file(document.with_name(f".{document.name}-{uuid.uuid4().hex}"), document, seal("group", content))
        self._step("group")

    def assemble(self, source: Ledger, plans: Sequence[Plan], markers: Sequence[Marker], merged: list[Merged]) -> None:
        """Put the new dataset and its ledger together.

        Raises
        ------
        LedgerError
            If a file of the old dataset's quarantine is not what was written, or rows are missing.
        """
        quarantine, ledger_markers, dataset, ledger_plans = (staged for staged, _ in self._moves)
        for directory in (quarantine, ledger_markers, ledger_plans):
            shutil.rmtree(directory, ignore_errors=True)
        for directory in (quarantine, ledger_markers, dataset, ledger_plans):
            make_directory(directory)
        touched = {dataset}
        for one in merged:
            if one.file is None:
                continue
            prepare_directory(dataset, one.file.path)
            if not has_size(dataset / one.file.path, one.file.size):
                (self.path / one.file.staged).rename(dataset / one.file.path)
            touched.add((dataset / one.file.path).parent)
        self._step("dataset")
        for marker in _new_markers(markers, merged, self._compaction):
            write_file(ledger_markers / self._target.marker_path(marker.range).name, seal("marker", marker.to_json()))
            if marker.quarantine is not None:
                _copy(source.path, marker.quarantine, quarantine)
        for plan in plans:
            self._target.restore_schema(plan.identity, source.schema(plan.identity))
            write_file(ledger_plans / self._target.plan_path(plan).name, seal("plan", plan.to_json()))
        for directory in (*touched, quarantine, ledger_markers, ledger_plans, self.path):
            sync_directory(directory)
        self._step("assembled")
        publish_file(self.path / f".ready-{uuid.uuid4().hex}", self._ready, seal("ready", {}))
        self._step("ready")

    def publish(self) -> None:
        """Rename what was assembled into its place; repeatable."""
        for staged, final in self._moves:
            if staged.exists():
                staged.rename(final)
                sync_directory(final.parent)
                sync_directory(self.path)
            self._step(f"renamed {final.name}")
        shutil.rmtree(self.path, ignore_errors=True)

    def _document(self, number: int) -> Path:
        return self.path / f"group-{number:06d}.json"

    def _is_there(self, file: DataFile) -> bool:
        return has_size(self.path / file.staged, file.size) or has_size(self.path / "dataset" / file.path, file.size)


def _new_markers(markers: Sequence[Marker], merged: Sequence[Merged], compaction: Compaction) -> list[Marker]:
    """Say of each range where its rows are now."""
    shares: dict[Range, list[DataFile]] = {}
    left_out: Counter[Range] = Counter()
    for one in merged:
        left_out.update(one.left_out)
        for range_, rows in one.rows.items():
            assert one.file is not None
            shares.setdefault(range_, []).append(replace(one.file, rows=rows))
    new = []
    for marker in markers:
        files = tuple(sorted(shares.get(marker.range, []), key=lambda file: file.path))
        rows, duplicates = sum(file.rows for file in files), left_out[marker.range]
        if rows + duplicates != marker.rows:
            words = f"its files hold {rows + duplicates:,} rows of it, but its marker says {marker.rows:,}"
            raise LedgerError(f"range {marker.range.name}: {words}; fink-dask verify says more")
        new.append(
            replace(
                marker,
                attempt=compaction.compaction_id,
                rows=rows,
                files=files,
                revision=0,
                superseded=(),
                duplicates=marker.duplicates + duplicates,
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
    write_file(directory / Path(file.path).name, content)
