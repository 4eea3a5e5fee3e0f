"""Compile a schema into the table of operations that pass 1 of the columnar decoder interprets.

A value that may be null is one operation with its union, and neighbours that are alike are one operation that repeats,
because a pass spends its time on choosing what comes next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from fink_dask.avro import operations as op
from fink_dask.avro.nodes import Constants, Node
from fink_dask.avro.types import END_OF_DAY

#: Bytes of the types that have a width of their own.
WIDTHS = {"boolean": 1, "float": 4, "double": 8}
#: Operations of pass 1 that read one value.
_CHECKS = {"null": op.NULL, "boolean": op.BOOLEAN, "long": op.LONG, "bytes": op.BYTES, "string": op.STRING}
_INT = (-(2**31), 2**31 - 1)


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
