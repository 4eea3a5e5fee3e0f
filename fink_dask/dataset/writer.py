"""Write the rows of a range into staged files, one for each partition key."""

from __future__ import annotations

import os
import resource
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np
import pyarrow as pa

from fink_dask.avro.schema import AvroSchema
from fink_dask.dataset.formats import FORMATS, DataFileWriter, Layout, Origin
from fink_dask.errors import SettingsError
from fink_dask.ledger.commit import Attempt
from fink_dask.ledger.records import DataFile
from fink_dask.settings import BUFFER_BYTES, COMPRESSION, OUTFORMATS

#: Each key of a range is a file; a column with more of them should not name directories.
MAX_KEYS = 1000
#: About what an Arrow array costs beside its data; a batch has at least one for each column.
_ARRAY_BYTES = 512
#: What part of the bytes that are held back a row group has at least, but for the last one of a file. Each column of
#: one takes a kilobyte of memory until its file is complete: with 200 keys, row groups of a few alerts took 400 MB.
_LEAST_PART = 8
#: Files that a process may have open: enough for a few ranges of that many keys; macOS allows 10,240 at most.
_OPEN_FILES = 10_000


@dataclass
class _Target:
    """One file in the making."""

    final: str
    path: Path
    rows: int = 0
    waiting: list[pa.RecordBatch] = field(default_factory=list)
    waiting_bytes: int = 0
    #: Place and length of what was put aside before, and about how many bytes that is decoded.
    aside: list[tuple[int, int]] = field(default_factory=list)
    aside_bytes: int = 0
    writer: DataFileWriter | None = None

    def join(self, schema: pa.Schema) -> None:
        """Make one batch of those that wait: a copy that keeps none of the memory that they are slices of."""
        if len(self.waiting) == 1:
            self.waiting = [self.waiting[0].take(pa.array(np.arange(self.waiting[0].num_rows)))]
        elif self.waiting:
            self.waiting = pa.Table.from_batches(self.waiting, schema=schema).combine_chunks().to_batches()
        self.waiting_bytes = sum(batch.nbytes for batch in self.waiting)


class StagedWriter:
    """Writes the files of one attempt; a context manager that closes them.

    Row groups end where the rows held back reach `buffer_bytes`, which depends on the rows and their batches alone: two
    attempts at a range write identical files.

    `outformat`: format of the files, one of `fink_dask.settings.OUTFORMATS`.
    `records`: the schema of the records, where the format keeps them; `schema` is `RAW_SCHEMA` then.
    """

    def __init__(
        self,
        attempt: Attempt,
        schema: pa.Schema,
        origin: Origin,
        prefix: str = "",
        buffer_bytes: int = BUFFER_BYTES,
        compression: str = COMPRESSION,
        outformat: str = OUTFORMATS[0],
        records: AvroSchema | None = None,
    ) -> None:
        self._attempt = attempt
        # Columns of the files.
        self._schema = schema
        # Where the rows come from.
        self._origin = origin
        # Put before each staged name, to tell two writers of an attempt apart.
        self._prefix = prefix
        # The most decoded bytes that are held back, with what small batches cost beside their data.
        self._buffer_bytes = buffer_bytes
        self._format = FORMATS[outformat]
        self._layout = Layout(schema, compression, records)
        self._batch_bytes = _ARRAY_BYTES * sum(_count_arrays(field.type) for field in schema)
        self._targets: dict[str, _Target] = {}
        self._waiting_bytes = 0
        # What waits on the disk, of all keys; it has no name, so that nothing is left of it, whatever is killed.
        self._aside: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._aside is not None:
            with suppress(OSError):
                self._aside.close()
        # What counts of them is on the disk by now; of an attempt that failed, nothing does, and the disk may be full.
        for target in self._targets.values():
            if target.writer is not None:
                with suppress(OSError, pa.ArrowException):
                    target.writer.close()

    def write(self, directory: str, batch: pa.RecordBatch) -> None:
        """Add rows to the file of a directory.

        Raises SettingsError if the range has too many partition keys.
        """
        target = self._targets.get(directory)
        if target is None:
            if len(self._targets) >= MAX_KEYS:
                raise SettingsError(
                    f"more than {MAX_KEYS} partition keys in one range: each would be a file; "
                    "partition by a column with fewer values",
                    self._origin.topic,
                    self._origin.range.partition,
                )
            suffix = self._format.suffix
            final = f"{directory}/{self._origin.stem}{suffix}" if directory else f"{self._origin.stem}{suffix}"
            name = f"{self._origin.staged_prefix}{self._prefix}{len(self._targets):05d}{suffix}"
            path = self._attempt.scratch / name
            target = self._targets[directory] = _Target(final, path)
        # The first batch of a key costs as much as any, but joining can't save that.
        cost = batch.nbytes + (self._batch_bytes if target.waiting else 0)
        target.waiting.append(batch)
        target.waiting_bytes += cost
        target.rows += batch.num_rows
        self._waiting_bytes += cost
        if self._waiting_bytes >= self._buffer_bytes:
            self._relieve()

    def complete(self) -> None:
        """Write what waits, and the footers."""
        for target in self._targets.values():
            self._flush(target).complete()

    def stage(self) -> tuple[DataFile, ...]:
        """Bring the complete files to the disk."""
        return self._attempt.stage(
            [(self._open(target).file, target.final, target.rows) for target in self._targets.values()]
        )

    def _open(self, target: _Target) -> DataFileWriter:
        if target.writer is None:
            _allow_open_files()
            target.writer = self._format.create(target.path, self._layout, self._origin)
        return target.writer

    def _relieve(self) -> None:
        """Hold back at most half of what may wait, in copies that keep no other memory alive."""
        extra = self._batch_bytes * sum(len(target.waiting) - 1 for target in self._targets.values() if target.waiting)
        joined = 2 * extra >= self._waiting_bytes
        if joined:  # the batches cost more than their data
            self._join()
        # The largest keys first, so that small ones still fill their row groups.
        for target in sorted(self._targets.values(), key=lambda target: target.waiting_bytes, reverse=True):
            if self._waiting_bytes <= self._buffer_bytes // 2:
                break
            if target.waiting_bytes + target.aside_bytes < self._buffer_bytes // _LEAST_PART:
                self._put_aside(target)
            else:
                self._flush(target)
        if not joined:
            self._join()

    def _join(self) -> None:
        for target in self._targets.values():
            target.join(self._schema)
        self._waiting_bytes = sum(target.waiting_bytes for target in self._targets.values())

    def _put_aside(self, target: _Target) -> None:
        """Write what waits of a key to the disk, as it is, where it is too little for a row group."""
        if self._aside is None:
            self._aside = tempfile.TemporaryFile(dir=self._attempt.scratch)  # noqa: SIM115 - until all is written
        self._waiting_bytes -= target.waiting_bytes
        target.join(self._schema)
        for batch in target.waiting:
            packed = batch.serialize()
            target.aside.append((self._aside.tell(), packed.size))
            self._aside.write(packed)
        target.aside_bytes += target.waiting_bytes
        target.waiting, target.waiting_bytes = [], 0

    def _bring_back(self, target: _Target) -> list[pa.RecordBatch]:
        """Read what was put aside of a key, which came before what waits."""
        if self._aside is None or not target.aside:
            return []
        self._aside.flush()
        packed = [os.pread(self._aside.fileno(), size, place) for place, size in target.aside]
        target.aside, target.aside_bytes = [], 0
        return [pa.ipc.read_record_batch(pa.py_buffer(each), self._schema) for each in packed]

    def _flush(self, target: _Target) -> DataFileWriter:
        """Write what there is of a key as a row group."""
        writer = self._open(target)
        if batches := [*self._bring_back(target), *target.waiting]:
            writer.write_table(pa.Table.from_batches(batches, schema=self._schema))
            self._waiting_bytes -= target.waiting_bytes
            target.waiting, target.waiting_bytes = [], 0
        return writer


def _count_arrays(type_: pa.DataType) -> int:
    """Count the Arrow arrays that a column consists of."""
    return 1 + sum(_count_arrays(type_.field(index).type) for index in range(type_.num_fields))


def _allow_open_files() -> None:
    """Raise this process's limit of open files, which is 256 on macOS at first: its threads write ranges at once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
