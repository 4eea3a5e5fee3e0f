"""Compile a schema into the tables of operations that the two passes of the columnar decoder interpret.

A value that may be null is one operation with its union, and neighbours that are alike are one operation that repeats,
because a pass spends its time on choosing what comes next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fink_dask.avro import operations as op
from fink_dask.avro.operations import LIMIT_BYTES
from fink_dask.avro.types import END_OF_DAY, MAX_DECIMAL128_DIGITS, AvroType

#: Bytes of the types that have a width of their own.
WIDTHS = {"boolean": 1, "float": 4, "double": 8}
#: Operations of pass 1 that read one value.
_CHECKS = {"null": op.NULL, "boolean": op.BOOLEAN, "long": op.LONG, "bytes": op.BYTES, "string": op.STRING}
_INT = (-(2**31), 2**31 - 1)

#: Operations of pass 2 that read one value, and its bits in Arrow.
_VALUES = {
    "boolean": (op.BOOLEAN, 1),
    "int": (op.INT, 32),
    "long": (op.LONG, 64),
    "float": (op.FLOAT, 32),
    "double": (op.DOUBLE, 64),
    "bytes": (op.BYTES, 0),
    "string": (op.BYTES, 0),
}
_NUMBERS = {op.INT, op.LONG, op.FLOAT, op.DOUBLE}


@dataclass(frozen=True)
class Node:
    """A value's place in a schema, with the numbers of what pass 1 counts for it.

    Parameters
    ----------
    type : AvroType
        The type without its union.
    branches : int
        Branches of the union, 0 where there is none.
    null_byte : int
        The number of its null branch as a varint, -1 where there is none.
    scope : int
        What it has one entry for: 0 is each record, any other each item of an array or a map.
    slot : int
        For what has a length: the number of the sum of its bytes, or for arrays and maps the scope of their items.
    children : tuple of Node
        Fields; members of a choice; the item of an array; the key and the value of a map.
    is_member : bool
        Whether it is a member of a choice, which is null where another member is taken.
    """

    type: AvroType
    branches: int
    null_byte: int
    scope: int
    slot: int
    children: tuple[Node, ...]
    is_member: bool = False

    @property
    def nullable(self) -> bool:
        """Whether a value can be null."""
        return self.null_byte >= 0 or self.is_member


class Numbering:
    """Give every place of a schema the numbers of what pass 1 counts for it."""

    def __init__(self) -> None:
        self.scopes = 1
        self.slots = 0

    def node(self, node: AvroType, scope: int = 0, is_member: bool = False) -> Node:
        """Give numbers to a type and all that is in it."""
        kinds = [branch.kind for _, branch in node.branches]
        null_byte = 2 * kinds.index("null") if "null" in kinds else -1
        value, slot, inner = node.value, -1, scope
        if value.kind in {"array", "map"}:
            slot = inner = self.scopes
            self.scopes += 1
        elif value.kind in {"bytes", "string", "enum"}:
            slot = self.slots
            self.slots += 1
        members = (AvroType("string"), *value.children) if value.kind == "map" else value.children
        children = tuple(self.node(child, inner, node.kind == "choice") for child in members)
        return Node(value, len(kinds), null_byte, scope, slot, children, is_member)


class Constants:
    """Limits of decimals and symbols of enums, which operations refer to by number."""

    def __init__(self) -> None:
        self._limits: list[bytes] = []
        self._symbol_ends = [0]
        self._letters: list[bytes] = []
        self._first_symbol: dict[AvroType, int] = {}

    def limit(self, node: AvroType) -> int:
        """Add the greatest and, after it, the least unscaled value of a decimal; returns the number of the first."""
        greatest = 10**node.precision - 1
        self._limits += [value.to_bytes(LIMIT_BYTES, "big", signed=True) for value in (greatest, -greatest)]
        return len(self._limits) - 2

    def symbol(self, node: AvroType) -> int:
        """Add the symbols of an enum; returns the number of the first, which the others follow."""
        if node not in self._first_symbol:
            self._first_symbol[node] = len(self._symbol_ends) - 1
            for symbol in node.symbols:
                self._letters.append(symbol.encode())
                self._symbol_ends.append(self._symbol_ends[-1] + len(self._letters[-1]))
        return self._first_symbol[node]

    @property
    def limits(self) -> npt.NDArray[np.uint8]:
        """The limits, for the kernels."""
        return np.frombuffer(bytearray(b"".join(self._limits)), np.uint8).reshape(-1, LIMIT_BYTES)

    @property
    def symbols(self) -> npt.NDArray[np.int64]:
        """Where each symbol begins in `letters`, and where the last one ends."""
        return np.array(self._symbol_ends, np.int64)

    @property
    def letters(self) -> npt.NDArray[np.uint8]:
        """The bytes of all symbols."""
        return np.frombuffer(bytearray(b"".join(self._letters)), np.uint8)


class Operations:
    """A table of operations under construction."""

    def __init__(self) -> None:
        self.rows: list[list[int]] = []
        self._barrier = 0

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, code: int, node: Node | None = None, column: int = 0, a: int = 0, b: int = 0) -> list[int]:
        """Append an operation, or make the last one repeat."""
        branches, null_byte = (0, -1) if node is None else (node.branches, node.null_byte)
        if code >= op.NULL and len(self.rows) > self._barrier:
            last = self.rows[-1]
            if code == op.SKIP_FIXED and not branches and last[: op.NULL_BYTE] == [code, 1, 0]:
                # One stretch of bytes.
                last[op.A] += a
                return last
            alike = (
                last[op.CODE] == code and last[op.BRANCHES :][:2] == [branches, null_byte] and last[op.A :] == [a, b]
            )
            if alike and column in (last[op.COLUMN], last[op.COLUMN] + last[op.REPEAT]):
                last[op.REPEAT] += 1
                return last
        self.rows.append([code, 1, branches, null_byte, column, 0, a, b])
        return self.rows[-1]

    def add_choice(self, node: Node, column: int) -> Iterator[tuple[list[int], str, Node]]:
        """Append a choice; what is appended while a member is yielded, with its operation and name, reads it."""
        start = self.add(op.CHOICE, node, column)
        branches = [self.add(op.GOTO, column=-1) for _ in range(node.branches)]
        if node.null_byte >= 0:
            del branches[node.null_byte // 2]
        exits = []
        for branch, name, child in zip(branches, node.type.names, node.children, strict=True):
            self.end(branch)
            yield branch, name, child
            exits.append(self.add(op.GOTO, column=-1))
        for row in (start, *exits):
            self.end(row)

    def end(self, row: list[int]) -> None:
        """Make an operation jump to the next one that is added, which is therefore never joined to the last."""
        row[op.JUMP] = self._barrier = len(self.rows)

    def table(self) -> npt.NDArray[np.int64]:
        """Return the operations for the kernels, with the end."""
        self.add(op.STOP)
        return np.array(self.rows, dtype=np.int64)


def compile_walk(record: Node, constants: Constants, marked: Sequence[int]) -> npt.NDArray[np.int64]:
    """Compile the operations of pass 1.

    Parameters
    ----------
    record : Node
        The top-level record.
    constants : Constants
        Takes what the operations refer to.
    marked : sequence of int
        Fields of the top-level record where pass 1 notes the place in the bytes, in ascending order.

    Returns
    -------
    numpy.ndarray
        The operations.
    """
    ops = Operations()
    for index, child in enumerate(record.children):
        if index in marked:
            ops.add(op.MARK, a=marked.index(index))
        _walk(ops, child, constants)
    return ops.table()


def _walk(ops: Operations, node: Node, constants: Constants) -> None:
    kind, column = node.type.kind, max(node.slot, 0)
    if kind == "record":
        start = ops.add(op.RECORD, node) if node.branches else None
        for child in node.children:
            _walk(ops, child, constants)
        if start is not None:
            ops.end(start)
    elif kind == "choice":
        for _, _, child in ops.add_choice(node, column):
            _walk(ops, child, constants)
    elif kind in {"array", "map"}:
        start = ops.add(op.BLOCKS, node)
        body = len(ops)
        for child in node.children:
            _walk(ops, child, constants)
        cells = node.type.children[0].cells
        ops.add(op.NEXT, a=node.slot, b=cells)[op.JUMP] = body
        ops.end(start)
    elif node.type.logical == "decimal":
        ops.add(op.DECIMAL, node, a=constants.limit(node.type), b=node.type.size)
    elif kind == "enum":
        ops.add(op.ENUM, node, column, constants.symbol(node.type), len(node.type.symbols))
    elif kind in {"float", "double", "fixed"}:
        ops.add(op.SKIP_FIXED, node, a=WIDTHS.get(kind, node.type.size))
    elif kind == "int" or node.type.logical in END_OF_DAY:
        least, greatest = (0, END_OF_DAY[node.type.logical] - 1) if node.type.logical in END_OF_DAY else _INT
        ops.add(op.RANGED, node, a=least, b=greatest)
    elif kind != "null" or node.branches:
        ops.add(_CHECKS[kind], node, column)


@dataclass(frozen=True)
class Column:
    """What pass 2 fills for a node.

    Parameters
    ----------
    node : Node
        The node.
    bits : int
        Bits of a value, 0 where it has none or where they vary.
    unit : int
        Bytes that pass 2 counts its values in.
    parts : tuple of int
        Which parts of the arena hold it, without its validity: those that `fink_dask.avro.operations` numbers.
    """

    node: Node
    bits: int = 0
    unit: int = 1
    parts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Built:
    """How a column of Arrow is put together.

    Parameters
    ----------
    arrow : pyarrow.DataType
        Its type.
    scope : int
        The scope whose rows it has one entry for.
    column : int
        What pass 2 fills for it, -1 where there is nothing.
    parts : tuple of int
        The parts of that column, which are the buffers that follow its validity.
    children : tuple of Built
        Fields; members of a choice; the item of an array; the pairs of a map.
    """

    arrow: pa.DataType
    scope: int
    column: int = -1
    parts: tuple[int, ...] = ()
    children: tuple[Built, ...] = ()


class FillProgram:
    """The operations of pass 2, and how columns of Arrow are put together from what it fills.

    Parameters
    ----------
    record : Node
        The top-level record.
    kept : AvroType
        The fields of it that are filled.
    constants : Constants
        Takes what the operations refer to.

    Attributes
    ----------
    columns : list of Column
        What is filled.
    built : list of Built
        The columns of Arrow.
    starts : list of (int, int)
        The fields of the record where pass 2 starts to read, each with its first operation.
    ops : numpy.ndarray
        The operations.
    nulled : numpy.ndarray
        Columns with 32-bit offsets that a null leaves without an entry of their own, as operations refer to them.
    """

    def __init__(self, record: Node, kept: AvroType, constants: Constants) -> None:
        self._constants = constants
        self._ops = Operations()
        self._nulled: list[int] = []
        self.columns: list[Column] = []
        self.built: list[Built] = []
        self.starts: list[tuple[int, int]] = []
        wanted = dict(zip(kept.names, kept.children, strict=True))
        reading = False
        for index, (name, child) in enumerate(zip(record.type.names, record.children, strict=True)):
            if name not in wanted:
                reading = self._stop(reading)
                continue
            if not reading:
                self.starts.append((index, len(self._ops)))
            whole = record.type.children[index] is wanted[name]
            self.built.append(self._fill(child, wanted[name].value, is_last=not whole))
            # What follows the last field that is kept of a record is not read.
            reading = whole or self._stop(True)
        self._stop(reading)
        for row in self._ops.rows:
            if row[op.COLUMN] < 0:
                row[op.COLUMN] = len(self.columns)
        self.ops = self._ops.table()
        self.nulled = np.array(self._nulled, np.int64)

    def _stop(self, reading: bool) -> bool:
        if reading:
            self._ops.add(op.STOP)
        return False

    def _fill(self, node: Node, kept: AvroType, is_last: bool = False) -> Built:
        kind = kept.kind
        if kind == "record":
            return self._fill_record(node, kept, is_last)
        if kind == "choice":
            return self._fill_choice(node, kept)
        if kind in {"array", "map"}:
            return self._fill_blocks(node, kept)
        if kind == "null":
            if node.branches:
                self._ops.add(op.NULL, node, -1)
            return Built(kept.arrow, node.scope)
        a = b = 0
        if kept.logical == "decimal":
            code, bits, b = op.DECIMAL, 128 if kept.precision <= MAX_DECIMAL128_DIGITS else 256, kept.size
            a = bits // 8
        elif kind == "fixed":
            code, bits, a = op.FIXED, 8 * kept.size, kept.size
        elif kind == "enum":
            code, bits, a = op.ENUM, 0, self._constants.symbol(kept)
        else:
            code, bits = _VALUES[kind]
        unit = bits // 8 if code in _NUMBERS else 1
        column = self._column(node, bits, unit, (op.DATA,) if bits else (op.ENDS, op.TEXT))
        self._ops.add(code, node, column, a, b)
        return Built(kept.arrow, node.scope, column, self.columns[column].parts)

    def _column(self, node: Node, bits: int = 0, unit: int = 1, parts: tuple[int, ...] = ()) -> int:
        self.columns.append(Column(node, bits, unit, parts))
        return len(self.columns) - 1

    def _fill_record(self, node: Node, kept: AvroType, is_last: bool) -> Built:
        column = self._column(node) if node.nullable else -1
        start = self._ops.add(op.RECORD, node, column) if node.branches else None
        first = len(self.columns)
        wanted = dict(zip(kept.names, kept.children, strict=True))
        children: list[Built] = []
        for name, child, whole in zip(node.type.names, node.children, node.type.children, strict=True):
            if name in wanted:
                more = is_last and len(children) == len(wanted) - 1 and wanted[name] is not whole
                children.append(self._fill(child, wanted[name].value, is_last=more))
            elif not (is_last and len(children) == len(wanted)):
                self._skip(child)
        if start is not None:
            self._note_nulled(start, range(first, len(self.columns)), node.scope)
            self._ops.end(start)
        return Built(kept.arrow, node.scope, column, (), tuple(children))

    def _fill_choice(self, node: Node, kept: AvroType) -> Built:
        column = self._column(node) if node.nullable else -1
        start, first = len(self._ops), len(self.columns)
        wanted = dict(zip(kept.names, kept.children, strict=True))
        children: list[Built] = []
        for branch, name, child in self._ops.add_choice(node, column):
            if name in wanted:
                children.append(self._fill(child, wanted[name]))
                branch[op.COLUMN] = children[-1].column
            else:
                self._skip(child)
        self._note_nulled(self._ops.rows[start], range(first, len(self.columns)), node.scope)
        return Built(kept.arrow, node.scope, column, (), tuple(children))

    def _fill_blocks(self, node: Node, kept: AvroType) -> Built:
        column = self._column(node, parts=(op.ENDS,))
        start = self._ops.add(op.BLOCKS, node, column)
        body = len(self._ops)
        types = [AvroType("string"), *kept.children][-len(node.children) :]
        children = tuple(self._fill(child, type_.value) for child, type_ in zip(node.children, types, strict=True))
        if kept.kind == "map":
            pairs = pa.struct([kept.arrow.key_field, kept.arrow.item_field])
            children = (Built(pairs, node.slot, children=children),)
        self._ops.add(op.NEXT, None, column)[op.JUMP] = body
        self._note_nulled(start, [column], node.scope)
        self._ops.end(start)
        return Built(kept.arrow, node.scope, column, (op.ENDS,), children)

    def _note_nulled(self, start: list[int], columns: Sequence[int], scope: int) -> None:
        start[op.A] = len(self._nulled)
        for each in columns:
            if op.ENDS in self.columns[each].parts and self.columns[each].node.scope == scope:
                self._nulled.append(each)
        start[op.B] = len(self._nulled)

    def _skip(self, node: Node) -> None:
        kind = node.type.kind
        if kind == "record":
            start = self._ops.add(op.RECORD, node, -1) if node.branches else None
            for child in node.children:
                self._skip(child)
            if start is not None:
                self._ops.end(start)
        elif kind == "choice":
            for _, _, child in self._ops.add_choice(node, -1):
                self._skip(child)
        elif kind in {"array", "map"}:
            start = self._ops.add(op.BLOCKS, node, -1)
            body = len(self._ops)
            for child in node.children:
                self._skip(child)
            self._ops.add(op.NEXT, None, -1)[op.JUMP] = body
            self._ops.end(start)
        elif kind in {"int", "long", "enum"}:
            self._ops.add(op.SKIP_NUMBER, node, -1)
        elif kind in {"bytes", "string"}:
            self._ops.add(op.SKIP_BYTES, node, -1)
        elif kind != "null":
            self._ops.add(op.SKIP_FIXED, node, -1, WIDTHS.get(kind, node.type.size))
        elif node.branches:
            self._ops.add(op.NULL, node, -1)
