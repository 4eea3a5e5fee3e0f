"""What an output format does, and the list of those that there are: Parquet and Avro files, written and read."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fink_dask.avro.container import SYNC_BYTES, block_head, header, read_header, read_records
from fink_dask.avro.schema import AvroSchema, parse_schema
from fink_dask.dataset.encoding import Looks, ParquetFileWriter
from fink_dask.errors import LedgerError
from fink_dask.kafka.offsets import OffsetRange
from fink_dask.kafka.topics import topic_hash
from fink_dask.settings import COMPRESSION
from fink_dask.store.location import store_of
from fink_dask.store.newfile import NewFile
from fink_dask.units import pluralize

Offsets = npt.NDArray[np.int64]
Partitions = npt.NDArray[np.int32]

#: Added to every alert, so that the dataset proves itself even without its ledger.
KAFKA_FIELDS = (
    pa.field("kafka_partition", pa.int32(), nullable=False),
    pa.field("kafka_offset", pa.int64(), nullable=False),
)
#: The rows of formats that keep records: their bytes as they were in Kafka, and where they were there.
RAW_SCHEMA = pa.schema([pa.field("value", pa.binary(), nullable=False), *KAFKA_FIELDS])


#: What reading a file raises that is damaged, or not one of ours.
UNREADABLE = (OSError, KeyError, ValueError, pa.ArrowException)
_REASON_CHARS = 200

#: Rows that are read at once where all of a file is.
_ROWS_AT_ONCE = 1000

#: Names the offsets: a bit for each offset of the range, in base64, as values of the header are text to most readers.
_OFFSETS = "fink_dask.offsets"
#: Bytes of a block, beyond which another one begins; a reader holds one.
_BLOCK_BYTES = 2**20


def why_unreadable(error: Exception) -> str:
    """Say one of `UNREADABLE` in a line, without the file's name."""
    words = str(getattr(error, "strerror", None) or error) or type(error).__name__
    return words.splitlines()[0][:_REASON_CHARS]


@contextmanager
def reading(place: str | os.PathLike[str]) -> Iterator[None]:
    """Let a failure to read what is at a place be a LedgerError that names it."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise LedgerError(f"{place} can't be read: {why_unreadable(error)}") from error


@dataclass(frozen=True)
class Origin:
    """Where the rows of a file come from; written in its footer."""

    #: topic, topic_id: the topic and Kafka's id of it.
    topic: str
    topic_id: str
    range: OffsetRange
    #: The plan that holds the range.
    plan_id: str
    #: The marker's revision, which the name of a file tells apart; see `Marker`.
    revision: int = 0

    @property
    def stem(self) -> str:
        """Name of the file without its suffix, the same in the directory of each partition key and for each attempt."""
        numbers = f"{self.range.partition}-{self.range.start}-{self.range.end}"
        revision = f"-{self.revision}" if self.revision else ""
        return f"part-{topic_hash(self.topic)}-{numbers}-{self.plan_id}{revision}"

    @property
    def staged_prefix(self) -> str:
        """What staged names begin with, as a marker may name staged files of several revisions."""
        return f"{self.revision}-" if self.revision else ""

    def footer(self) -> dict[str, str]:
        """Return the key-value metadata of the file."""
        return {
            "fink_dask.topic": self.topic,
            "fink_dask.topic_id": self.topic_id,
            "fink_dask.partition": str(self.range.partition),
            "fink_dask.start": str(self.range.start),
            "fink_dask.end": str(self.range.end),
            "fink_dask.plan": self.plan_id,
        }


@dataclass(frozen=True)
class Layout:
    """What the rows of a file are."""

    #: Its columns; `RAW_SCHEMA` where the format keeps records.
    columns: pa.Schema
    #: Codec, one of `fink_dask.settings.COMPRESSIONS`, where the format has them.
    compression: str = COMPRESSION
    #: The schema of the records, where the format keeps them.
    records: AvroSchema | None = None
    #: What the files with it have in common; those of a range.
    looks: Looks = field(default_factory=Looks, compare=False)


@dataclass(frozen=True)
class Contents:
    """What a file says of itself."""

    rows: int
    #: Where they come from; see `Origin.footer`.
    footer: dict[str, str]


class DataFileWriter(Protocol):
    """A file in the making; the same rows and origin make the same bytes."""

    file: NewFile

    def write_table(self, table: pa.Table) -> None:
        """Add rows, in the order of their offsets."""

    def complete(self) -> None:
        """Write what is still to come."""

    def close(self) -> None:
        """Close the file, complete or not; repeatable."""


class DataFormat(Protocol):
    """A format of data files.

    Reading what is damaged, or not one of ours, raises one of `UNREADABLE`; `verify` then names the file.
    """

    #: What its files are called after; no two formats have the same.
    suffix: str

    def create(self, path: Path, layout: Layout, origin: Origin) -> DataFileWriter:
        """Begin a file that will say of itself what `Origin.footer` returns."""

    def read_contents(self, path: Path) -> Contents:
        """Read what a file says of itself."""

    def read_places(self, path: Path) -> tuple[Partitions, Offsets]:
        """Read partition and offset of each row of a file, in the order of the rows."""

    def read_alerts(
        self, path: Path, numbers: Sequence[int], records: AvroSchema
    ) -> Sequence[dict[str, Any]] | Sequence[bytes]:
        """Read some rows of a file, counted from 0 and in order: their values, or the bytes of records of this schema.

        Raises LedgerError if the file has fewer.
        """

    def read_through(self, path: Path) -> None:
        """Read all of a file, so that damage anywhere in it is found; not all of it is in memory at once."""


class ParquetFormat:
    """Apache Parquet: a column for each of the layout's."""

    suffix = ".parquet"

    def create(self, path: Path, layout: Layout, origin: Origin) -> ParquetFileWriter:
        """Begin a file."""
        return ParquetFileWriter(path, layout.columns, layout.compression, origin.footer(), layout.looks)

    def read_contents(self, path: Path) -> Contents:
        """Read what a file says of itself in its footer."""
        with pq.ParquetFile(store_of(path).source(path)) as parquet:
            metadata = parquet.metadata
        said = (metadata.metadata or {}).items()
        return Contents(
            metadata.num_rows, {key.decode(errors="replace"): text.decode(errors="replace") for key, text in said}
        )

    def read_places(self, path: Path) -> tuple[Partitions, Offsets]:
        """Read the columns of Kafka."""
        table = pq.read_table(
            store_of(path).source(path), columns=[field.name for field in KAFKA_FIELDS], partitioning=None
        )
        partitions, offsets = (table[field.name].to_numpy() for field in KAFKA_FIELDS)
        return partitions, offsets

    def read_alerts(self, path: Path, numbers: Sequence[int], records: AvroSchema) -> list[dict[str, Any]]:
        """Read the values of some rows."""
        found: list[dict[str, Any]] = []
        with pq.ParquetFile(store_of(path).source(path)) as parquet:
            before = 0
            for group in range(parquet.num_row_groups):  # no more of them than those that hold the rows
                rows = parquet.metadata.row_group(group).num_rows
                if here := [number - before for number in numbers if before <= number < before + rows]:
                    found += parquet.read_row_group(group).take(here).to_pylist()
                before += rows
        if len(found) != len(numbers):
            raise LedgerError(f"{path} has fewer rows than it had a moment ago")
        return found

    def read_through(self, path: Path) -> None:
        """Read all columns of all rows."""
        with pq.ParquetFile(store_of(path).source(path)) as parquet:
            for _ in parquet.iter_batches(batch_size=_ROWS_AT_ONCE):
                pass


class AvroFormat:
    """Avro's own container: the records as they were in Kafka."""

    suffix = ".avro"

    def create(self, path: Path, layout: Layout, origin: Origin) -> AvroFileWriter:
        """Begin a file."""
        assert layout.records is not None
        return AvroFileWriter(path, layout.records, origin)

    def read_contents(self, path: Path) -> Contents:
        """Read what a file says of itself in its header, and count its records."""
        said, rows = read_header(path)
        return Contents(rows, said)

    def read_places(self, path: Path) -> tuple[Partitions, Offsets]:
        """Read from the header which offsets there are."""
        said, records = read_header(path)
        try:
            partition, start = int(said["fink_dask.partition"]), int(said["fink_dask.start"])
            bits = np.frombuffer(base64.b64decode(said[_OFFSETS], validate=True), np.uint8)
        except (KeyError, binascii.Error) as error:
            raise ValueError(f"it does not say which offsets it holds ({error})") from error
        offsets = start + np.flatnonzero(np.unpackbits(bits))
        if len(offsets) != records:
            raise ValueError(
                f"it has {pluralize(records, 'record')}, but says that it holds {pluralize(len(offsets), 'offset')}"
            )
        return np.full(len(offsets), partition, np.int32), offsets

    def read_alerts(self, path: Path, numbers: Sequence[int], records: AvroSchema) -> list[bytes]:
        """Read the bytes of some records."""
        wanted = set(numbers)
        until = max(wanted, default=-1) + 1
        found = [record for number, record in enumerate(islice(read_records(path, records), until)) if number in wanted]
        if len(found) != len(numbers):
            raise LedgerError(f"{path} has fewer rows than it had a moment ago")
        return found

    def read_through(self, path: Path) -> None:
        """Read all records, by the schema that the file names."""
        for _ in read_records(path, parse_schema(self.read_contents(path).footer["avro.schema"])):
            pass


class AvroFileWriter:
    """An Avro container file in the making.

    The header has room for the offsets, which are known once all rows are there.
    """

    def __init__(self, path: Path, schema: AvroSchema, origin: Origin) -> None:
        footer = origin.footer()
        said = {name: value.encode() for name, value in footer.items()}
        # Two attempts write the same bytes; the records of other files never follow this marker.
        self._sync = hashlib.sha256(repr(sorted(footer.items())).encode()).digest()[:SYNC_BYTES]
        self._start = origin.range.start
        self._bits = np.zeros(-(-len(origin.range) // 8), np.uint8)
        room = _encoded(self._bits)
        head = header(schema, {**said, _OFFSETS: room}, self._sync)
        self._place = head.rindex(room, 0, -SYNC_BYTES)  # the marker could hold the same few bytes by chance
        self.file = NewFile(path)
        self.file.write(head)

    def write_table(self, table: pa.Table) -> None:
        """Add records, of `RAW_SCHEMA`."""
        for batch in table.to_batches():
            values, offsets = batch["value"], batch["kafka_offset"].to_numpy() - self._start
            np.bitwise_or.at(self._bits, offsets >> 3, (128 >> (offsets & 7)).astype(np.uint8))
            _, ends, data = values.buffers()
            starts = np.frombuffer(ends, np.int32)[values.offset : values.offset + len(values) + 1].astype(np.int64)
            for first, last in _blocks(starts):
                self.file.write(block_head(last - first, int(starts[last] - starts[first])))
                self.file.write(memoryview(data)[starts[first] : starts[last]])
                self.file.write(self._sync)

    def complete(self) -> None:
        """Say which offsets there are."""
        self.file.rewrite(self._place, _encoded(self._bits))

    def close(self) -> None:
        """Close the file, complete or not."""
        self.file.close()


def _encoded(bits: npt.NDArray[np.uint8]) -> bytes:
    return base64.b64encode(bits.tobytes())


def _blocks(starts: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield the first record of each block, and the one after its last."""
    first, count = 0, len(starts) - 1
    while first < count:
        last = int(np.searchsorted(starts, starts[first] + _BLOCK_BYTES, side="left"))
        last = min(max(last, first + 1), count)
        yield first, last
        first = last


#: Each of `fink_dask.settings.OUTFORMATS`.
FORMATS: Mapping[str, DataFormat] = {"parquet": ParquetFormat(), "avro": AvroFormat()}


def format_of(path: Path) -> DataFormat:
    """Tell the format of a file by its name.

    Raises ValueError if it has none.
    """
    for each in FORMATS.values():
        if path.suffix == each.suffix:
            return each
    raise ValueError(f"{path.name[-40:]!r} is not the name of a data file")
