"""An alert for people, on a terminal or in a pipe, and for programs, as JSON."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from rich.columns import Columns
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from fink_dask.dataset.formats import KAFKA_FIELDS
from fink_dask.units import pluralize, printable

#: Characters of a name and of a value, items of a list, rows of a table, and fields of a struct.
_NAME, _VALUE, _ITEMS, _ROWS, _FIELDS = 40, 48, 4, 3, 1500
#: What a measurement is read by: time, band, brightness, its error, and what would have been seen.
_FIRST = ("jd", "midpointMjdTai", "fid", "band", "magpsf", "psfFlux", "sigmapsf", "psfFluxErr", "diffmaglim")
_BRIGHTNESS = ("magpsf", "psfFlux")
#: Characters of a name with its value that stand beside others.
_BESIDE = 34
#: Blanks between the columns of a table.
_GAP = 2
#: Levels of structs that are shown; deeper ones are cut short.
_LEVELS = 8
_FAINT = "dim"


def alert_tree(title: str, alert: pa.RecordBatch) -> Tree:
    """Draw an alert: its values, then the content of its structs and lists."""
    tree = Tree(Text(printable(title, 200), style="bold"), guide_style=_FAINT)
    fields = [
        (field.name, field.type, _value(alert, index))
        for index, field in enumerate(alert.schema)
        if field not in KAFKA_FIELDS  # the title says where it is
    ]
    _grow(tree, fields, _LEVELS)
    return tree


def as_json(alert: pa.RecordBatch) -> dict[str, Any]:
    """Return an alert as JSON values: numbers with all their digits, null for NaN, bytes in Base64."""
    return {field.name: _plain(_value(alert, index), field.type) for index, field in enumerate(alert.schema)}


def _grow(tree: Tree, fields: Sequence[tuple[str, pa.DataType, Any]], levels: int) -> None:
    """Add fields to a branch: single values side by side, those of a measurement first, then others; nulls by name."""
    single, nothing, branches = [], [], []
    for name, kind, value in sorted(fields[:_FIELDS], key=lambda field: field[0] not in _FIRST):
        if value is None:
            nothing.append(printable(name, _NAME))
        elif pa.types.is_nested(kind) and not _is_short(kind, value):
            branches.append((name, kind, value))
        else:
            single.append(Text.assemble((f"{printable(name, _NAME)} ", _FAINT), _words(value, kind)))
    # One long value would leave room for a single column of all.
    beside = [words for words in single if words.cell_len <= _BESIDE]
    if beside:
        tree.add(Columns(beside, padding=(0, 3), column_first=True))
    for words in single:
        if words.cell_len > _BESIDE:
            tree.add(words)
    for name, kind, value in branches:
        _branch(tree, name, kind, value, levels)
    if nothing:
        tree.add(Text(f"null: {', '.join(nothing)}", style=_FAINT))
    if len(fields) > _FIELDS:
        tree.add(Text(f"and {len(fields) - _FIELDS:,} more", style=_FAINT))


def _branch(tree: Tree, name: str, kind: pa.DataType, value: Any, levels: int) -> None:
    label = Text(printable(name, _NAME), style="cyan")
    if levels == 0:
        tree.add(label.append(" …"))
    elif pa.types.is_struct(kind):
        _grow(tree.add(label), [(field.name, field.type, value.get(field.name)) for field in kind], levels - 1)
    elif pa.types.is_map(kind):
        entries = [(str(key), kind.item_type, item) for key, item in value]
        _grow(tree.add(label.append(f" {pluralize(len(entries), 'entry', 'entries')}", _FAINT)), entries, levels - 1)
    elif pa.types.is_struct(kind.value_type):
        tree.add(
            Group(
                label.append(f" {pluralize(len(value), 'entry', 'entries')}", _FAINT), _Entries(kind.value_type, value)
            )
        )
    else:
        shown = ", ".join(_words(item, kind.value_type) for item in value[:_ITEMS])
        more = f", … and {len(value) - _ITEMS:,} more" if len(value) > _ITEMS else ""
        tree.add(label.append(f" [{shown}{more}]", ""))


class _Entries:
    """A few entries of a list, with as many columns as there is room for: none is cut, as half an id is none."""

    def __init__(self, kind: pa.StructType, rows: Sequence[dict[str, Any] | None]) -> None:
        self._rows = [row or {} for row in rows]
        self._shown = [self._rows[index] for index in _chosen(self._rows)]
        self._fields = _in_order(
            [
                field
                for field in kind
                if not pa.types.is_nested(field.type) and any(row.get(field.name) is not None for row in self._shown)
            ]
        )

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table(box=None, pad_edge=False, header_style=_FAINT, expand=False)
        room, left_out = options.max_width, []
        columns = []
        for field in self._fields:
            words = [Text(_words(row.get(field.name), field.type)) for row in self._shown]
            name = Text(printable(field.name, _NAME))
            width = max(text.cell_len for text in (name, *words)) + _GAP
            if width > room:
                left_out.append(name.plain)
                continue
            room -= width
            table.add_column(name, no_wrap=True)
            columns.append(words)
        for row in zip(*columns, strict=True):
            table.add_row(*row)
        yield table
        notes = []
        if len(self._rows) > len(self._shown):
            notes.append(pluralize(len(self._rows) - len(self._shown), "more entry", "more entries"))
        if left_out:
            more = f" and {pluralize(len(left_out) - _ITEMS, 'other')}" if len(left_out) > _ITEMS else ""
            notes.append(f"without {', '.join(left_out[:_ITEMS])}{more}")
        if notes:
            yield Text(f"… {', '.join(notes)}", style=_FAINT)


def _chosen(rows: Sequence[dict[str, Any]]) -> list[int]:
    """Choose the newest entries: of those of a light curve, detections rather than upper limits."""
    has_brightness = [any(row.get(name) is not None for name in _BRIGHTNESS) for row in rows]
    ranked = sorted(range(len(rows)), key=lambda index: (has_brightness[index], index))
    return sorted(ranked[-_ROWS:])


def _in_order(fields: Sequence[Any]) -> list[Any]:
    """Put time, band, brightness, error and limit first, and text, which is long, last."""

    def place(field: Any) -> int:
        if field.name in _FIRST:
            return _FIRST.index(field.name)
        return len(_FIRST) + int(pa.types.is_string(field.type))

    return sorted(fields, key=place)


def _is_short(kind: pa.DataType, value: Any) -> bool:
    return not pa.types.is_struct(kind) and not len(value)


def _words(value: Any, kind: pa.DataType) -> str:
    """Say a value in a few characters."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return decimal(len(value))
    if pa.types.is_float32(kind):
        return str(np.float32(value))
    if pa.types.is_nested(kind):
        return "[]" if not value else "…"
    return printable(str(value), _VALUE)


def _plain(value: Any, kind: pa.DataType) -> Any:
    if isinstance(value, dict):
        return {field.name: _plain(value.get(field.name), field.type) for field in kind}
    if isinstance(value, list) and pa.types.is_map(kind):
        entries = [(str(key), _plain(item, kind.item_type)) for key, item in value]
        # Unlike a JSON object, an Avro map may have a key twice.
        return dict(entries) if len(dict(entries)) == len(entries) else [list(entry) for entry in entries]
    if isinstance(value, list):
        return [_plain(item, kind.value_type) for item in value]
    return _plain_scalar(value, kind)


def _plain_scalar(value: Any, kind: pa.DataType) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if not isinstance(value, float):
        return str(value)
    if not math.isfinite(value):
        return None
    # The shortest decimal that reads back as this number; for 32 bits it has fewer digits.
    return float(str(np.float32(value))) if pa.types.is_float32(kind) else value


def _value(alert: pa.RecordBatch, column: int) -> Any:
    """Return a value as a Python object."""
    value = alert.column(column)[0]
    try:
        return value.as_py()
    except (ValueError, OverflowError, pa.ArrowException):
        return _careful(value)


def _careful(value: pa.Scalar) -> Any:
    """Return a value that may hold dates beyond Python's; these stay numbers, as in the alert."""
    if not value.is_valid:
        return None
    if isinstance(value, pa.StructScalar):
        return {name: _careful(value[name]) for name in value}
    if isinstance(value, pa.MapScalar):
        return [(key.as_py(), _careful(item)) for key, item in zip(*value.values.flatten(), strict=True)]
    if isinstance(value, pa.ListScalar):
        return [_careful(item) for item in value.values]
    try:
        return value.as_py()
    except (ValueError, OverflowError, pa.ArrowException):
        return str(value.value)
