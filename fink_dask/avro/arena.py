"""One piece of memory for all columns of a batch, and the Arrow arrays that are slices of it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fink_dask.avro.fill_program import Built, FillProgram
from fink_dask.avro.operations import DATA, ENDS, TEXT, VALID
from fink_dask.errors import FinkDaskError
from fink_dask.kafka.memory import Memory

#: The greatest offset of Arrow that 32 bits hold.
MAX_OFFSET = 2**31 - 1
_ALIGNMENT = 64


class ArenaLayout:
    """What is the same for the arenas of all batches.

    Parameters
    ----------
    program : FillProgram
        Says which columns there are.

    Attributes
    ----------
    built : list of Built
        How columns of Arrow are put together.
    nullable, has_ends : numpy.ndarray of bool
        Whether a column has a validity and 32-bit offsets.
    bits, scopes, slots, units : numpy.ndarray of int64
        Of a column: bits of a value, the scope whose rows it has one entry for, where pass 1 counts its bytes, and the
        bytes of the unit in which pass 2 counts its values.
    """

    def __init__(self, program: FillProgram) -> None:
        columns = program.columns
        self.built = program.built
        self.nullable = np.array([column.node.nullable for column in columns], bool)
        self.has_ends = np.array([ENDS in column.parts for column in columns], bool)
        self.bits = np.array([column.bits for column in columns], np.int64)
        self.scopes = np.array([column.node.scope for column in columns], np.int64)
        self.slots = np.array([column.node.slot if TEXT in column.parts else -1 for column in columns], np.int64)
        self.units = np.array([column.unit for column in columns], np.int64)


class Arena:
    """The memory of one batch.

    Its parts are, in this order: every validity, which starts as ones; values of a fixed width and 32-bit offsets,
    which start as zeros; and bytes of any length, all of which pass 2 writes.

    Parameters
    ----------
    layout : ArenaLayout
        The columns.
    memory : Memory
        Where it is taken from.
    entries : numpy.ndarray of int64
        Rows of each scope.
    sizes : numpy.ndarray of int64
        Bytes of everything that has a length, and a last one that is 0.

    Attributes
    ----------
    used : numpy.ndarray of int64
        The last 32-bit offset of each column so far; the one after them belongs to none.
    nulls : numpy.ndarray of int64
        Nulls of each column so far.

    Raises
    ------
    FinkDaskError
        If a column is too large for its 32-bit offsets.
    """

    def __init__(
        self, layout: ArenaLayout, memory: Memory, entries: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]
    ) -> None:
        if max(sizes.max(), entries.max()) > MAX_OFFSET:
            raise FinkDaskError(
                f"the records do not fit in one Arrow record batch: a column of over {MAX_OFFSET:,} bytes"
            )
        self._layout = layout
        self._entries = entries
        rows = entries[layout.scopes]
        validity, values = (rows + 7) // 8 * layout.nullable, (rows * layout.bits + 7) // 8
        # One row a part, in the order of their numbers.
        self._lengths = np.array([validity, values, 4 * (rows + 1) * layout.has_ends, sizes[layout.slots]])
        stops = np.cumsum((self._lengths + _ALIGNMENT - 1) & -_ALIGNMENT)
        self._starts = np.concatenate([[0], stops[:-1]]).reshape(self._lengths.shape) if stops.size else self._lengths
        ones, zeros, everything = (int(stops[row * len(rows) - 1]) if stops.size else 0 for row in (1, 3, 4))
        self._bytes = memory.take(everything)
        self._memory = pa.py_buffer(self._bytes)
        self._begin, self._size = self._starts.tolist(), self._lengths.tolist()
        self._bytes[:ones] = 255
        self._bytes[ones:zeros] = 0
        self.nulls = np.zeros(len(rows), np.int64)
        self.used = np.zeros(len(rows) + 1, np.int64)

    @property
    def places(self) -> npt.NDArray[np.int64]:
        """Where the parts of each column begin, as pass 2 counts."""
        starts = self._starts
        return np.array([starts[VALID], starts[DATA] // self._layout.units, starts[ENDS] // 4, starts[TEXT]]).T.copy()

    @property
    def views(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """The memory as bytes, as int32 and as int64."""
        return self._bytes, self._bytes.view(np.int32), self._bytes.view(np.int64)

    def arrays(self) -> list[pa.Array]:
        """Return the columns of Arrow, none of them copied."""
        # Not by a nested function that calls itself: its reference cycle would keep the memory until it is collected.
        return [self._array(built) for built in self._layout.built]

    def _array(self, built: Built) -> pa.Array:
        rows, column = int(self._entries[built.scope]), built.column
        if column < 0 and not built.children:
            return pa.nulls(rows)
        null_count = int(self.nulls[column]) if column >= 0 else 0
        parts = (VALID, *built.parts) if null_count else built.parts
        buffers = [self._memory.slice(self._begin[part][column], self._size[part][column]) for part in parts]
        if not null_count:
            buffers.insert(0, None)
        children = [self._array(child) for child in built.children] or None
        return pa.Array.from_buffers(built.arrow, rows, buffers, null_count, 0, children)
