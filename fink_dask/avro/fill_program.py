"""Compile what is kept of a schema into the operations of pass 2, and how its columns become Arrow's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from fink_dask.avro import operations as op
from fink_dask.avro.nodes import Constants, Node
from fink_dask.avro.program import WIDTHS, Operations
from fink_dask.avro.types import MAX_DECIMAL128_DIGITS, AvroType

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
