"""Conditions such as ``candidate.magpsf < 18 and finkclass == "SN candidate"``: which alerts are taken.

The syntax is Python's, of which only what is named below is read; nothing is ever run as Python. As in SQL, a
comparison with null is neither true nor false, and an alert is taken where the condition is true.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fink_dask.avro.schema import field_type
from fink_dask.dataset.partitioning import column_of
from fink_dask.errors import SettingsError

#: Longer ones, or ones of more parts, nobody writes.
_MAX_LENGTH, _MAX_PARTS = 2000, 200
_SHOWN = 60
_QUOTED_TEXT = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""")

_COMPARISONS: dict[type[ast.cmpop], Callable[..., Any]] = {
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}
_ARITHMETIC: dict[type[ast.operator], Callable[..., Any]] = {
    ast.Add: pc.add,
    ast.Sub: pc.subtract,
    ast.Mult: pc.multiply,
    # Of integers as well, so that nothing is ever divided by an integer 0, which Arrow refuses.
    ast.Div: lambda first, second: pc.divide(pc.cast(first, pa.float64()), pc.cast(second, pa.float64())),
}
_WHAT_THERE_IS = "there are and, or, not, ==, !=, <, <=, >, >=, in, is None, +, -, *, /, numbers and quoted text"


@dataclass(frozen=True)
class Condition:
    """A condition on the columns of an alert; `read_condition` makes one.

    Parameters
    ----------
    text : str
        The condition, in one form for all ways to write it.
    """

    text: str

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns, or dotted fields, that it looks at."""
        return tuple(sorted(set(_columns(self._tree))))

    @cached_property
    def _tree(self) -> ast.expr:
        tree, quoted = _parse(self.text)
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                node.id = quoted.get(node.id, node.id)
        return tree

    def is_true(self, rows: pa.RecordBatch) -> npt.NDArray[np.bool_]:
        """Tell of each row whether the condition is true; the rows need no other columns than `columns`."""
        found = self.evaluate(rows)
        if isinstance(found, pa.Scalar):
            return np.full(rows.num_rows, bool(found.as_py()), np.bool_)
        mask: npt.NDArray[np.bool_] = pc.fill_null(found, False).to_numpy(zero_copy_only=False)
        return mask

    def evaluate(self, rows: pa.RecordBatch) -> pa.Array | pa.Scalar:
        """Return what the condition is for each row, or for all of them; null where that can't be told."""
        return _evaluate(self._tree, rows)


def read_condition(text: str, schema: pa.Schema) -> Condition:
    """Read a condition, and make sure that it can be asked of alerts with these columns.

    Parameters
    ----------
    text : str
        The condition. A column whose name is no name in Python stands in backticks.
    schema : pyarrow.Schema
        The alerts' columns.

    Raises
    ------
    SettingsError
        If it is no such condition, or a column is not there or of another type.
    """
    tree, quoted = _parse(text)
    canonical = ast.unparse(tree)
    for stand_in, name in quoted.items():
        canonical = canonical.replace(stand_in, f"`{name}`")
    condition = Condition(canonical)
    if not condition.columns:
        raise SettingsError(f"--where {text[:_SHOWN]!r}: it looks at no column")
    for column in condition.columns:
        kind = field_type(schema, column)
        if kind is None:
            raise SettingsError(f"--where: the alerts have no column {column[:_SHOWN]}{_near(column, schema)}")
        if pa.types.is_nested(kind):
            raise SettingsError(f"--where: {column[:_SHOWN]} is a {str(kind).split('<')[0]}, which has no single value")
    rows = pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)
    try:
        found = condition.evaluate(rows)
    except (pa.ArrowException, OverflowError) as error:
        kinds = ", ".join(f"{column[:_SHOWN]} is a {field_type(schema, column)}" for column in condition.columns)
        raise SettingsError(f"--where: what it compares does not go together ({kinds})") from error
    if not pa.types.is_boolean(found.type):
        raise SettingsError(f"--where: it has to be true or false, and is a {found.type}")
    return condition


def _parse(text: str) -> tuple[ast.expr, dict[str, str]]:
    """Read a condition, in which columns in backticks have stand-ins; returns those, too."""
    if len(text) > _MAX_LENGTH:
        raise SettingsError(f"--where: it is longer than {_MAX_LENGTH:,} characters")
    quoted: dict[str, str] = {}

    def put_stand_in(match: re.Match[str]) -> str:
        quoted[name := f"_backticks_{len(quoted)}_"] = match[1]
        return name

    # Text in quotes keeps its backticks.
    parts = re.split(_QUOTED_TEXT, text)
    parts[::2] = [re.sub(r"`([^`]+)`", put_stand_in, part) for part in parts[::2]]
    try:
        tree = ast.parse("".join(parts).strip(), mode="eval").body
    except SyntaxError as error:
        raise SettingsError(f"--where {text[:_SHOWN]!r}: {error.msg}; {_WHAT_THERE_IS}") from error
    except (ValueError, MemoryError, RecursionError) as error:
        raise SettingsError(f"--where {text[:_SHOWN]!r}: it can't be read; {_WHAT_THERE_IS}") from error
    if sum(1 for _ in ast.walk(tree)) > _MAX_PARTS:
        raise SettingsError(f"--where: it has more than {_MAX_PARTS} parts")
    _check(tree)
    return tree, quoted


def _check(node: ast.expr) -> None:
    """Refuse what is not of the language."""
    match node:
        case ast.BoolOp(values=parts):
            pass
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            parts = [operand]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            parts = [left, right]
        case ast.Compare(left=left, ops=ops, comparators=others):
            for comparison, other in zip(ops, others, strict=True):
                _check_comparison(comparison, other)
            parts = [left, *(other for sign, other in zip(ops, others, strict=True) if type(sign) in _COMPARISONS)]
        case ast.Constant(value=bool() | int() | float() | str()):
            parts = []
        case ast.Name() | ast.Attribute(value=ast.Name() | ast.Attribute()):
            parts = [] if isinstance(node, ast.Name) else [node.value]
        case _:
            raise SettingsError(f"--where: {ast.unparse(node)[:_SHOWN]!r} is not understood; {_WHAT_THERE_IS}")
    for part in parts:
        _check(part)


def _check_comparison(op: ast.cmpop, other: ast.expr) -> None:
    if isinstance(op, ast.Is | ast.IsNot):
        is_sound = isinstance(other, ast.Constant) and other.value is None
    elif isinstance(op, ast.In | ast.NotIn):
        is_sound = isinstance(other, ast.List | ast.Tuple) and all(_is_literal(one) for one in other.elts)
    else:
        is_sound = True
    if not is_sound:
        words = "is None, is not None, in [1, 2] and not in [1, 2] are understood"
        raise SettingsError(f"--where: {ast.unparse(other)[:_SHOWN]!r} does not belong there; {words}")


def _is_literal(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node = node.operand
    return isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float | str)


def _columns(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Name | ast.Attribute):
        yield _path(node)
        return
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            yield from _columns(child)


def _path(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else f"{_path(node.value)}.{node.attr}"  # type: ignore[attr-defined]


def _evaluate(node: ast.expr, rows: pa.RecordBatch) -> pa.Array | pa.Scalar:
    """Compute a part of a condition; `_check` has left no other kinds of them."""
    match node:
        case ast.Constant(value=value):
            return pa.scalar(value)
        case ast.Name() | ast.Attribute():
            return column_of(rows, _path(node))
        case ast.BoolOp(op=op, values=parts):
            join = pc.and_kleene if isinstance(op, ast.And) else pc.or_kleene
            return reduce(join, (_evaluate(part, rows) for part in parts))
        case ast.UnaryOp(op=op, operand=operand):
            value = _evaluate(operand, rows)
            return pc.invert(value) if isinstance(op, ast.Not) else pc.negate(value)
        case ast.BinOp(left=left, op=op, right=right):
            return _ARITHMETIC[type(op)](_evaluate(left, rows), _evaluate(right, rows))
        case ast.Compare(left=left, ops=ops, comparators=others):
            pairs = zip([left, *others[:-1]], ops, others, strict=True)
            return reduce(pc.and_kleene, (_compare(*pair, rows) for pair in pairs))
    raise AssertionError(node)


def _compare(left: ast.expr, op: ast.cmpop, right: ast.expr, rows: pa.RecordBatch) -> pa.Array | pa.Scalar:
    value = _evaluate(left, rows)
    if isinstance(op, ast.Is | ast.IsNot):
        return pc.is_null(value) if isinstance(op, ast.Is) else pc.is_valid(value)
    if isinstance(op, ast.In | ast.NotIn):
        assert isinstance(right, ast.List | ast.Tuple)
        found = reduce(
            pc.or_kleene, (pc.equal(value, _evaluate(one, rows)) for one in right.elts), pa.scalar(False, pa.bool_())
        )
        return pc.invert(found) if isinstance(op, ast.NotIn) else found
    return _COMPARISONS[type(op)](*_alike(value, _evaluate(right, rows)))


def _alike(*pair: pa.Array | pa.Scalar) -> tuple[pa.Array | pa.Scalar, ...]:
    """Read text that is compared with a time as one, in the form of ISO 8601."""
    times = [value.type for value in pair if pa.types.is_timestamp(value.type) or pa.types.is_date(value.type)]
    is_text = [pa.types.is_string(value.type) and isinstance(value, pa.Scalar) for value in pair]
    return tuple(value.cast(times[0]) if times and text else value for value, text in zip(pair, is_text, strict=True))


def _near(column: str, schema: pa.Schema) -> str:
    """Name a column that may be meant, within structs as well."""
    names = [field.name for field in schema]
    for field in schema:
        if pa.types.is_struct(field.type):
            names += [f"{field.name}.{field.type.field(index).name}" for index in range(field.type.num_fields)]
    last = column.rpartition(".")[2]
    same = [name for name in names if name.rpartition(".")[2] == last]
    found = same or difflib.get_close_matches(column, names, 1)
    return f"; is {found[0]} meant?" if found else ""
