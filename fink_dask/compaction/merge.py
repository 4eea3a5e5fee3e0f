"""Merge the files of a group into one, whose rows are those of the files in their order."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fink_dask.compaction.duplicates import Duplicates
from fink_dask.compaction.groups import Group, RangeIndex
from fink_dask.config import BUFFER_BYTES
from fink_dask.dataset.data_format import Offsets
from fink_dask.dataset.parquet_file import write_options
from fink_dask.dataset.places import intervals_of
from fink_dask.dataset.verify import check_file
from fink_dask.errors import InterruptedTransferError, LedgerError
from fink_dask.kafka.offsets import Interval, Range
from fink_dask.ledger.data_file import DataFile
from fink_dask.store.durable import sync_file


@dataclass(frozen=True)
class Merging:
    """What the groups of a compaction have in common.

    Parameters
    ----------
    root : pathlib.Path
        The dataset that the files are of.
    schema : pyarrow.Schema
        The columns of all of them; those that a file lacks are null in its rows.
    index : RangeIndex
        The ranges that the rows are of.
    duplicates : Duplicates
        The rows that are left out.
    footer : mapping of str to str
        Key-value metadata of the new files.
    compression : str
        Codec of the new files.
    should_stop : callable
        Asked after each row group; True ends it.
    """

    root: Path
    schema: pa.Schema
    index: RangeIndex
    duplicates: Duplicates
    footer: Mapping[str, str]
    compression: str
    should_stop: Callable[[], bool]


@dataclass(frozen=True)
class Merged:
    """What has become of a group.

    Parameters
    ----------
    file : DataFile or None
        The new file; None where all of its rows are left out.
    rows : dict of Range to int
        Rows of each range in it.
    left_out : dict of Range to list of (int, int)
        Intervals of each range that are left out.
    """

    file: DataFile | None
    rows: dict[Range, int]
    left_out: dict[Range, list[Interval]]


def merge_group(group: Group, merging: Merging, path: Path, final: str, advance: Callable[[int], None]) -> Merged:
    """Write the file of a group, and bring it to the disk.

    Holds a row group of a file and `BUFFER_BYTES` of rows at a time.

    Parameters
    ----------
    group : Group
        The files.
    merging : Merging
        How.
    path : pathlib.Path
        Where to write to; nothing is left there if all rows are left out.
    final : str
        Where the file belongs in the new dataset.
    advance : callable
        Told the bytes of each file that was read.

    Raises
    ------
    LedgerError
        If a file is not what was written.
    InterruptedTransferError
        If `should_stop` said so.
    """
    rows: Counter[Range] = Counter()
    left_out: dict[Range, list[Interval]] = {}
    with pq.ParquetWriter(path, merging.schema, **write_options(merging.schema, merging.compression)) as writer:
        writer.add_key_value_metadata(merging.footer)
        waiting: list[pa.Table] = []
        waiting_bytes = 0
        for file in group.sources:
            check_source(merging.root, file)
            with pq.ParquetFile(merging.root / file.path) as parquet:
                for number in range(parquet.num_row_groups):
                    if merging.should_stop():
                        raise InterruptedTransferError("stopped")
                    table, kept, dropped = _select(parquet.read_row_group(number, use_threads=False), merging)
                    rows.update({range_: len(offsets) for range_, offsets in kept.items()})
                    for range_, offsets in dropped.items():
                        left_out.setdefault(range_, []).extend(intervals_of(offsets))
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
    sync_file(path)
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    file = DataFile(final, path.name, rows.total(), path.stat().st_size, digest, rows.total())
    return Merged(file, dict(rows), left_out)


def check_source(root: Path, file: DataFile) -> None:
    """Compare a file with what was written, so that none that has gone bad gets a new hash.

    Raises
    ------
    LedgerError
        If it differs.
    """
    if problems := check_file(root / file.path, file, {}):
        raise LedgerError(f"{problems[0]}: fink-dask verify says more, fink-dask repair fetches it again")


def _select(table: pa.Table, merging: Merging) -> tuple[pa.Table, dict[Range, Offsets], dict[Range, Offsets]]:
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


def _flush(writer: pq.ParquetWriter, waiting: list[pa.Table]) -> None:
    """Write what waits as one row group."""
    if rows := sum(table.num_rows for table in waiting):
        writer.write_table(pa.concat_tables(waiting), row_group_size=rows)
    waiting.clear()
