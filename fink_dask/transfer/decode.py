"""Decode the batches of a range: rows with their offsets, and the records that can't be rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from fink_dask.avro.decoder import make_decoder
from fink_dask.avro.schema import AvroSchema, parse_schema
from fink_dask.dataset.records import Identity
from fink_dask.dataset.writer import KAFKA_FIELDS
from fink_dask.errors import SchemaError
from fink_dask.kafka.records import RawBatch

#: A topic with more schemas than this in its keys gets no faster by remembering them.
_REMEMBERED_KEYS = 64


class RangeDecoder:
    """Decodes the batches of one range.

    Parameters
    ----------
    schema : AvroSchema
        The writer schema.
    identity : Identity
        Says where the schema came from.
    partition : int
        The range's partition.
    """

    def __init__(self, schema: AvroSchema, identity: Identity, partition: int) -> None:
        self._decoder = make_decoder(schema)
        self._partition = partition
        # Where records name their own schema, another one's bytes could decode into wrong values.
        self._check_keys = identity.schema_source == "record key"
        self._text = schema.text
        self._known_keys: dict[bytes | None, bool] = {}
        self.columns = pa.schema([*schema.arrow, *KAFKA_FIELDS])

    def decode(self, batch: RawBatch) -> tuple[pa.RecordBatch, np.ndarray, list[tuple[int, str]]]:
        """Decode a batch.

        Returns
        -------
        rows : pyarrow.RecordBatch
            The alerts in offset order, with `kafka_partition` and `kafka_offset`.
        positions : numpy.ndarray
            Position in the batch of each row.
        bad : list of (int, str)
            Position in the batch and reason of each record that is no row.
        """
        foreign: dict[int, str] = {}
        values = batch.values
        if self._check_keys:
            foreign = {
                index: "written with another schema than the plan's"
                for index, key in enumerate(batch.keys)
                if not self._is_ours(key)
            }
            if foreign:
                values = [None if index in foreign else value for index, value in enumerate(values)]
        decoded = self._decoder.decode(values)
        bad = {record.index: record.reason for record in decoded.bad} | foreign
        offsets = pa.array(np.asarray(batch.offsets, dtype=np.int64)[decoded.positions])
        partitions = pa.array(np.full(len(offsets), self._partition, dtype=np.int32))
        rows = pa.RecordBatch.from_arrays([*decoded.rows.columns, partitions, offsets], schema=self.columns)
        return rows, decoded.positions, sorted(bad.items())

    def _is_ours(self, key: bytes | None) -> bool:
        if key not in self._known_keys:
            if len(self._known_keys) >= _REMEMBERED_KEYS:
                self._known_keys.clear()
            try:
                self._known_keys[key] = parse_schema(key or b"").text == self._text
            except SchemaError:
                self._known_keys[key] = False
        return self._known_keys[key]
