"""Noise in the shape of an Avro record: no value repeats, because repeats would flatter compression."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.alerts.schemas import AvroSchema

Columns = Mapping[str, Sequence[Any] | NDArray[Any]]
Row = dict[str, Any]

_WORDS = ("Unknown", "nan", "Star", "Galaxy", "QSO", "EB*", "RRLyr", "V*", "AGN_Candidate", "LPV*_Candidate", "δ Sct")
#: Columns other than ``…score`` that lie between 0 and 1, so that a filter on them keeps some alerts.
_SHARES = frozenset(
    {
        *("rb", "drb", "classtar", "mulens", "reliability", "extendedness", "legacydr8_pstar"),
        *("rf_snia_vs_nonia", "snn_snia_vs_nonia", "snn_sn_vs_all", "rf_kn_vs_nonkn"),
    }
)


def noisy_rows(
    schema: AvroSchema,
    count: int,
    rng: np.random.Generator,
    known: Columns,
    *,
    nulls: float = 0.01,
    nans: float = 0.0,
) -> list[Row]:
    """Make rows of a record: the known columns, and noise of the right type in all others.

    Parameters
    ----------
    schema : dict
        An Avro record of nullable primitives, and of nested types that are all known.
    count : int
        How many rows.
    rng : numpy.random.Generator
        Where the noise comes from.
    known : mapping
        Values of some columns by name, `count` of each. Names that the record lacks are ignored.
    nulls : float, optional
        The share of nulls in the columns that are not known.
    nans : float, optional
        The share of NaN in the floating-point columns that are not known.

    Returns
    -------
    list of dict
        The rows, ready for fastavro.
    """
    names: list[str] = []
    columns: list[Sequence[Any]] = []
    for field in schema["fields"]:
        name = field["name"]
        names.append(name)
        if name in known:
            values = known[name]
            columns.append(values.tolist() if isinstance(values, np.ndarray) else values)
        else:
            columns.append(_noise(name, field["type"][0], count, rng, nulls=nulls, nans=nans))
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def with_nulls(values: Sequence[Any], rng: np.random.Generator, share: float) -> list[Any]:
    """Copy a column with some of its values replaced by null.

    Parameters
    ----------
    values : sequence
        The column.
    rng : numpy.random.Generator
        Decides where.
    share : float
        Share of nulls, at least 0 and at most 1.

    Returns
    -------
    list
        The column with nulls.
    """
    column = list(values)
    for index in rng.integers(0, max(len(column), 1), rng.binomial(len(column), share)):
        column[index] = None
    return column


def _noise(name: str, kind: str, count: int, rng: np.random.Generator, *, nulls: float, nans: float) -> list[Any]:
    """Return a column of noise, of the scale that its name decides."""
    values: NDArray[Any]
    if kind in {"float", "double"}:
        dtype = np.float32 if kind == "float" else np.float64
        scale = 10.0 ** (zlib.crc32(name.encode()) % 6 - 2)
        share = name.endswith("score") or name in _SHARES
        values = rng.random(count, dtype) if share else rng.standard_normal(count, dtype) * dtype(scale)
        if name.lower().endswith(("err", "unc", "sigma")) or name.startswith("sigma"):
            values = np.abs(values)
        if nans:
            values[rng.random(count) < nans] = np.nan
    elif kind == "int":
        values = rng.integers(0, 100, count)
    elif kind == "long":
        values = rng.integers(2**53, 2**60, count)
    elif kind == "boolean":
        values = rng.random(count) < 0.03
    elif kind == "string":
        return with_nulls([_WORDS[i] for i in rng.integers(0, len(_WORDS), count)], rng, nulls)
    else:
        raise ValueError(f"no noise for the type {kind} of {name}")
    return with_nulls(values.tolist(), rng, nulls)
