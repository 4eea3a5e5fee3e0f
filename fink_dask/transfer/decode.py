"""Decode the batches of a range: rows by partition key, with their offsets, and the records that can't be rows."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fink_dask.avro.columnar import ColumnarDecoder
from fink_dask.avro.schema import AvroSchema, parse_schema
from fink_dask.dataset.partitioning import Partitioning, Split
from fink_dask.dataset.records import Identity
from fink_dask.dataset.writer import KAFKA_FIELDS
from fink_dask.errors import SchemaError
from fink_dask.kafka.records import RawBatch

#: A topic with more schemas than this in its keys gets no faster by remembering them.
_REMEMBERED_KEYS = 64


@dataclass(frozen=True, eq=False)
class SortedBatch:
    """A decoded batch, sorted by partition key.

    Parameters
    ----------
    parts : list of (str, pyarrow.RecordBatch)
        A directory, and the alerts that belong there in offset order, with `kafka_partition` and `kafka_offset`.
    bad : list of (int, str)
        Position in the batch and reason of each record that is no row.
    """

    parts: list[tuple[str, pa.RecordBatch]]
    bad: list[tuple[int, str]]


class RangeDecoder:
    """Decodes the batches of one range.

    Parameters
    ----------
    schema : AvroSchema
        The writer schema.
    identity : Identity
        Says where the schema came from, and which columns are wanted.
    partitioning : Partitioning
        What the directories come from.
    partition : int
        The range's partition.
    """

    def __init__(self, schema: AvroSchema, identity: Identity, partitioning: Partitioning, partition: int) -> None:
        self._partitioning = partitioning
        self._decoder = _decoder(schema, identity.columns, tuple(source.path for source in partitioning.sources))
        self._partition = partition
        # Where records name their own schema, another one's bytes could decode into wrong values.
        self._check_keys = identity.schema_source == "record key"
        self._text = schema.text
        self._known_keys: dict[bytes | None, bool] = {}
        self._columns = pa.schema([*self._decoder.arrow, *KAFKA_FIELDS])
        #: The columns of the files.
        self.file_schema = partitioning.file_schema(self._columns)
        #: Seconds spent on finding partition keys, of those that decoding took.
        self.split_seconds = 0.0

    def decode(self, batch: RawBatch) -> SortedBatch:
        """Decode a batch; the parts are slices of the same memory."""
        missing, foreign = batch.missing, {}
        if self._check_keys:
            foreign = {
                index: "written with another schema than the plan's"
                for index, key in enumerate(batch.keys)
                if not self._is_ours(key)
            }
            if foreign:
                missing = np.zeros(len(batch), np.bool_) if missing is None else missing.copy()
                missing[list(foreign)] = True
        split: Split | None = None

        def order(keys: pa.RecordBatch) -> npt.NDArray[np.int64]:
            nonlocal split
            began = time.perf_counter()
            split = self._partitioning.split(keys)
            self.split_seconds += time.perf_counter() - began
            return split.order

        if self._partitioning.sources:
            # The rows of each key come out one after the other, and nothing has to be picked out afterwards.
            decoded = self._decoder.decode_joined(batch.data, batch.starts, missing, order)
        else:
            decoded = self._decoder.decode_joined(batch.data, batch.starts, missing)
        offsets = pa.array(batch.offsets[decoded.positions])
        partitions = pa.array(np.full(len(offsets), self._partition, np.int32))
        columns = [*decoded.rows.columns, partitions, offsets]
        rows = pa.RecordBatch.from_arrays(columns, schema=self._columns).select(self.file_schema.names)
        bad = {record.index: record.reason for record in decoded.bad} | foreign
        if split is None:
            return SortedBatch([("", rows)] if rows.num_rows else [], sorted(bad.items()))
        refused = decoded.positions[len(decoded.positions) - len(split.refused) :].tolist()
        bad |= dict(zip(refused, split.refused, strict=True))
        return SortedBatch(list(split.slices(rows)), sorted(bad.items()))

    def _is_ours(self, key: bytes | None) -> bool:
        if key not in self._known_keys:
            if len(self._known_keys) >= _REMEMBERED_KEYS:
                self._known_keys.clear()
            try:
                self._known_keys[key] = parse_schema(key or b"").text == self._text
            except SchemaError:
                self._known_keys[key] = False
        return self._known_keys[key]


@lru_cache(maxsize=8)
def _decoder(schema: AvroSchema, columns: tuple[str, ...] | None, key_columns: tuple[str, ...]) -> ColumnarDecoder:
    """Compile a schema's tables once a process; the threads share what they make."""
    return ColumnarDecoder(schema, columns, key_columns)
