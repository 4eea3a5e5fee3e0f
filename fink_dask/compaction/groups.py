"""What a compaction is made of: the state of a dataset, and the groups of files that become one each. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from fink_dask.errors import LedgerError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.kafka.topics import topic_hash
from fink_dask.ledger.records import DataFile, Marker, Plan, checksum
from fink_dask.settings import COMPRESSION

#: About the bytes of a compacted file: large enough that opening it costs nothing, small enough for one core to read.
FILE_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Form:
    """What is asked of a compaction."""

    #: About how many bytes a file has.
    file_bytes: int = FILE_BYTES
    #: The column by which alerts that the producer has sent twice are left out.
    unique: str | None = None
    #: Codec of the files; see `write_options`.
    compression: str = COMPRESSION


@dataclass(frozen=True)
class Compaction:
    """What is compacted, and how; the ledger keeps it."""

    #: Path of the dataset.
    source: str
    #: Hash of its plans and markers.
    snapshot: str
    #: What is asked for.
    form: Form
    #: Hashes of what other topics hold, whose alerts this one does not get again.
    others: tuple[str, ...] = ()

    @cached_property
    def compaction_id(self) -> str:
        """16 hex digits that follow from what is compacted and how: the same compaction gives the same names."""
        others = {"others": self.others} if self.others else {}
        return checksum({"snapshot": self.snapshot, "form": asdict(self.form)} | others)[:16]

    def file_name(self, topic: str, number: int) -> str:
        """Name the file of a group."""
        return f"part-{topic_hash(topic)}-compacted-{self.compaction_id[:8]}-{number:06d}.parquet"

    def footer(self, plan: Plan) -> dict[str, str]:
        """Return the key-value metadata of the files; see `SHARED_FOOTER`."""
        return {
            "fink_dask.topic": plan.identity.topic,
            "fink_dask.topic_id": plan.identity.topic_id,
            "fink_dask.compaction": self.compaction_id,
        }

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Compaction:
        """Read it from JSON.

        Raises LedgerError if something is missing or of another type.
        """
        try:
            form = content["form"]
            unique = form["unique"]
            return cls(
                source=str(content["source"]),
                snapshot=str(content["snapshot"]),
                form=Form(int(form["file_bytes"]), None if unique is None else str(unique), str(form["compression"])),
                others=tuple(map(str, content.get("others", ()))),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise LedgerError(f"the ledger's compaction can't be read: {error}") from error


@dataclass(frozen=True)
class Group:
    """Files of one partition key that become one file."""

    number: int
    #: The directory of the partition key; empty without partition columns.
    directory: str
    #: The files, in the order of their ranges.
    sources: tuple[DataFile, ...]


def snapshot_of(plans: Sequence[Plan], markers: Sequence[Marker]) -> str:
    """Hash what a dataset holds."""
    return checksum({"plans": [plan.plan_id for plan in plans], "markers": [marker.to_json() for marker in markers]})


def make_groups(markers: Iterable[Marker], file_bytes: int) -> list[Group]:
    """Gather the files of each partition key into groups of at most `file_bytes`, unless a single file is larger."""
    by_directory: dict[str, dict[str, DataFile]] = {}
    for marker in sorted(markers, key=lambda marker: marker.range):
        for file in marker.files:
            parent = PurePosixPath(file.path).parent.as_posix()
            by_directory.setdefault("" if parent == "." else parent, {}).setdefault(file.path, file)
    groups: list[Group] = []
    for directory, files in sorted(by_directory.items()):
        chosen: list[DataFile] = []
        size = 0
        for file in files.values():
            if chosen and size + file.size > file_bytes:
                groups.append(Group(len(groups), directory, tuple(chosen)))
                chosen, size = [], 0
            chosen.append(file)
            size += file.size
        groups.append(Group(len(groups), directory, tuple(chosen)))
    return groups


class RangeIndex:
    """Finds the range of each row."""

    def __init__(self, ranges: Iterable[OffsetRange]) -> None:
        # Ranges that do not overlap.
        self._ranges: dict[int, list[OffsetRange]] = {}
        for offset_range in sorted(ranges):
            self._ranges.setdefault(offset_range.partition, []).append(offset_range)
        self._starts = {
            partition: np.array([offset_range.start for offset_range in ranges], np.int64)
            for partition, ranges in self._ranges.items()
        }

    def split(
        self, partitions: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64]
    ) -> dict[OffsetRange, npt.NDArray[np.int64]]:
        """Return the offsets of the rows of each range, in order.

        Raises LedgerError if a row is of none of them.
        """
        found: dict[OffsetRange, npt.NDArray[np.int64]] = {}
        for partition in np.unique(partitions).tolist():
            mine = np.sort(offsets[partitions == partition])
            ranges = self._ranges.get(partition, [])
            places = np.searchsorted(self._starts.get(partition, np.empty(0, np.int64)), mine, side="right") - 1
            for place in np.unique(places).tolist():
                offset_range, inside = ranges[place] if place >= 0 else None, mine[places == place]
                if offset_range is None or int(inside[-1]) >= offset_range.end:
                    raise LedgerError(f"rows of partition {partition} are in no range that the ledger knows")
                found[offset_range] = inside
        return found
