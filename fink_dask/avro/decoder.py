"""Decode a batch at once: pass 1 judges and counts, pass 2 fills the columns of Arrow."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fink_dask.avro.arena import Arena, ArenaLayout
from fink_dask.avro.decoded import TOMBSTONE, DecodedBatch, bad_record, check_size
from fink_dask.avro.fill_program import FillProgram
from fink_dask.avro.lazy import lazy_property
from fink_dask.avro.nodes import Constants, Numbering
from fink_dask.avro.operations import MAX_LOOPS
from fink_dask.avro.pass_one import walk
from fink_dask.avro.pass_two import fill
from fink_dask.avro.program import compile_walk
from fink_dask.avro.projection import project
from fink_dask.avro.resolve import MAX_CELLS
from fink_dask.avro.schema import AvroSchema
from fink_dask.avro.types import AvroType
from fink_dask.avro.walk import RecordError, make_walk
from fink_dask.kafka.memory import Memory
from fink_dask.kafka.records import join_values

_Ints = npt.NDArray[np.int64]

_Bytes = npt.NDArray[np.uint8]

#: Takes the rows of the key columns; returns the numbers of the rows that are wanted, in the order they are wanted in.
Order = Callable[[pa.RecordBatch], _Ints]


class ColumnarDecoder:
    """Decode a batch at once, in two compiled passes over its bytes that release Python's lock.

    All of a record is checked, whatever columns are asked for: which records are bad does not depend on them.

    Parameters
    ----------
    schema : AvroSchema
        The schema that the records were written with.
    columns : sequence of str or None
        The columns, or fields of structs with dots, that are decoded; None is all of them.
    key_columns : sequence of str
        The columns that `decode_joined` gives to its `order`.
    """

    def __init__(
        self, schema: AvroSchema, columns: Sequence[str] | None = None, key_columns: Sequence[str] = ()
    ) -> None:
        self._schema, self._columns, self._key_columns = schema, columns, key_columns
        numbering, constants = Numbering(), Constants()
        record = numbering.node(schema.parsed)
        kept = project(schema.parsed, columns)
        kept_keys = project(schema.parsed, key_columns) if key_columns else None
        rows = FillProgram(record, kept, constants)
        keys = FillProgram(record, kept_keys, constants) if kept_keys else None
        # Pass 1 notes where these fields begin, so that pass 2 reads nothing before them.
        marked = sorted({field for program in (rows, keys) if program for field, _ in program.starts})
        self._scopes, self._slots, self._marks = numbering.scopes, numbering.slots, len(marked)
        self._walk_ops = compile_walk(record, constants, marked)
        self._limits, self._symbols = constants.limits, constants.symbols
        self._joined = Memory()
        self._rows = _Filling(rows, kept, marked, constants)
        self._keys = _Filling(keys, kept_keys, marked, constants) if keys and kept_keys else None

    def __reduce__(self) -> tuple[type[ColumnarDecoder], tuple[AvroSchema, Sequence[str] | None, Sequence[str]]]:
        # The schema is smaller than what is compiled from it.
        return (ColumnarDecoder, (self._schema, self._columns, self._key_columns))

    @property
    def schema(self) -> AvroSchema:
        """The schema that the records were written with."""
        return self._schema

    @property
    def arrow(self) -> pa.Schema:
        """The Arrow schema of the rows."""
        return self._rows.arrow

    def decode(self, values: Sequence[bytes | None]) -> DecodedBatch:
        """Decode a batch; see `fink_dask.avro.decoded.Decoder.decode`."""
        check_size(sum(map(len, filter(None, values))))
        return self.decode_joined(*join_values(values, self._joined))

    def decode_joined(
        self,
        buffer: bytes | _Bytes,
        offsets: _Ints,
        missing: npt.NDArray[np.bool_] | None = None,
        order: Order | None = None,
    ) -> DecodedBatch:
        """Decode a batch whose values are joined.

        Parameters
        ----------
        buffer : bytes or numpy.ndarray of uint8
            The values; they must not change meanwhile.
        offsets : numpy.ndarray of int64, shape (values + 1,)
            Where each value begins, and where the last one ends.
        missing : numpy.ndarray of bool, optional
            Which values are Kafka's tombstone, and not only empty.
        order : callable, optional
            Is given the sound rows with the key columns only, and returns the order in which the rows come out. Rows
            that it leaves out are not decoded any further.

        Returns
        -------
        DecodedBatch
            The rows and the bad records, each at its position in the batch. Hostile bytes make a record bad; they
            never raise.

        Raises
        ------
        FinkDaskError
            If the batch is too large for one Arrow record batch.
        """
        data = np.frombuffer(buffer, np.uint8).view()
        # The kernels are compiled for a buffer that is only read.
        data.flags.writeable = False
        offsets = np.ascontiguousarray(offsets, np.int64)
        if not len(offsets) or offsets[0] < 0 or offsets[-1] > len(data) or (np.diff(offsets) < 0).any():
            raise ValueError("the offsets of the values do not fit their bytes")
        check_size(int(offsets[-1] - offsets[0]))
        failed = np.full(len(offsets) - 1, -1, np.int64)
        if missing is not None:
            failed[missing] = 0
        entries, sizes = np.zeros(self._scopes, np.int64), np.zeros(self._slots + 1, np.int64)
        marks = np.zeros((len(failed), self._marks), np.int64)
        tables = (self._walk_ops, self._limits, self._symbols)
        walk(data, offsets, *tables, MAX_CELLS, entries, sizes, marks, failed, *_stacks())
        positions = np.flatnonzero(failed < 0)
        entries[0] = len(positions)
        left_out = positions[:0]
        if order is not None:
            if self._keys is None:
                raise ValueError("an order without key columns")
            wanted = np.asarray(order(self._keys.fill(data, positions, marks, entries, sizes)), np.int64)
            # A row that came twice would take more memory than pass 1 has counted.
            times = np.bincount(wanted, minlength=len(positions))
            if len(times) > len(positions) or (times > 1).any():
                raise ValueError("an order that has a row twice")
            left_out = positions[times == 0]
            if left_out.size:
                # Pass 1 counts once more, of whichever are fewer: those that stay or those that don't.
                are_fewer = 2 * len(wanted) < len(positions)
                others = np.zeros(len(failed), np.int64)
                others[positions[times > 0] if are_fewer else left_out] = -1
                counts, bytes_ = np.zeros_like(entries), np.zeros_like(sizes)
                walk(data, offsets, *tables, MAX_CELLS, counts, bytes_, marks, others, *_stacks())
                entries, sizes = (counts, bytes_) if are_fewer else (entries - counts, sizes - bytes_)
                entries[0] = len(wanted)
            positions = positions[wanted]
        rows = self._rows.fill(data, positions, marks, entries, sizes)
        bad = []
        for index in np.flatnonzero(failed >= 0).tolist():
            value = data[offsets[index] : offsets[index + 1]].tobytes()
            is_missing = missing is not None and missing[index]
            bad.append(bad_record(index, TOMBSTONE if is_missing else self._reason(value, failed[index])))
        return DecodedBatch(rows, positions, tuple(bad), left_out)

    def _reason(self, value: bytes, place: int) -> str:
        try:
            # The few bad records are walked once more, where there are words for everything.
            self._explain(value)
        except RecordError as error:
            return str(error)
        return f"it is damaged at byte {place:,}"

    @lazy_property
    def _explain(self) -> Callable[[bytes], None]:
        return make_walk(self._schema.parsed)


class _Filling:
    """Pass 2 of some columns."""

    def __init__(self, program: FillProgram, kept: AvroType, marked: list[int], constants: Constants) -> None:
        self.arrow = pa.schema(kept.arrow_fields)
        self._layout, self._memory = ArenaLayout(program), Memory()
        segments = np.array([(marked.index(field), pc) for field, pc in program.starts], np.int64)
        self._tables = (segments, program.ops, program.nulled, constants.symbols, constants.letters)

    def fill(self, data: _Bytes, positions: _Ints, marks: _Ints, entries: _Ints, sizes: _Ints) -> pa.RecordBatch:
        arena = Arena(self._layout, self._memory, entries, sizes)
        fill(data, positions, marks, *self._tables, arena.places, arena.used, arena.nulls, *arena.views, *_stacks())
        return pa.RecordBatch.from_arrays(arena.arrays(), schema=self.arrow)


def _stacks() -> tuple[_Ints, _Ints]:
    """Make room for the arrays and maps that a pass is inside of; compiled code can't allocate memory itself."""
    return np.empty(MAX_LOOPS, np.int64), np.empty(MAX_LOOPS, np.int64)
