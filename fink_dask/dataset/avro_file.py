"""Avro container files of the records of a range, as they were in Kafka, that say which offsets they hold."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fink_dask.avro.container import SYNC_BYTES, block_head, header, read_header, read_records
from fink_dask.avro.schema import AvroSchema, parse_schema
from fink_dask.dataset.data_format import Contents, Layout, Offsets, Origin, Partitions
from fink_dask.errors import LedgerError
from fink_dask.units import counted

#: Names the offsets: a bit for each offset of the range, in base64, as values of the header are text to most readers.
_OFFSETS = "fink_dask.offsets"
#: Bytes of a block, beyond which another one begins; a reader holds one.
_BLOCK_BYTES = 2**20


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
                f"it has {counted(records, 'record')}, but says that it holds {counted(len(offsets), 'offset')}"
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

    Parameters
    ----------
    path : pathlib.Path
        The file.
    schema : AvroSchema
        The schema of its records.
    origin : Origin
        Where they come from.
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
        self._file = path.open("wb")
        self._file.write(head)

    def write_table(self, table: pa.Table) -> None:
        """Add records, of `RAW_SCHEMA`."""
        for batch in table.to_batches():
            values, offsets = batch["value"], batch["kafka_offset"].to_numpy() - self._start
            np.bitwise_or.at(self._bits, offsets >> 3, (128 >> (offsets & 7)).astype(np.uint8))
            _, ends, data = values.buffers()
            starts = np.frombuffer(ends, np.int32)[values.offset : values.offset + len(values) + 1].astype(np.int64)
            for first, last in _blocks(starts):
                self._file.write(block_head(last - first, int(starts[last] - starts[first])))
                self._file.write(memoryview(data)[starts[first] : starts[last]])
                self._file.write(self._sync)

    def close(self) -> None:
        """Say which offsets there are, and close the file, also where that can't be written."""
        with self._file as file:
            file.seek(self._place)
            file.write(_encoded(self._bits))


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
