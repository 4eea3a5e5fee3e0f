"""A few alerts to look at: their cutouts and light curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from fink_dask.report.fields import Fields, expression
from fink_dask.report.sample import Piece
from fink_dask.report.stamps import Image, read_stamp

Floats = npt.NDArray[np.float64]

#: Alerts that are shown; places of the dataset where they are looked for, and rows that are looked at in each.
SHOWN = 6
_PLACES, _ROWS = 8, 32
#: Points of a light curve, the last ones.
_POINTS = 500
#: Magnitudes that are none of this world; some packets have -999. A flux of magnitude 0, in nJy, and days of twenty
#: years: what is beyond would leave one needle of the curve.
_FAINTEST = 40.0
_MOST_FLUX = 3.63e12
_LONGEST = 7305.0
#: What bands are called that are none of the survey's.
OTHER_BAND = "other"


@dataclass(frozen=True)
class Points:
    """Measurements in one band: days before the alert, values and their errors."""

    days: Floats
    values: Floats
    errors: Floats


@dataclass(frozen=True)
class Example:
    """An alert to look at.

    Parameters
    ----------
    name, source, label : str
        Of the object, of the alert, and of its class; empty where there is none.
    stamps : dict of str to numpy.ndarray or None
        The cutouts, None where one can't be read; empty where there are none.
    curve : dict of str to Points
        The light curve, by band.
    beyond : int
        Points that it has not, as time or brightness can't be.
    """

    name: str
    source: str
    label: str
    stamps: Mapping[str, Image | None]
    curve: Mapping[str, Points]
    beyond: int = 0


def find_examples(dataset: ds.Dataset, pieces: Sequence[Piece], fields: Fields, with_stamps: bool) -> list[Example]:
    """Choose alerts with long histories and of different classes, here and there in the dataset.

    Parameters
    ----------
    dataset : pyarrow.dataset.Dataset
        The dataset.
    pieces : sequence of Piece
        Where to look.
    fields : Fields
        Where things are.
    with_stamps : bool
        Read cutouts as well.
    """
    columns = {role: expression(path) for role, path in fields.paths.items() if role not in {"ra", "dec"}}
    if fields.history:
        columns["history"] = expression(fields.survey.history)
    if with_stamps:
        columns |= {f"cutout {shown}": expression(path) for shown, path in fields.cutouts.items()}
    found = []
    for index in np.unique(np.linspace(0, len(pieces) - 1, _PLACES).astype(int)) if pieces else ():
        with suppress(OSError, pa.ArrowException, StopIteration):
            found.append(_first_rows(pieces[index], dataset.schema, columns))
    return [_example(rows, row, fields) for rows, row in _choose(found)]


def _first_rows(piece: Piece, schema: pa.Schema, columns: dict[str, pc.Expression]) -> pa.RecordBatch:
    """Read the first rows of a row group, and as little else of it as can be: cutouts are most of it."""
    group, _ = next(piece.groups())
    options = ds.ParquetFragmentScanOptions(use_buffered_stream=True, pre_buffer=False)
    scanner = group.scanner(
        schema=schema,
        columns=columns,
        batch_size=_ROWS,
        batch_readahead=0,
        fragment_readahead=0,
        fragment_scan_options=options,
    )
    return next(batch for batch in scanner.to_batches() if batch.num_rows)


def _choose(found: Sequence[pa.RecordBatch]) -> list[tuple[pa.RecordBatch, int]]:
    """Choose rows: longest histories first, and no class again before every other one has its turn."""
    known = [
        (-length, place, row, _text(batch, "class", row), _object(batch, row))
        for place, batch in enumerate(found)
        for row, length in enumerate(_lengths(batch))
    ]
    chosen: list[tuple[pa.RecordBatch, int]] = []
    objects: set[str] = set()
    classes: set[str] = set()
    for again in (False, True):
        for _, place, row, label, name in sorted(known):
            is_known = (bool(name) and name in objects) or (label in classes and not again)
            if len(chosen) < SHOWN and not is_known and (found[place], row) not in chosen:
                chosen.append((found[place], row))
                objects.add(name)
                classes.add(label)
    return chosen


def _lengths(batch: pa.RecordBatch) -> list[int]:
    if "history" not in batch.schema.names:
        return [0] * batch.num_rows
    lengths: list[int] = pc.fill_null(pc.list_value_length(batch["history"]), 0).to_pylist()
    return lengths


def _example(batch: pa.RecordBatch, row: int, fields: Fields) -> Example:
    stamps = {
        shown: read_stamp(batch[f"cutout {shown}"][row].as_py())
        for shown in fields.cutouts
        if f"cutout {shown}" in batch.schema.names
    }
    return Example(
        _object(batch, row), _text(batch, "source", row), _text(batch, "class", row), stamps,
        *_curve(batch, row, fields),
    )  # fmt: skip


def _curve(batch: pa.RecordBatch, row: int, fields: Fields) -> tuple[dict[str, Points], int]:
    """Put an alert's detection and the earlier ones together, by band; and count the points that can't be."""
    if not fields.has("time", "value"):
        return {}, 0
    columns = {
        role: [batch[role][row].as_py() if fields.has(role) else None] for role in ("time", "value", "error", "band")
    }
    now = columns["time"][0]
    if now is None or not math.isfinite(now):
        return {}, 0
    earlier = batch["history"][row].values if "history" in batch.schema.names else None
    if earlier is not None:
        for role, said in columns.items():
            known = earlier.field(fields.survey.names[role]).to_pylist() if role in fields.history else ()
            said[:0] = known or [None] * len(earlier)
    times, values, errors = (
        np.array([np.nan if value is None else value for value in columns[role]], dtype=np.float64)
        for role in ("time", "value", "error")
    )
    is_there = ~np.isnan(times) & ~np.isnan(values)
    if fields.survey.is_flux:
        is_sound = is_there & (np.abs(values) < _MOST_FLUX)
    else:
        is_sound = is_there & (values > 0) & (values < _FAINTEST)
    is_sound &= np.abs(times - now) < _LONGEST
    bands = np.array([band_name(fields, band) for band in columns["band"]])
    # One bar beyond all others would leave a flat line of the curve.
    most_error = _MOST_FLUX if fields.survey.is_flux else _FAINTEST
    errors = np.where((errors >= 0) & (errors < most_error), errors, 0)
    kept = np.flatnonzero(is_sound)
    kept = kept[np.argsort(times[kept], kind="stable")][-_POINTS:]
    curve = {
        str(band): Points(*(each[kept][bands[kept] == band] for each in (times - now, values, errors)))
        for band in sorted(set(bands[kept].tolist()))
    }
    return curve, int(np.count_nonzero(is_there & ~is_sound))


def band_name(fields: Fields, said: Any) -> str:
    """Name a band; what is none of the survey's is another one."""
    bands: Mapping[Any, str] = fields.survey.bands
    return bands.get(said, OTHER_BAND)


def _object(batch: pa.RecordBatch, row: int) -> str:
    """Name the object; LSST numbers that of what is in the solar system 0."""
    name = _text(batch, "object", row)
    return _text(batch, "mover", row) if name in ("", "0") else name


def _text(batch: pa.RecordBatch, role: str, row: int) -> str:
    value = batch[role][row].as_py() if role in batch.schema.names else None
    return "" if value is None else str(value)
