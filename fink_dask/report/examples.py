"""A few example alerts, with their light curves and cutouts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from fink_dask.dataset.cutouts import Image, read_stamp
from fink_dask.dataset.surveys import Fields, expression
from fink_dask.report.sample import Piece

Floats = npt.NDArray[np.float64]
T = TypeVar("T")

#: How many alerts are shown; in how many places of the dataset to look for them, and at how many rows in each.
SHOWN = 6
_PLACES, _ROWS = 8, 32
#: Objects with most alerts that are looked at for classes.
_OBJECTS = 200
#: What a measurement consists of.
_MEASURED = ("time", "value", "error", "band")
#: Only this many of a light curve's last points are shown.
_POINTS = 500
#: Limits of a magnitude (some packets have -999), of a flux in nJy (that of magnitude 0), and of time in days (twenty
#: years): a point beyond would squeeze the rest of the curve into a needle.
_FAINTEST = 40.0
_MAX_FLUX = 3.63e12
_LONGEST = 7305.0
#: The name of bands that are not the survey's.
OTHER_BAND = "other"


@dataclass(frozen=True)
class Points:
    """Measurements in one band: days before the alert, values and their errors; then days and values of limits."""

    days: Floats
    values: Floats
    errors: Floats
    limit_days: Floats = field(default_factory=lambda: np.empty(0))
    limits: Floats = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True)
class Example:
    """An alert to show."""

    #: name, source, label: names of the object, the alert and its class; empty if there is none.
    name: str
    source: str
    label: str
    #: The cutouts, None for one that can't be read; empty if there are none.
    stamps: Mapping[str, Image | None]
    #: The light curve, by band.
    curve: Mapping[str, Points]
    #: Points left out because their time or brightness is impossible.
    beyond: int = 0
    #: Whether the brightness is a flux, and what the survey calls it, where several are shown.
    is_flux: bool = False
    quantity: str = ""


def find_examples(dataset: ds.Dataset, pieces: Sequence[Piece], fields: Fields, with_stamps: bool) -> list[Example]:
    """Choose alerts with many earlier detections and of different classes, from all over the dataset."""
    columns = {role: expression(path) for role, path in fields.paths.items() if role not in {"ra", "dec"}}
    if fields.history:
        columns["history"] = expression(fields.survey.history)
    if with_stamps:
        columns |= {f"cutout {shown}": expression(path) for shown, path in fields.cutouts.items()}
    found = []
    for index in np.unique(np.linspace(0, len(pieces) - 1, _PLACES).astype(int)) if pieces else ():
        with suppress(OSError, pa.ArrowException, StopIteration):
            found.append(_first_rows(pieces[index], dataset.schema, columns))
    return [_example(rows, row, fields) for rows, row in _choose(found, fields)]


def find_objects(rows: pa.Table, fields: Fields) -> list[Example]:
    """Choose objects with many alerts and of different classes, where alerts have no history.

    `rows`: some or all alerts, with the columns of `fields` by role.
    """
    if not fields.has("object", "time", "value") or not rows.num_rows:
        return []
    names = rows["object"].cast(pa.string())
    counts = {each["values"]: each["counts"] for each in pc.value_counts(names).to_pylist()}
    # What LSST sees of the solar system belongs to no object: it is 0 of all of it.
    longest = sorted((name for name in counts if name and name != "0"), key=lambda name: (-counts[name], name))
    labels: dict[str, str] = {}
    if fields.has("class"):
        some = pc.is_in(names, pa.array(longest[:_OBJECTS], pa.string()))
        known = zip(names.filter(some).to_pylist(), rows["class"].filter(some).to_pylist(), strict=True)
        labels = {name: fields.class_name(value) for name, value in known}
    found = []
    for name in _of_many_classes([(name, labels.get(name, ""), name) for name in longest[:_OBJECTS]]):
        alerts = rows.filter(pc.equal(names, name)).sort_by("time")
        columns = {
            role: alerts[role].to_pylist() if fields.has(role) else [None] * alerts.num_rows for role in _MEASURED
        }
        times = [time for time in columns["time"] if time is not None and math.isfinite(time)]
        if times:
            source = str(alerts["source"][-1]) if fields.has("source") else ""
            curve, beyond = _points(columns, times[-1], fields)
            found.append(Example(name, source, labels.get(name, ""), {}, curve, beyond, fields.survey.is_flux))
    return found


def _first_rows(piece: Piece, schema: pa.Schema, columns: dict[str, pc.Expression]) -> pa.RecordBatch:
    """Read the first rows of a row group, and as little else of it as possible, as cutouts make it large."""
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


def _choose(found: Sequence[pa.RecordBatch], fields: Fields) -> list[tuple[pa.RecordBatch, int]]:
    """Choose rows: most earlier detections first."""
    known = sorted(
        (-detections, place, row)
        for place, batch in enumerate(found)
        for row, detections in enumerate(_detections(batch, fields))
    )
    rows = [(found[place], row) for _, place, row in known]
    return _of_many_classes([(each, _text(each[0], "class", each[1]), _object(*each)) for each in rows])


def _of_many_classes(known: Sequence[tuple[T, str, str]]) -> list[T]:
    """Choose from what is in order, with class and object: no class twice before every other has had its turn."""
    chosen: list[int] = []
    objects: set[str] = set()
    classes: set[str] = set()
    for again in (False, True):
        for number, (_, label, name) in enumerate(known):
            is_known = (bool(name) and name in objects) or (label in classes and not again)
            if len(chosen) < SHOWN and not is_known and number not in chosen:
                chosen.append(number)
                objects.add(name)
                classes.add(label)
    return [known[number][0] for number in chosen]


def _detections(batch: pa.RecordBatch, fields: Fields) -> list[int]:
    """Count the earlier measurements of each row that have a brightness: upper limits have none."""
    if "history" not in batch.schema.names:
        return [0] * batch.num_rows
    history = batch["history"]
    is_detection = pc.list_flatten(history).field(fields.survey.names["value"]).is_valid()
    counts: list[int] = np.bincount(
        pc.list_parent_indices(history).filter(is_detection).to_numpy(), minlength=batch.num_rows
    ).tolist()
    return counts


def _example(batch: pa.RecordBatch, row: int, fields: Fields) -> Example:
    stamps = {
        shown: read_stamp(batch[f"cutout {shown}"][row].as_py())
        for shown in fields.cutouts
        if f"cutout {shown}" in batch.schema.names
    }
    return Example(
        _object(batch, row), _text(batch, "source", row), _label(batch, row, fields), stamps,
        *_curve(batch, row, fields), fields.survey.is_flux,
    )  # fmt: skip


def _curve(batch: pa.RecordBatch, row: int, fields: Fields) -> tuple[dict[str, Points], int]:
    """Combine an alert's detection with the earlier ones, by band; also count the points that are impossible."""
    if not fields.has("time", "value"):
        return {}, 0
    columns = {role: [batch[role][row].as_py() if fields.has(role) else None] for role in _MEASURED}
    columns["limit"] = [None]
    now = columns["time"][0]
    if now is None or not math.isfinite(now):
        return {}, 0
    earlier = batch["history"][row].values if "history" in batch.schema.names else None
    if earlier is not None:
        for role, said in columns.items():
            name = fields.survey.names.get(role, fields.survey.limit)
            known = earlier.field(name).to_pylist() if role in fields.history else ()
            said[:0] = known or [None] * len(earlier)
    return _points(columns, now, fields)


def _points(columns: Mapping[str, list[Any]], now: float, fields: Fields) -> tuple[dict[str, Points], int]:
    bands = np.array([band_name(fields, band) for band in columns["band"]])
    return points_by_band(columns, now, bands, fields.survey.is_flux)


def points_by_band(
    columns: Mapping[str, list[Any]], now: float, bands: npt.NDArray[np.str_], is_flux: bool
) -> tuple[dict[str, Points], int]:
    """Sort measurements by band and time; a measurement without a brightness may have a limit.

    `columns`: the ``time``, ``value``, ``error`` and ``limit`` of each measurement, None for what it lacks.
    `is_flux`: whether the values are fluxes in nJy; otherwise they are magnitudes.
    Returns: by band; and how many points are left out, as they are impossible.
    """
    times, values, errors, limits = (
        np.array([np.nan if value is None else value for value in columns.get(role, [])], dtype=np.float64)
        for role in ("time", "value", "error", "limit")
    )
    is_there = ~np.isnan(times) & ~np.isnan(values)
    is_near = np.abs(times - now) < _LONGEST
    is_possible = np.abs(values) < _MAX_FLUX if is_flux else (values > 0) & (values < _FAINTEST)
    is_sound = is_there & is_near & is_possible
    # A single enormous error bar would flatten the curve into a line.
    max_error = _MAX_FLUX if is_flux else _FAINTEST
    errors = np.where((errors >= 0) & (errors < max_error), errors, 0)
    unseen = is_near & np.isnan(values) & (limits > 0) & (limits < _FAINTEST) if len(limits) else np.zeros(0, bool)

    def last(which: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        kept = np.flatnonzero(which)
        return kept[np.argsort(times[kept], kind="stable")][-_POINTS:]

    kept, below = last(is_sound), last(unseen)
    curve = {}
    for band in sorted({*bands[kept].tolist(), *bands[below].tolist()}):
        seen, limit = kept[bands[kept] == band], below[bands[below] == band]
        points = (times[seen] - now, values[seen], errors[seen])
        curve[str(band)] = Points(*points, times[limit] - now, limits[limit] if len(limits) else np.empty(0))
    return curve, int(np.count_nonzero(is_there & ~is_sound))


def band_name(fields: Fields, said: Any) -> str:
    """Name a band; one that is not the survey's is called `OTHER_BAND`."""
    bands: Mapping[Any, str] = fields.survey.bands
    return bands.get(said, OTHER_BAND)


def _label(batch: pa.RecordBatch, row: int, fields: Fields) -> str:
    return fields.class_name(batch["class"][row].as_py()) if "class" in batch.schema.names else ""


def _object(batch: pa.RecordBatch, row: int) -> str:
    """Name the object; LSST numbers that of what is in the solar system 0."""
    name = _text(batch, "object", row)
    return _text(batch, "mover", row) if name in ("", "0") else name


def _text(batch: pa.RecordBatch, role: str, row: int) -> str:
    value = batch[role][row].as_py() if role in batch.schema.names else None
    return "" if value is None else str(value)
