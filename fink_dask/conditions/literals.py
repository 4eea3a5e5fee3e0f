"""Literals of a condition as values of the type of the column that they are compared with."""

from __future__ import annotations

import math
from datetime import time
from decimal import Decimal

import pyarrow as pa
import pyarrow.types as pt

from fink_dask.conditions.expression import Expression


def read_literal(node: Expression, kind: pa.DataType) -> pa.Scalar | None:
    """Read a literal as a value of a type, exactly; a number beside floating-point ones is rounded as those were.

    Returns
    -------
    pyarrow.Scalar or None
        None where it is no value of this type.
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
