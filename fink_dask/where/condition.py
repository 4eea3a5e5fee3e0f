"""Conditions on the columns of alerts: what they mean, and of which alerts they are true.

As in SQL, what is asked of null is neither true nor false, and an alert is taken where the condition is true. NaN is
equal to nothing and in no order with anything, as everywhere in Arrow. A literal is read as a value of the column that
it is compared with, or refused: no integer of 64 bits ever becomes a floating-point number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import time
from decimal import Decimal
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from fink_dask.avro.evolution import near_column
from fink_dask.avro.schema import field_type
from fink_dask.dataset.partitioning import column_of
from fink_dask.errors import SettingsError
from fink_dask.where.language import COMPARISONS, Expression, mistake, parse_condition

_Compute = Callable[[pa.RecordBatch], Any]
_FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
    "+": pc.add,
    "-": pc.subtract,
    "*": pc.multiply,
    "/": pc.divide,
    "and": pc.and_kleene,
    "or": pc.or_kleene,
}
_EQUALITY = {"==", "!="}
_TRUTHS = {*COMPARISONS, "and", "or", "not", "in", "not in", "is null", "is not null"}


def read_literal(node: Expression, kind: pa.DataType) -> pa.Scalar | None:
    """Read a literal as a value of a type, exactly; a number beside floating-point ones is rounded as those were.

    Returns None where it is no value of this type.
    """
    try:
        return _scalar(node, kind)
    except (pa.ArrowException, OverflowError, ValueError):
        return None


def _scalar(node: Expression, kind: pa.DataType) -> pa.Scalar | None:
    value = node.value
    if isinstance(value, bool):
        return pa.scalar(value) if pt.is_boolean(kind) else None
    if isinstance(value, Decimal):
        return _number(value, kind)
    if pt.is_string(kind):
        return pa.scalar(str(value), kind)
    return _moment(str(value), kind) if pt.is_temporal(kind) else None


def _number(value: Decimal, kind: pa.DataType) -> pa.Scalar | None:
    if pt.is_integer(kind):
        return pa.scalar(int(value), kind) if value == int(value) else None
    if pt.is_floating(kind):
        scalar = pa.scalar(float(value), kind)
        return scalar if math.isfinite(scalar.as_py()) else None
    return pa.scalar(value, kind) if pt.is_decimal(kind) else None


def _moment(text: str, kind: pa.DataType) -> pa.Scalar | None:
    if pt.is_time(kind):
        moment = time.fromisoformat(text)
        return pa.scalar(moment, kind) if moment.tzinfo is None else None
    scalar = pa.scalar(text)
    if pt.is_timestamp(kind) and kind.tz is not None:
        try:
            return scalar.cast(kind)
        except pa.ArrowInvalid:
            # Without a zone it is UTC, as all times of a dataset.
            return scalar.cast(pa.timestamp(kind.unit)).cast(kind)
    return scalar.cast(kind)


def example_of(kind: pa.DataType) -> str:
    """Say how a literal of a type is written, where that is not plain."""
    if pt.is_string(kind):
        return "; text stands in quotes"
    examples = {pt.is_timestamp: "2026-02-24T12:00:00", pt.is_date: "2026-02-24", pt.is_time: "12:00:00"}
    found = next((text for is_kind, text in examples.items() if is_kind(kind)), None)
    return "" if found is None else f', such as "{found}"'


@dataclass(frozen=True, eq=False)
class Condition:
    """A condition that is bound to the columns of alerts; `bind_condition` makes one."""

    #: The columns, or dotted fields, that it looks at.
    columns: tuple[str, ...]
    #: Computes it for rows that have these columns.
    evaluate: Callable[[pa.RecordBatch], pa.Array | pa.Scalar]

    def is_true(self, rows: pa.RecordBatch) -> npt.NDArray[np.bool_]:
        """Tell of each row whether the condition is true; the rows need no other columns than `columns`."""
        found = self.evaluate(rows)
        if isinstance(found, pa.Scalar):
            return np.full(rows.num_rows, found.as_py() is True, np.bool_)
        mask: npt.NDArray[np.bool_] = pc.fill_null(found, False).to_numpy(zero_copy_only=False)
        return mask


def bind_condition(text: str, schema: pa.Schema) -> Condition:
    """Read a condition, and make sure that it can be asked of alerts with these columns.

    Raises SettingsError if it is not one, or a column is not there, or is compared with what it can't be; it says
    where.
    """
    tree = parse_condition(text)
    columns = tuple(sorted(set(_columns(tree))))
    if not columns:
        raise SettingsError("the condition names no column: it would be the same for every alert")
    return Condition(columns, _Binder(text, schema).truth(tree))


def _columns(node: Expression) -> Iterator[str]:
    if node.op == "column":
        yield str(node.value)
    for part in node.parts:
        yield from _columns(part)


@dataclass(frozen=True, eq=False)
class _Operand:
    """What can be compared: its type, and how it is computed."""

    kind: pa.DataType
    compute: _Compute

    def cast(self, kind: pa.DataType) -> _Compute:
        """Compute it as another type, which holds all its values."""
        return self.compute if self.kind.equals(kind) else lambda rows: pc.cast(self.compute(rows), kind)


class _Binder:
    """Gives the parts of a condition their types."""

    def __init__(self, text: str, schema: pa.Schema) -> None:
        self._text = text
        self._schema = schema

    def truth(self, node: Expression) -> _Compute:
        """Bind what has to be true or false."""
        match node.op:
            case "and" | "or":
                join, parts = _FUNCTIONS[node.op], [self.truth(part) for part in node.parts]
                return lambda rows: reduce(join, (part(rows) for part in parts))
            case "not":
                inner = self.truth(node.parts[0])
                return lambda rows: pc.invert(inner(rows))
            case "truth":
                scalar = pa.scalar(bool(node.value))
                return lambda rows: scalar
        if node.op in COMPARISONS:
            return self._comparison(node)
        if node.op in _TRUTHS:
            return self._nullness(node) if node.op.startswith("is ") else self._member(node)
        if node.is_literal:
            raise self._mistake(node, "this is neither true nor false")
        found = self._operand(node)
        if not pt.is_boolean(found.kind):
            raise self._mistake(node, f"{node} is {_in_words(found.kind)}, neither true nor false")
        return found.compute

    def _comparison(self, node: Expression) -> _Compute:
        left, right = node.parts
        if left.is_literal and right.is_literal:
            raise self._mistake(node, "a comparison needs a column on one side")
        if left.is_literal:
            other = self._operand(right)
            values = [self._literal(left, other.kind, right), other.compute]
            kind = other.kind
        elif right.is_literal:
            other = self._operand(left)
            values = [other.compute, self._literal(right, other.kind, left)]
            kind = other.kind
        else:
            one, other = self._operand(left), self._operand(right)
            common = _common(one.kind, other.kind)
            if common is None:
                words = f"{left} is {_in_words(one.kind)}, and {right} is {_in_words(other.kind)}"
                raise self._mistake(node, f"{words}: they can't be compared")
            kind, values = common, [one.cast(common), other.cast(common)]
        if pt.is_boolean(kind) and node.op not in _EQUALITY:
            raise self._mistake(node, f"true and false have no order: {node.op} does not apply, == and != do")
        compare, (first, second) = _FUNCTIONS[node.op], values
        return lambda rows: compare(first(rows), second(rows))

    def _member(self, node: Expression) -> _Compute:
        first, *literals = node.parts
        if first.is_literal:
            raise self._mistake(first, "in needs a column before it")
        one, is_wanted = self._operand(first), node.op == "in"
        scalars = [self._literal(literal, one.kind, first)(None) for literal in literals]
        values = pa.concat_arrays([pa.repeat(scalar, 1) for scalar in scalars])
        nothing = pa.scalar(None, pa.bool_())

        def compute(rows: pa.RecordBatch) -> Any:
            found = one.compute(rows)
            if pt.is_floating(one.kind):
                found = pc.add(found, pa.scalar(0, one.kind))  # -0 is 0, but not where values are looked up
            is_there = pc.is_in(found, value_set=values)
            return pc.if_else(pc.is_valid(found), is_there if is_wanted else pc.invert(is_there), nothing)

        return compute

    def _nullness(self, node: Expression) -> _Compute:
        (part,) = node.parts
        if part.op != "column":
            raise self._mistake(part, f"{node.op} needs a column before it")
        path, ask = str(part.value), pc.is_null if node.op == "is null" else pc.is_valid
        self._kind(part)
        return lambda rows: ask(column_of(rows, path))

    def _operand(self, node: Expression) -> _Operand:
        """Bind what has a value."""
        if node.op in _TRUTHS:
            return _Operand(pa.bool_(), self.truth(node))
        if node.op == "column":
            kind, path = self._kind(node), str(node.value)
            if not _is_comparable(kind):
                more = " could" if pt.is_struct(kind) else " it can only be tested with is null, or is not null"
                words = f"{node} is {_in_words(kind)}, which can't be compared:"
                fields = f" its fields, such as {node}.{kind.field(0).name}," if pt.is_struct(kind) else ""
                raise self._mistake(node, f"{words}{fields}{more}")
            return _Operand(kind, lambda rows: column_of(rows, path))
        parts = [self._number(part) for part in node.parts]
        if node.op == "negative":
            return _Operand(pa.float64(), lambda rows: pc.negate(parts[0](rows)))
        function = _FUNCTIONS[node.op]
        return _Operand(pa.float64(), lambda rows: function(parts[0](rows), parts[1](rows)))

    def _number(self, node: Expression) -> _Compute:
        """Bind what is computed with, all of it in floating-point numbers of 64 bits."""
        if node.is_literal:
            return self._literal(node, pa.float64(), node)
        found = self._operand(node)
        if pt.is_int64(found.kind):
            raise self._mistake(node, f"{node} is an integer of 64 bits, and computing with it would round it")
        if not (pt.is_floating(found.kind) or pt.is_int32(found.kind)):
            raise self._mistake(node, f"{node} is {_in_words(found.kind)}, not a number to compute with")
        return found.cast(pa.float64())

    def _kind(self, node: Expression) -> pa.DataType:
        path = str(node.value)
        kind = field_type(self._schema, path)
        if kind is None:
            near = near_column(path, self._schema) or ("" if "." in path else "; text stands in quotes")
            raise self._mistake(node, f"the alerts have no column {node}{near}")
        return kind

    def _literal(self, node: Expression, kind: pa.DataType, beside: Expression) -> _Compute:
        """Read a literal as a value of the type of what it is compared with."""
        scalar = read_literal(node, kind)
        if scalar is None:
            what = "a number" if kind is pa.float64() and node is beside else f"a value of {beside}, {_in_words(kind)}"
            raise self._mistake(node, f"{node} is not {what}{example_of(kind)}")
        return lambda rows: scalar

    def _mistake(self, node: Expression, words: str) -> SettingsError:
        return mistake(self._text, node.at, words)


def _common(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Find the type that holds all values of two, or None."""
    if one.equals(other):
        return one
    if pt.is_integer(one) and pt.is_integer(other):
        return pa.int64()
    both = (one, other)
    if all(pt.is_floating(kind) or pt.is_int32(kind) for kind in both):
        return pa.float64()
    return None


def _is_comparable(kind: pa.DataType) -> bool:
    if pt.is_boolean(kind) or pt.is_string(kind) or pt.is_decimal(kind) or pt.is_temporal(kind):
        return True
    return bool(pt.is_integer(kind) or pt.is_floating(kind))


def _in_words(kind: pa.DataType) -> str:
    if pt.is_struct(kind):
        return "a struct"
    if pt.is_string(kind):
        return "text"
    word = "map" if pt.is_map(kind) else "list" if pt.is_list(kind) else str(kind)
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"
