"""Write the rows of a range into staged files, one for each partition key."""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol, Self

import pyarrow as pa

from fink_dask.avro.schema import AvroSchema
from fink_dask.dataset.formats import FORMATS, DataFileWriter, Layout, Origin
from fink_dask.errors import SettingsError, parameter
from fink_dask.ledger.commit import Attempt
from fink_dask.ledger.records import DataFile
from fink_dask.settings import BUFFER_BYTES, COMPRESSION, OUTFORMATS
from fink_dask.store.newfile import write_pieces

#: Each key of a range is a file; a column with more of them should not name directories.
MAX_KEYS = 1000
#: About what an Arrow array costs beside its data; a batch has at least one for each column.
_ARRAY_BYTES = 512
#: What part of the bytes that are held back a row group has at least, but for the last one of a file, and what part of
#: them may be taken by what files say of their row groups in the end: each column of one, until its file is complete.
_LEAST_PART, _FOOTER_PART, _FOOTER_BYTES = 8, 4, 1024
#: Bytes of the row groups that are made of what was put aside, at least.
_GROUP_BYTES = 16 * 2**20
#: Files that a process may have open: enough for a few ranges of that many keys; macOS allows 10,240 at most.
_OPEN_FILES = 10_000


class Held(Protocol):
    """Rows of a key that are held back."""

    @property
    def nbytes(self) -> int:
        """About how many bytes they take; of the rows alone, and the calls that brought them."""

    def batch(self) -> pa.RecordBatch:
        """Return them; nothing is added as long as these are there."""

    def extend(self, other: Held, most: int) -> bool:
        """Add others that come after them, unless these are of another kind; `most` bytes will be held."""

    def pack(self) -> pa.Buffer:
        """Return what they take, which is gone until it is given back."""

    def unpack(self, packed: bytes) -> None:
        """Take it back."""


class Rows(Protocol):
    """Rows of a key that are to be held back."""

    @property
    def num_rows(self) -> int:
        """How many there are."""

    def append_to(self, last: Held | None, most: int) -> Held:
        """Append them to the last that are held back of their key, and return these, or begin others.

        `most`: how many bytes are held back of all keys.
        """


class WholeBatch:
    """A batch whose memory is its own."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch, self._schema = batch, batch.schema
        self.num_rows = batch.num_rows
        self.nbytes = batch.nbytes + _ARRAY_BYTES * sum(_count_arrays(field.type) for field in batch.schema)

    def batch(self) -> pa.RecordBatch:
        """Return it."""
        return self._batch

    def extend(self, other: Held, most: int) -> bool:
        """Leave others as they are."""
        return False

    def pack(self) -> pa.Buffer:
        """Return it as Arrow's streams have it."""
        packed, self._batch = self._batch.serialize(), None
        return packed

    def unpack(self, packed: bytes) -> None:
        """Read it again."""
        self._batch = pa.ipc.read_record_batch(pa.py_buffer(packed), self._schema)

    def append_to(self, last: Held | None, most: int) -> Held:
        """Hold it back as it is."""
        return self


@dataclass
class _Target:
    """One file in the making."""

    final: str
    path: Path
    rows: int = 0
    waiting: list[Held] = field(default_factory=list)
    waiting_bytes: int = 0
    #: What was put aside before, with its place and length there, and how many bytes that was.
    aside: list[tuple[Held, int, int]] = field(default_factory=list)
    aside_bytes: int = 0
    writer: DataFileWriter | None = None


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
        # What a file says of a row group; those of all files that are not complete.
        self._footer_bytes = _FOOTER_BYTES * sum(_count_arrays(field.type) for field in schema)
        self._footers_bytes = 0
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

    def write(self, directory: str, rows: Rows | pa.RecordBatch) -> None:
        """Add rows to the file of a directory; the memory of a batch is its own.

        Raises SettingsError if the range has too many partition keys.
        """
        target = self._targets.get(directory)
        if target is None:
            if len(self._targets) >= MAX_KEYS:
                raise SettingsError(
                    f"more than {MAX_KEYS:,} partition keys in one range, each of which would be a file: begin again "
                    f"with {parameter('restart', True)} and fewer columns of {parameter('partitionby')}, or one of "
                    "fewer values",
                    self._origin.topic,
                    self._origin.range.partition,
                )
            suffix = self._format.suffix
            final = f"{directory}/{self._origin.stem}{suffix}" if directory else f"{self._origin.stem}{suffix}"
            name = f"{self._origin.staged_prefix}{self._prefix}{len(self._targets):05d}{suffix}"
            path = self._attempt.scratch / name
            target = self._targets[directory] = _Target(final, path)
        if isinstance(rows, pa.RecordBatch):
            rows = WholeBatch(rows)
        last = target.waiting[-1] if target.waiting else None
        before = 0 if last is None else last.nbytes
        held = rows.append_to(last, self._buffer_bytes)
        if held is not last:
            target.waiting.append(held)
            before = 0
        target.waiting_bytes += held.nbytes - before
        target.rows += rows.num_rows
        self._waiting_bytes += held.nbytes - before
        if self._waiting_bytes >= self._buffer_bytes:
            self._relieve()

    def complete(self) -> None:
        """Write what waits, and the footers, one file after the other: what they say is in memory until then."""
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
        """Hold back at most half of what may wait."""
        is_full = self._footers_bytes >= self._buffer_bytes // _FOOTER_PART
        # The largest keys first, so that small ones still fill their row groups.
        for target in sorted(self._targets.values(), key=lambda target: target.waiting_bytes, reverse=True):
            if self._waiting_bytes <= self._buffer_bytes // 2:
                break
            if is_full or target.waiting_bytes + target.aside_bytes < self._buffer_bytes // _LEAST_PART:
                self._put_aside(target)
            else:
                self._flush(target)

    def _put_aside(self, target: _Target) -> None:
        """Write what waits of a key to the disk, as it is, where it is too little for a row group."""
        if self._aside is None:
            self._aside = tempfile.TemporaryFile(dir=self._attempt.scratch)  # noqa: SIM115 - until all is written
        for held in target.waiting:
            packed = held.pack()
            target.aside.append((held, self._aside.tell(), packed.size))
            write_pieces(self._aside, memoryview(packed))
        target.aside_bytes += target.waiting_bytes
        self._forget(target)

    def _forget(self, target: _Target) -> None:
        self._waiting_bytes -= target.waiting_bytes
        target.waiting, target.waiting_bytes = [], 0

    def _bring_back(self, target: _Target) -> Iterator[Held]:
        """Read what was put aside of a key, which came before what waits."""
        if self._aside is not None and target.aside:
            self._aside.flush()
            for held, place, size in target.aside:
                held.unpack(os.pread(self._aside.fileno(), size, place))
                yield held
            target.aside, target.aside_bytes = [], 0

    def _flush(self, target: _Target) -> DataFileWriter:
        """Write what there is of a key as a row group, or as several where much was put aside."""
        writer, group, size = self._open(target), list[Held](), 0
        most = max(_GROUP_BYTES, self._buffer_bytes)
        room = min(most, target.aside_bytes + target.waiting_bytes)
        for held in chain(self._bring_back(target), target.waiting):
            if size >= most:
                self._write(writer, group)
                group, size = [], 0
            size += held.nbytes
            if not (group and group[-1].extend(held, room)):
                group.append(held)
        self._write(writer, group)
        self._forget(target)
        return writer

    def _write(self, writer: DataFileWriter, group: list[Held]) -> None:
        if group:
            writer.write_table(pa.Table.from_batches([held.batch() for held in group], schema=self._schema))
            self._footers_bytes += self._footer_bytes


def _count_arrays(type_: pa.DataType) -> int:
    """Count the Arrow arrays that a column consists of."""
    return 1 + sum(_count_arrays(type_.field(index).type) for index in range(type_.num_fields))


def _allow_open_files() -> None:
    """Raise this process's limit of open files, which is 256 on macOS at first: its threads write ranges at once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
