"""Merge the files of a group into one, whose rows are those of the files in their order.

Alerts that a producer has sent more than once are found first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fink_dask.avro.schema import field_type
from fink_dask.avro.spelling import steps_to
from fink_dask.compaction.groups import Group, RangeIndex, snapshot_of
from fink_dask.dataset.encoding import ParquetFileWriter
from fink_dask.dataset.formats import KAFKA_FIELDS, Offsets
from fink_dask.dataset.presence import check_file, intervals_of
from fink_dask.errors import InterruptedTransferError, LedgerError, SettingsError
from fink_dask.kafka.offsets import Interval, OffsetRange
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.records import DataFile
from fink_dask.settings import BUFFER_BYTES
from fink_dask.store.location import store_of
from fink_dask.store.newfile import NewFile

Places = npt.NDArray[np.int64]
_NONE: Places = np.empty(0, np.int64)


class Duplicates:
    """The rows that are left out: all of an identifier but the first one, by partition and offset."""

    def __init__(self, offsets: dict[int, Places] | None = None, within: int = 0) -> None:
        # Their offsets in each partition, in order.
        self._offsets = offsets or {}
        #: How many are left out because of another row of the same files.
        self.within = within

    def __len__(self) -> int:
        return sum(map(len, self._offsets.values()))

    def is_kept(self, partitions: npt.NDArray[np.int32], offsets: Places) -> npt.NDArray[np.bool_]:
        """Tell of each row whether it stays."""
        kept = np.ones(len(offsets), np.bool_)
        for partition, dropped in self._offsets.items():
            mine = partitions == partition
            if mine.any():
                wanted = offsets[mine]
                nearest = np.minimum(np.searchsorted(dropped, wanted), len(dropped) - 1)
                kept[mine] = dropped[nearest] != wanted
        return kept

    def among(self, ranges: Iterable[OffsetRange]) -> Duplicates:
        """Return those in some ranges."""
        found: dict[int, list[Places]] = {}
        for offset_range in sorted(ranges):
            offsets = self._offsets.get(offset_range.partition, _NONE)
            first, last = np.searchsorted(offsets, (offset_range.start, offset_range.end))
            if first < last:
                found.setdefault(offset_range.partition, []).append(offsets[first:last])
        return Duplicates({partition: np.concatenate(offsets) for partition, offsets in found.items()})


class Elsewhere:
    """The identifiers of the alerts that other topics of a season hold."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._unread: list[Path] = []
        self._ids: pa.Array | None = None
        #: Hashes of what these topics hold.
        self.snapshots: tuple[str, ...] = ()

    def add(self, ledger: Ledger) -> None:
        """Add the dataset of a topic."""
        plans = ledger.plans()
        markers = ledger.markers(plans)
        self.snapshots = tuple(sorted((*self.snapshots, snapshot_of(plans, markers))))
        self._unread += [ledger.outdir / path for path in sorted({each.path for one in markers for each in one.files})]

    def ids(self, kind: pa.DataType) -> pa.Array:
        """Return each identifier once: 8 bytes an alert, more for text."""
        tables = [_identifiers(path, self._name, kind) for path in self._unread]
        known = [] if self._ids is None else [self._ids]
        found = pa.chunked_array([*known, *(chunk for table in tables for chunk in table["id"].chunks)], kind)
        self._ids, self._unread = found.unique().drop_null(), []
        return self._ids


def check_identifier(schema: pa.Schema, name: str) -> None:
    """Refuse a column that can't tell alerts apart.

    Raises SettingsError if the files have no such column or field, or it is neither an integer nor a string.
    """
    kind = field_type(schema, name)
    if kind is None:
        raise SettingsError(f"--unique {name[:80]}: the files of this dataset have no such column")
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind)):
        raise SettingsError(f"--unique {name[:80]}: integers and strings tell alerts apart, not {str(kind)[:80]}")


def find_duplicates(
    paths: Sequence[Path], name: str, kind: pa.DataType, elsewhere: pa.Array | None = None
) -> Duplicates:
    """Find the rows of files whose identifier an earlier row has; those without an identifier are all kept.

    Holds identifier, partition and offset of all rows, and an order of them: about 90 bytes an alert, more for text.

    `name`: column, or dotted field of a struct; a file without it has alerts without an identifier.
    `kind`: type of the column in the new dataset.
    `elsewhere`: identifiers of which no row is kept.
    """
    if not paths:
        return Duplicates()
    rows = pa.concat_tables([_identifiers(path, name, kind) for path in paths])
    rows = rows.filter(pc.is_valid(rows["id"]))
    rows = rows.sort_by([(column, "ascending") for column in rows.column_names]).combine_chunks()
    identifiers = rows["id"]
    repeated = np.zeros(len(rows), np.bool_)
    if len(rows):
        repeated[1:] = pc.equal(identifiers[1:], identifiers[:-1]).to_numpy()
    within = int(repeated.sum())
    if elsewhere is not None:
        repeated |= pc.is_in(identifiers, elsewhere).to_numpy()
    partitions = rows["partition"].to_numpy()[repeated]
    offsets = rows["offset"].to_numpy()[repeated]
    return Duplicates(
        {int(partition): np.sort(offsets[partitions == partition]) for partition in np.unique(partitions)}, within
    )


def _identifiers(path: Path, name: str, kind: pa.DataType) -> pa.Table:
    """Read the identifiers of a file, and where its rows are in Kafka; a file without the column has none."""
    places = [field.name for field in KAFKA_FIELDS]
    with _open(path) as parquet:
        if field_type(parquet.schema_arrow, name) is None:
            kinds = zip(("id", "partition", "offset"), (kind, *(field.type for field in KAFKA_FIELDS)), strict=True)
            return pa.schema(list(kinds)).empty_table()
        table = parquet.read(columns=list(dict.fromkeys([name, *places])))
    column, *fields = steps_to(table.column_names, name)
    identifiers = table[column]
    for field in fields:
        identifiers = pc.struct_field(identifiers, field)
    return pa.table([identifiers.cast(kind), *(table[place] for place in places)], names=["id", "partition", "offset"])


@dataclass(frozen=True)
class Merging:
    """How a group is merged."""

    #: The dataset that the files are of.
    root: Path
    #: The columns of all of them; those that a file lacks are null in its rows.
    schema: pa.Schema
    #: The ranges that the rows of the group are of.
    index: RangeIndex
    #: The rows of these that are left out.
    duplicates: Duplicates
    #: Key-value metadata of the new files.
    footer: Mapping[str, str]
    #: Codec of the new files.
    compression: str


@dataclass(frozen=True)
class Merged:
    """What has become of a group."""

    #: The new file; None where all of its rows are left out.
    file: DataFile | None
    #: Rows of each range in it.
    rows: dict[OffsetRange, int]
    #: Intervals of each range that are left out.
    left_out: dict[OffsetRange, list[Interval]]


def merge_group(
    group: Group,
    merging: Merging,
    path: Path,
    final: str,
    should_stop: Callable[[], bool],
    advance: Callable[[int], None],
    persist: Callable[[NewFile], None],
) -> Merged:
    """Write the file of a group, and bring it to the disk.

    Holds a row group of a file and `BUFFER_BYTES` of rows at a time.

    `path`: where to write to; nothing is left there if all rows are left out.
    `final`: where the file belongs in the new dataset.
    `should_stop`: asked after each row group; True ends it.
    `advance`: told the bytes of each file that was read.
    `persist`: brings the file to the disk.
    Raises LedgerError if a file is not what was written.
    Raises InterruptedTransferError if `should_stop` said so.
    """
    rows: Counter[OffsetRange] = Counter()
    left_out: dict[OffsetRange, list[Interval]] = {}
    with closing(ParquetFileWriter(path, merging.schema, merging.compression, merging.footer)) as writer:
        waiting: list[pa.Table] = []
        waiting_bytes = 0
        for file in group.sources:
            check_source(merging.root, file)
            with _open(merging.root / file.path) as parquet:
                for number in range(parquet.num_row_groups):
                    if should_stop():
                        raise InterruptedTransferError("stopped")
                    table, kept, dropped = _select(parquet.read_row_group(number, use_threads=False), merging)
                    rows.update({offset_range: len(offsets) for offset_range, offsets in kept.items()})
                    for offset_range, offsets in dropped.items():
                        left_out.setdefault(offset_range, []).extend(intervals_of(offsets))
                    waiting.append(table)
                    waiting_bytes += table.nbytes
                    if waiting_bytes >= BUFFER_BYTES:
                        _flush(writer, waiting)
                        waiting_bytes = 0
            advance(file.size)
        _flush(writer, waiting)
        if not rows.total():
            path.unlink()
            return Merged(None, dict(rows), left_out)
        writer.complete()
        written = writer.file
        persist(written)
    file = DataFile(final, path.name, rows.total(), written.size, written.sha256(), rows.total())
    return Merged(file, dict(rows), left_out)


def check_source(root: Path, file: DataFile) -> None:
    """Compare a file with what was written, so that none that has gone bad gets a new hash.

    Raises LedgerError if it differs.
    """
    if problems := check_file(root / file.path, file, {}):
        raise LedgerError(f"{problems[0]}: fink-dask verify says more, fink-dask repair fetches it again")


def _open(path: Path) -> pq.ParquetFile:
    source = store_of(path).source(path)
    # Of an object, columns that lie together are asked for together.
    return pq.ParquetFile(source, pre_buffer=source is not path)


def _select(
    table: pa.Table, merging: Merging
) -> tuple[pa.Table, dict[OffsetRange, Offsets], dict[OffsetRange, Offsets]]:
    """Give a row group the columns of all; returns the rows that stay, and which of each range stay and don't."""
    partitions, offsets = table["kafka_partition"].to_numpy(), table["kafka_offset"].to_numpy()
    is_kept = merging.duplicates.is_kept(partitions, offsets)
    kept = merging.index.split(partitions[is_kept], offsets[is_kept])
    dropped = merging.index.split(partitions[~is_kept], offsets[~is_kept])
    if dropped:
        table = table.filter(pa.array(is_kept))
    if not table.schema.equals(merging.schema):
        table = pa.concat_tables([merging.schema.empty_table(), table], promote_options="permissive")
    return table, kept, dropped


def _flush(writer: ParquetFileWriter, waiting: list[pa.Table]) -> None:
    """Write what waits as one row group."""
    if any(table.num_rows for table in waiting):
        writer.write_table(pa.concat_tables(waiting))
    waiting.clear()
