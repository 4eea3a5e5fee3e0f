"""Compile a schema into the table of operations that the decoder's loop interprets, and the columns that it writes.

A value that may be null is one operation with its union, and neighbours that are alike are one operation that repeats,
because a decoder spends its time on choosing what comes next.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fink_dask.avro import operations as op
from fink_dask.avro.types import END_OF_DAY, MAX_DECIMAL128_DIGITS, AvroType

_INT, _LONG = (-(2**31), 2**31 - 1), (-(2**63), 2**63 - 1)
#: Operations of the values that take as many bytes of a record as of a column.
_WIDTHS = {"float": (op.FLOAT, 4), "double": (op.DOUBLE, 8)}
_WORDS = {"string": 1, "bytes": 0}


@dataclass(frozen=True)
class Column:
    """What is written for a place in a schema."""

    #: What it has one entry for: 0 is each record, any other each item of an array or a map.
    scope: int
    #: Bytes of a value, or one of the forms in `fink_dask.avro.operations`.
    form: int
    #: Whether it has a validity.
    nullable: bool


@dataclass(frozen=True)
class Node:
    """A place in a schema that is written."""

    #: That of its column.
    scope: int
    #: The number of its column, -1 where there is none.
    column: int = -1
    #: Fields; members of a choice; the key and the value of a map, and the item of an array, by names of ours.
    children: Mapping[str, Node] = field(default_factory=dict)


@dataclass(frozen=True)
class Built:
    """How a column of Arrow is put together."""

    arrow: pa.DataType
    #: The scope whose rows it has one entry for.
    scope: int
    #: What was written for it, -1 where there is nothing.
    column: int = -1
    #: Fields; members of a choice; the item of an array; the pairs of a map.
    children: tuple[Built, ...] = ()

    def columns(self) -> Iterator[int]:
        """Yield what was written for it and all below."""
        if self.column >= 0:
            yield self.column
        for child in self.children:
            yield from child.columns()


class Operations:
    """A table of operations under construction."""

    def __init__(self) -> None:
        self.rows: list[list[int]] = []
        self._barrier = 0

    def __len__(self) -> int:
        return len(self.rows)

    def add(
        self, code: int, union: tuple[int, int] = (op.NO_UNION, op.NEVER), column: int = -1, a: int = 0, b: int = 0
    ) -> list[int]:
        """Append an operation, or make the last one repeat."""
        if code >= op.NULL and len(self.rows) > self._barrier:
            last = self.rows[-1]
            if code == op.SKIP_FIXED and union[0] == op.NO_UNION and last[: op.NULL_BYTE] == [code, 1, op.NO_UNION]:
                # One stretch of bytes.
                last[op.A] += a
                return last
            is_next = column == (last[op.COLUMN] + last[op.REPEAT] if column >= 0 else last[op.COLUMN])
            if is_next and last[op.CODE] == code and last[op.VALUE_BYTE : op.COLUMN] + last[op.A :] == [*union, a, b]:
                last[op.REPEAT] += 1
                return last
        self.rows.append([code, 1, *union, column, 0, a, b])
        return self.rows[-1]

    def end(self, row: list[int]) -> None:
        """Make an operation jump to the next one that is added, which is therefore never joined to the last."""
        row[op.JUMP] = self._barrier = len(self.rows)

    def table(self) -> npt.NDArray[np.int64]:
        """Return the operations for the kernels, one after the other, with the end."""
        self.add(op.STOP)
        return np.array(self.rows, dtype=np.int64).ravel()


class Program:
    """What a schema is compiled into.

    `record`: the top-level record, all of which is judged.
    `kept`: the fields of it that are written, a projection of it.
    """

    def __init__(self, record: AvroType, kept: AvroType) -> None:
        #: ops, nulled: the operations, and the columns that a null leaves empty, as operations refer to them.
        self._ops = Operations()
        self._nulled: list[int] = []
        #: The greatest and the least unscaled value of each decimal.
        self._limits: list[bytes] = []
        #: symbols, letters: where each symbol of the enums begins, and the bytes of all; the first one is that of a
        #: null, and empty.
        self._symbols: list[bytes] = [b""]
        self._first_symbol: dict[AvroType, int] = {}
        self.columns: list[Column] = []
        #: Of each scope, the column whose items it has and the scope of that; of the records, -1 and 0.
        self.lists = [(-1, 0)]
        self._nodes = self._fields(record, kept, 0)
        self.ops = self._ops.table()
        self.nulled = np.array(self._nulled, np.int64)
        self.limits = np.frombuffer(bytearray(b"".join(self._limits)), np.uint8)
        self.symbols = np.cumsum([0, *map(len, self._symbols)], dtype=np.int64)
        self.letters = np.frombuffer(bytearray(b"".join(self._symbols)), np.uint8)

    def build(self, kept: AvroType) -> list[Built]:
        """Say how the columns of a record are put together, whose fields are among those that are written."""
        return [_build(self._nodes[name], child) for name, child in zip(kept.names, kept.children, strict=True)]

    def _fields(self, type_: AvroType, kept: AvroType | None, scope: int) -> dict[str, Node]:
        """Compile the fields of a record, or what an item of an array or a map consists of."""
        wanted = {} if kept is None else dict(zip(kept.names, kept.children, strict=True))
        return {
            name: self._value(child, wanted.get(name), scope)
            for name, child in zip(type_.names, type_.children, strict=True)
        }

    def _value(self, type_: AvroType, kept: AvroType | None, scope: int, is_member: bool = False) -> Node:
        if type_.kind == "choice":
            return self._choice(type_, kept, scope)
        value, union = type_.value, (op.NO_UNION, op.NEVER)
        if type_.kind == "union":
            kinds = [branch.kind for _, branch in type_.branches]
            null = kinds.index("null") if "null" in kinds else -1
            others = [number for number in range(len(kinds)) if number != null]
            union = (2 * others[0] if others else op.NEVER, 2 * null if null >= 0 else op.NEVER)
        nullable = union[1] >= 0 or is_member
        kept = None if kept is None else kept.value
        if value.kind == "record":
            column = self._column(scope, op.NOTHING, nullable, kept)
            start = self._ops.add(op.RECORD, union, column) if union[0] != op.NO_UNION else None
            first = len(self.columns)
            node = Node(scope, column, self._fields(value, kept, scope))
            if start is not None:
                self._end_with_nulled(start, first, scope)
            return node
        if value.kind in {"array", "map"}:
            return self._blocks(value, kept, scope, nullable, union)
        if value.kind == "null":
            if union[0] != op.NO_UNION:
                self._ops.add(op.NULL, union)
            return Node(scope)
        return self._leaf(value, kept, scope, nullable, union)

    def _leaf(self, value: AvroType, kept: AvroType | None, scope: int, nullable: bool, union: tuple[int, int]) -> Node:
        kind = value.kind
        code, form, skip, a, b = op.FIXED, value.size, op.SKIP_FIXED, value.size, 0
        if value.logical == "decimal":
            code, skip, a, b = op.DECIMAL, op.SKIP_DECIMAL, self._limit(value), value.size
            form = 16 if value.precision <= MAX_DECIMAL128_DIGITS else 32
        elif kind in _WIDTHS:
            code, form = _WIDTHS[kind]
            a = form
        elif kind in _WORDS:
            code, form, skip, a = op.TEXT, op.PIECES, op.SKIP_TEXT, _WORDS[kind]
        elif kind == "boolean":
            code, form, skip = op.BOOLEAN, op.BITS, op.SKIP_BOOLEAN
        elif kind == "enum":
            code, form, skip, a, b = op.SYMBOL, op.SYMBOLS, op.SKIP_NUMBER, 0, len(value.symbols)
            if kept is None:
                b -= 1
            else:
                a = self._symbol(value)
        elif kind in {"int", "long"}:
            code, form, skip = (op.INT, 4, op.SKIP_NUMBER) if kind == "int" else (op.LONG, 8, op.SKIP_NUMBER)
            a, b = _INT if kind == "int" else _LONG
            if value.logical in END_OF_DAY:
                a, b = 0, END_OF_DAY[value.logical] - 1
        column = self._column(scope, form, nullable, kept)
        self._ops.add(skip if column < 0 else code, union, column, a, b)
        return Node(scope, column)

    def _blocks(
        self, value: AvroType, kept: AvroType | None, scope: int, nullable: bool, union: tuple[int, int]
    ) -> Node:
        column = self._column(scope, op.ITEMS, nullable, kept)
        inner = len(self.lists)
        if column >= 0:
            self.lists.append((column, scope))
        start = self._ops.add(op.BLOCKS, union, column, inner)
        body = len(self._ops)
        children = {}
        if value.kind == "map":
            key = AvroType("string")
            children["key"] = self._value(key, None if kept is None else key, inner)
        children["value"] = self._value(value.children[0], None if kept is None else kept.children[0], inner)
        self._ops.add(op.NEXT, column=column, a=inner, b=value.children[0].cells)[op.JUMP] = body
        self._ops.end(start)
        return Node(scope, column, children)

    def _choice(self, type_: AvroType, kept: AvroType | None, scope: int) -> Node:
        column = self._column(scope, op.NOTHING, type_.null_branch >= 0, kept)
        first, null_byte = len(self.columns), 2 * type_.null_branch if type_.null_branch >= 0 else op.NEVER
        start = self._ops.add(op.CHOICE, (len(type_.branches), null_byte), column)
        gotos = [self._ops.add(op.GOTO) for _ in type_.branches]
        wanted = {} if kept is None else dict(zip(kept.names, kept.children, strict=True))
        children, exits = {}, []
        for goto, (name, child) in zip(gotos, type_.branches, strict=True):
            if name:
                self._ops.end(goto)
                children[name] = self._value(child, wanted.get(name), scope, is_member=True)
                goto[op.COLUMN] = children[name].column
                exits.append(self._ops.add(op.GOTO))
        for row in exits:
            self._ops.end(row)
        self._end_with_nulled(start, first, scope)
        return Node(scope, column, children)

    def _column(self, scope: int, form: int, nullable: bool, kept: AvroType | None) -> int:
        if kept is None or (form == op.NOTHING and not nullable):
            return -1
        self.columns.append(Column(scope, form, nullable))
        return len(self.columns) - 1

    def _end_with_nulled(self, start: list[int], first: int, scope: int) -> None:
        start[op.A] = len(self._nulled)
        self._nulled += [each for each in range(first, len(self.columns)) if self.columns[each].scope == scope]
        start[op.B] = len(self._nulled)
        self._ops.end(start)

    def _limit(self, node: AvroType) -> int:
        greatest = 10**node.precision - 1
        self._limits += [value.to_bytes(op.LIMIT_BYTES, "big", signed=True) for value in (greatest, -greatest)]
        return len(self._limits) - 2

    def _symbol(self, node: AvroType) -> int:
        if node not in self._first_symbol:
            self._first_symbol[node] = len(self._symbols)
            self._symbols += [symbol.encode() for symbol in node.symbols]
        return self._first_symbol[node]


def _build(node: Node, kept: AvroType) -> Built:
    kept = kept.value
    if kept.kind in {"array", "map"}:
        value = _build(node.children["value"], kept.children[0])
        if kept.kind == "array":
            return Built(kept.arrow, node.scope, node.column, (value,))
        pairs = pa.struct([kept.arrow.key_field, kept.arrow.item_field])
        key = _build(node.children["key"], AvroType("string"))
        return Built(kept.arrow, node.scope, node.column, (Built(pairs, value.scope, -1, (key, value)),))
    children = zip(kept.names, kept.children, strict=True)
    return Built(
        kept.arrow, node.scope, node.column, tuple(_build(node.children[name], child) for name, child in children)
    )
