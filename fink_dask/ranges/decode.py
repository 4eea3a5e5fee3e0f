"""Decode the batches of a range: rows by partition key, with their offsets, and the records that can't be rows.

The columns of a range's files grow with the schemas that its records turn out to have.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fink_dask.avro.decoder import ColumnarDecoder, Decoding
from fink_dask.avro.evolution import Versions, covering, fit_batch, project
from fink_dask.avro.framing import NONE, Framing, hint
from fink_dask.avro.schema import AvroSchema
from fink_dask.batches import RawBatch
from fink_dask.dataset.formats import KAFKA_FIELDS, RAW_SCHEMA
from fink_dask.dataset.partitioning import Partitioning, Split
from fink_dask.dataset.schema_versions import file_schema, known_versions, planned_versions, register
from fink_dask.errors import LedgerError, SchemaError
from fink_dask.ledger.commit import Attempt
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.records import Identity
from fink_dask.ranges.keys import Register, SchemaKeys, UnknownSchema
from fink_dask.ranges.rows import Part
from fink_dask.settings import RECORD_OUTFORMATS

if TYPE_CHECKING:
    from fink_dask.where.condition import Condition

#: Held while a schema is read or compiled: the threads of a process begin at once, and each would do it for itself.
_COMPILING = threading.Lock()

_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SortedBatch:
    """A decoded batch, sorted by partition key."""

    #: A directory, and the alerts that belong there, in offset order.
    parts: list[tuple[str, Part]]
    #: Position in the batch and reason of each record that is not a row.
    bad: list[tuple[int, str]]
    #: Position in the batch of each alert that the condition is not true of.
    filtered: _Ints


@dataclass(frozen=True, eq=False)
class _Found:
    """Rows of a batch, in the order of their keys where it is split, and what became of the other records."""

    #: Numbers of the rows, for what takes them; and where they were in the batch.
    numbers: _Ints
    positions: _Ints
    take: Callable[[_Ints], pa.RecordBatch]
    decoding: Decoding | None
    bad: dict[int, str]
    filtered: _Ints
    split: Split | None


def _refuse(schema: AvroSchema) -> None:
    raise SchemaError("it takes in no schema")


class RangeDecoder:
    """Decodes the batches of one range.

    `identity`: tells where the schemas came from, and which columns and alerts are wanted.
    `register`: is given the schemas in keys that are not among `versions`. Once it has accepted one, the files have too
    few columns: `discovered` then holds it, keys are still looked at but nothing is decoded, and the range has to begin
    again.
    """

    def __init__(
        self,
        versions: Versions,
        identity: Identity,
        partitioning: Partitioning,
        partition: int,
        register: Register = _refuse,
    ) -> None:
        self._versions = versions
        # What the directories come from.
        self._partitioning = partitioning
        self._partition = partition
        self._condition = None if identity.where is None else _bind(identity.where, versions.arrow)
        # These are decoded first: of the alerts that are filtered out, nothing else is.
        conditional = () if self._condition is None else self._condition.columns
        paths = tuple(dict.fromkeys((*(source.path for source in partitioning.sources), *conditional)))
        self._framing = Framing(identity.framing)
        self._is_raw = identity.outformat in RECORD_OUTFORMATS
        # Of a record that is kept as it came, only the keys are decoded.
        columns = (paths or (versions.arrow.names[0],)) if self._is_raw else identity.columns
        self._rows = pa.schema(project(versions.record, columns).arrow_fields)
        self._keys = pa.schema(project(versions.record, paths).arrow_fields) if paths else None
        with _COMPILING:
            self._decoders = [_decoder(schema, columns, paths) for schema in versions.schemas]
        # Where records name their own schema, bytes of another one could decode into wrong values.
        self._schemas = SchemaKeys(versions, register) if identity.schema_source == "record key" else None
        self._columns = pa.schema([*self._rows, *KAFKA_FIELDS])
        #: The columns of the files.
        self.file_schema = file_schema(versions, identity, partitioning)
        #: Seconds of the decoding that were spent on finding partition keys.
        self.split_seconds = 0.0

    @property
    def discovered(self) -> frozenset[AvroSchema]:
        """Schemas of the records so far that the dataset has, but for which this decoder's files lack columns."""
        return frozenset() if self._schemas is None else frozenset(self._schemas.discovered)

    @property
    def records(self) -> AvroSchema | None:
        """The schema of the records, where the files keep them as they came."""
        return self._versions.first if self._is_raw else None

    @property
    def max_records(self) -> int:
        """The most records to decode at once; see `AvroSchema.max_records`."""
        return self._versions.max_records

    def decode(self, batch: RawBatch) -> SortedBatch:
        """Decode a batch; as long as one of the parts is there, so is all of it."""
        framed = batch
        batch, unframed = self._framing.unwrap(batch)
        if self._schemas is None:
            found = self._decode_alike(batch, 0, batch.missing)
        else:
            numbers = self._schemas.numbers(batch.keys)
            if self._schemas.discovered:
                return SortedBatch([], [], np.empty(0, np.int64))
            found = self._decode_by_number(batch, numbers)
        if self._is_raw:
            whole = pa.RecordBatch.from_arrays([batch.values()], names=["value"])
            found = replace(found, numbers=found.positions, take=_take_of(whole), decoding=None)
        bad, split = found.bad | unframed, found.split
        if self._framing.kind == NONE:
            for index in bad:
                bad[index] += hint(framed.value(index) or b"", self._versions.first)
        slices: Iterable[tuple[str, slice]] = [("", slice(None))]
        if split is not None:
            slices, refused = split.slices(), found.positions[len(found.positions) - len(split.refused) :].tolist()
            bad |= dict(zip(refused, split.refused, strict=True))
        parts, offsets = [], batch.offsets[found.positions]
        for directory, here in slices:
            rows = found.numbers[here]
            if len(rows):
                part = Part(rows, offsets[here], len(rows) / len(batch), found.take, self._finish, found.decoding)
                parts.append((directory, part))
        return SortedBatch(parts, sorted(bad.items()), found.filtered)

    def _finish(self, rows: pa.RecordBatch, offsets: _Ints) -> pa.RecordBatch:
        """Give rows the columns that they have in files."""
        places = [pa.array(np.full(len(offsets), self._partition, np.int32)), pa.array(offsets)]
        if self._is_raw:
            return pa.RecordBatch.from_arrays([*rows.columns, *places], schema=RAW_SCHEMA)
        columns = [*_fit(rows, self._rows).columns, *places]
        return pa.RecordBatch.from_arrays(columns, schema=self._columns).select(self.file_schema.names)

    def _decode_by_number(self, batch: RawBatch, numbers: list[int | UnknownSchema | None]) -> _Found:
        """Decode each record with the program of its own schema."""
        foreign = {index: found.reason for index, found in enumerate(numbers) if isinstance(found, UnknownSchema)}
        there = sorted({number for number in numbers if isinstance(number, int)})
        missing = batch.missing
        if len(there) < 2:
            if foreign:
                missing = np.zeros(len(batch), np.bool_) if missing is None else missing.copy()
                missing[list(foreign)] = True
            found = self._decode_alike(batch, there[0] if there else 0, missing)
            found.bad.update(foreign)
            return found
        codes = np.array([number if isinstance(number, int) else -1 for number in numbers])
        rows, keys, positions, filtered = [], [], [], []
        for number in there:
            others = codes != number
            skipped = others if missing is None else others | missing
            decoding = self._decoders[number].decode_joined(batch.data, batch.starts, skipped)
            kept, wanted = self._choose(decoding)
            keys.append(wanted)
            rows.append(_fit(decoding.take(kept), self._rows))
            positions.append(decoding.positions[kept])
            filtered.append(np.delete(decoding.positions, kept))
            foreign |= {bad.index: bad.reason for bad in decoding.bad if not others[bad.index]}
        places = np.concatenate(positions)
        order = np.argsort(places)
        split = None
        if self._keys is not None:
            split = self._split(_join(keys).take(pa.array(order)))
            order = order[split.order]
        take = _take_of(_join(rows))
        return _Found(order, places[order], take, None, foreign, np.concatenate(filtered), split)

    def _decode_alike(self, batch: RawBatch, number: int, missing: npt.NDArray[np.bool_] | None) -> _Found:
        """Decode a batch of one schema."""
        decoding = self._decoders[number].decode_joined(batch.data, batch.starts, missing)
        bad = {each.index: each.reason for each in decoding.bad}
        kept, wanted = self._choose(decoding)
        order, split = kept, None
        if self._keys is not None:
            # The rows of each key come out next to each other, and none has to be picked out afterwards.
            split = self._split(wanted)
            order = kept[split.order]
        positions, filtered = decoding.positions[order], np.delete(decoding.positions, kept)
        return _Found(order, positions, decoding.take, decoding, bad, filtered, split)

    def _choose(self, decoding: Decoding) -> tuple[_Ints, pa.RecordBatch | None]:
        """Return the numbers of the rows that the condition is true of, and their key columns, if there are any."""
        everything = np.arange(len(decoding.positions))
        if self._keys is None:
            return everything, None
        keys = _fit(decoding.keys(), self._keys)
        if self._condition is None:
            return everything, keys
        kept = np.flatnonzero(self._condition.is_true(keys))
        return kept, keys if len(kept) == keys.num_rows else keys.take(pa.array(kept))

    def _split(self, keys: pa.RecordBatch) -> Split:
        began = time.perf_counter()
        split = self._partitioning.split(keys, self._is_raw)
        if len(split.order) != keys.num_rows:  # rows that it left out would pass for filtered ones
            raise ValueError("a split that has not every row")
        self.split_seconds += time.perf_counter() - began
        return split


def _bind(where: str, schema: pa.Schema) -> Condition:
    from fink_dask.where.condition import bind_condition  # here, as it loads the functions of Arrow

    return bind_condition(where, schema)


def _fit(rows: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    return rows if rows.schema.equals(schema) else fit_batch(rows, schema)


def _take_of(rows: pa.RecordBatch) -> Callable[[_Ints], pa.RecordBatch]:
    def take(numbers: _Ints) -> pa.RecordBatch:
        taken: pa.RecordBatch = rows.take(pa.array(numbers))
        return taken

    return take


def _join(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    table = pa.Table.from_batches(batches).combine_chunks()
    return table.to_batches()[0] if table.num_rows else batches[0]


@lru_cache(maxsize=64)
def _decoder(schema: AvroSchema, columns: tuple[str, ...] | None, key_columns: tuple[str, ...]) -> ColumnarDecoder:
    """Compile a schema's tables once per process; its threads share them."""
    keys = covering(schema.parsed, key_columns) if key_columns else None
    return ColumnarDecoder(schema, covering(schema.parsed, columns), keys or ())


class OutgrownError(Exception):
    """The files of an attempt lack columns; it has to begin again."""


class Widener:
    """Makes the decoders of the attempts at a range.

    The files of a range have the columns of the plan's schemas and of its records' schemas, in the dataset's order.
    Which these are follows from the records and from the ledger, whose verdict on a schema never changes: two attempts
    at a range write the same files.
    """

    def __init__(self, ledger: Ledger, identity: Identity, partitioning: Partitioning, partition: int) -> None:
        self._ledger = ledger
        # That of the plan.
        self._identity = identity
        # What the directories come from.
        self._partitioning = partitioning
        self._partition = partition
        with _COMPILING:
            self._versions = _planned(ledger, identity)
        self._decoder: RangeDecoder | None = None

    def decoder(self, attempt: Attempt) -> RangeDecoder:
        """Make the decoder of an attempt."""

        def met(schema: AvroSchema) -> None:
            # Where a job has moved the ledger aside, nothing may be written to the one in its place.
            if not attempt.is_wanted():
                raise LedgerError(f"{self._ledger.path} was removed, or begun again, meanwhile")
            register(self._ledger, self._identity, self._partitioning, schema)

        self._decoder = RangeDecoder(self._versions, self._identity, self._partitioning, self._partition, met)
        return self._decoder

    def widen(self) -> None:
        """Add the schemas that the last decoder has met."""
        assert self._decoder is not None
        wanted = {*self._versions.schemas, *self._decoder.discovered}
        known = known_versions(self._ledger, self._identity)
        self._versions = Versions(tuple(schema for schema in known.schemas if schema in wanted))


@lru_cache(maxsize=8)
def _planned(ledger: Ledger, identity: Identity) -> Versions:
    """Read a plan's schemas from the ledger once per process: they are too large to travel with every range."""
    return planned_versions(ledger, identity)
