"""The light curves of a dataset: its alerts, gathered by object, as rows with nested columns.

A dataset may be larger than memory, and the alerts of an object are anywhere in it. So alerts are first dealt into
buckets, all those of an object into the same one, and then each bucket is gathered by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fink_dask.avro.schema import field_type, is_single_value
from fink_dask.dataset.formats import KAFKA_FIELDS
from fink_dask.dataset.surveys import CLASSES
from fink_dask.errors import SettingsError, parameter

#: The nested column.
LIGHT_CURVE = "lightcurve"
#: The column with the number of alerts in a light curve.
ALERTS = "alerts"
#: Records of LSST's alerts with what Fink adds: classes and scores. Fields of all others have to be asked for.
_FINK = ("pred", "clf", "xm")
#: The prefix of the class that most alerts of an object have.
_USUAL = "usual_"
#: Object, record of full packets, identifier and time of each survey's detections; light packets have no such record.
_SURVEYS = (("objectId", "candidate", "candid", "jd"), ("diaObjectId", "diaSource", "diaSourceId", "midpointMjdTai"))
_POSITION = ("ra", "dec")
_ORDER = tuple(field.name for field in KAFKA_FIELDS)


@dataclass(frozen=True)
class LightCurveForm:
    """What light curves are made of.

    Parameters
    ----------
    object_id, source_id, time : str
        Names of the columns that tell objects and detections apart, and the detections' time.
    paths : dict of str to tuple of str
        Each column that is read, and where it is in an alert.
    nested : dict of str to str
        The columns of a light curve, and which of `paths` each is. A column that the object has too is prefixed with
        ``alert_``, because readers put the two side by side.
    """

    object_id: str
    source_id: str
    time: str
    paths: dict[str, tuple[str, ...]]
    nested: dict[str, str]

    def expressions(self) -> dict[str, pc.Expression]:
        """Return the columns to ask a scanner of the dataset for."""
        return {name: pc.field(*path) for name, path in self.paths.items()}

    @property
    def of_newest(self) -> tuple[str, ...]:
        """Columns that an object takes from its newest alert."""
        return _of_newest(self.object_id, self.paths)

    @property
    def classes(self) -> tuple[str, ...]:
        """Columns of classes."""
        return tuple(name for name in CLASSES if name in self.paths)


def find_form(schema: pa.Schema, columns: Sequence[str] | None = None) -> LightCurveForm:
    """Find the columns from which light curves of a dataset can be made.

    Parameters
    ----------
    schema : pyarrow.Schema
        The dataset's columns, partition columns too.
    columns : sequence of str, optional
        The columns of a light curve, and dotted fields; by default every one that is a single value: first those of the
        record with the position, then those of the alert, then what Fink has found out, such as ``pred.is_sso``, which
        is called ``pred_is_sso`` in the catalog.

    Raises
    ------
    SettingsError
        If the dataset has no objects, positions or times, or lacks one of the columns.
    """
    for object_id, record, source_id, time in _SURVEYS:
        prefix = (record,) if field_type(schema, f"{record}.ra") is not None else ()
        paths = {name: (*prefix, name) for name in _scalars(schema, prefix)}
        paths |= {name: (name,) for name in _scalars(schema, ()) if name not in paths}
        usual = {*paths, *(name for name in _dotted(schema, prefix) if name.partition(".")[0] in _FINK)}
        paths |= {name: tuple(name.split(".")) for name in _dotted(schema, prefix)}
        if {object_id, source_id, time, *_POSITION} <= paths.keys():
            break
    else:
        raise SettingsError(
            "a catalog needs objectId, candid, jd, ra and dec (of candidate), or diaObjectId, diaSourceId, "
            "midpointMjdTai, ra and dec (of diaSource), and the dataset lacks some of them"
        )
    if columns is not None and (unknown := [name for name in columns if name not in paths]):
        raise SettingsError(
            f"{parameter('columns')} {unknown[0][:80]}: there is no such column, or it is not a single value"
        )
    newest = _of_newest(object_id, paths)
    wanted = [name for name in paths if name != object_id and name in (usual if columns is None else columns)]
    if not wanted:
        raise SettingsError(f"{parameter('columns')} leaves the light curves without a column")
    nested = {_named(f"alert_{name}" if name in {*newest, ALERTS} else name): name for name in wanted}
    read = {source_id, time, *newest, *_ORDER, *wanted}
    return LightCurveForm(object_id, source_id, time, {name: paths[name] for name in paths if name in read}, nested)


def is_placed(rows: pa.Table, form: LightCurveForm) -> tuple[np.ndarray, np.ndarray]:
    """Tell for each alert whether it has an object, and whether it has a position.

    LSST gives alerts of the solar system the object 0.
    """
    ids = rows[form.object_id]
    no_object = "" if pa.types.is_string(ids.type) else 0
    ra, dec = (pc.fill_null(rows[name].cast(pa.float64()), np.nan).to_numpy() for name in _POSITION)
    has_position = (ra >= 0) & (ra <= 360) & (np.abs(dec) <= 90)
    return pc.fill_null(pc.not_equal(ids, no_object), False).to_numpy(), has_position


def gather(rows: pa.Table, form: LightCurveForm) -> tuple[pa.Table, int]:
    """Gather all alerts of each object into one row.

    Parameters
    ----------
    rows : pyarrow.Table
        All alerts of some objects.
    form : LightCurveForm
        The columns.

    Returns
    -------
    objects : pyarrow.Table
        A row per object: the columns of its newest alert, the class that most of its alerts have, the number of alerts,
        and the light curve in order of time.
    duplicates : int
        Alerts left out because an earlier one in Kafka's order has the same identifier.
    """
    unique = _without_duplicates(rows, form)
    table = unique.take(_by_object_and_time(unique, form)).combine_chunks()
    starts = _starts(table[form.object_id])
    ends = np.append(starts[1:], table.num_rows)
    newest = table.select(form.of_newest).take(pa.array(ends - 1))
    offsets = pa.array(np.append(starts, table.num_rows), pa.int32())
    newest = newest.rename_columns([_named(name) for name in newest.column_names])
    curves = [pa.ListArray.from_arrays(offsets, _array(table[name])) for name in form.nested.values()]
    for name in form.classes:
        newest = newest.append_column(_named(_USUAL + name), _most_frequent(table, form.object_id, name, newest))
    objects = newest.append_column(ALERTS, pa.array(ends - starts, pa.int64()))
    return objects.append_column(LIGHT_CURVE, pa.StructArray.from_arrays(curves, list(form.nested))), (
        rows.num_rows - unique.num_rows
    )


def _without_duplicates(rows: pa.Table, form: LightCurveForm) -> pa.Table:
    keys = [(name, "ascending") for name in (form.object_id, form.source_id, *_ORDER)]
    table = rows.take(pc.sort_indices(rows, keys))
    is_same = ~_is_first(table[form.object_id]) & ~_is_first(table[form.source_id])
    is_known = table[form.source_id].is_valid().to_numpy()
    return table.filter(pa.array(~(is_same & is_known)))


def _by_object_and_time(table: pa.Table, form: LightCurveForm) -> pa.Array:
    """Order alerts by time, the newest of each object last; those without a time come first."""
    time = pc.fill_null(table[form.time].cast(pa.float64()), -np.inf)
    keys = {name: table[name] for name in (form.object_id, *_ORDER)}
    keys["time"] = pc.if_else(pc.is_nan(time), -np.inf, time)
    return pc.sort_indices(pa.table(keys), [(name, "ascending") for name in (form.object_id, "time", *_ORDER)])


def _is_first(values: pa.ChunkedArray) -> np.ndarray:
    """Tell for each value whether it differs from the one before."""
    found = np.ones(len(values), dtype=bool)
    found[1:] = pc.fill_null(pc.not_equal(values.slice(1), values.slice(0, len(values) - 1)), True).to_numpy()
    return found


def _starts(values: pa.ChunkedArray) -> np.ndarray:
    return np.flatnonzero(_is_first(values))


def _array(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _of_newest(object_id: str, paths: Iterable[str]) -> tuple[str, ...]:
    return (object_id, *_POSITION, *(name for name in CLASSES if name in paths))


def _most_frequent(table: pa.Table, object_id: str, name: str, objects: pa.Table) -> pa.Array:
    """Find the value that most alerts of each object have; of several, the first in order; null where all are null."""
    known = table.select([object_id, name]).filter(table[name].is_valid())
    counts = known.group_by([object_id, name]).aggregate([([], "count_all")])
    order = counts.sort_by(
        [(object_id, "ascending"), ("count_all", "descending"), (name, "ascending")]
    ).combine_chunks()
    first = order.filter(pa.array(_is_first(order[object_id]))) if order.num_rows else order
    return first[name].take(pc.index_in(objects[object_id], first[object_id]))


def _named(path: str) -> str:
    """Name a column: to readers of catalogs, a dot leads into a nested column."""
    return path.replace(".", "_")


def _dotted(schema: pa.Schema, prefix: tuple[str, ...]) -> list[str]:
    """Name the single values in other records than the one of the detection."""
    return [
        f"{field.name}.{name}"
        for field in schema
        if pa.types.is_struct(field.type) and (field.name,) != prefix
        for name in _scalars(schema, (field.name,))
    ]


def _scalars(schema: pa.Schema, prefix: tuple[str, ...]) -> list[str]:
    fields = schema.field(prefix[0]).type if prefix else schema
    return [field.name for field in fields if is_single_value(field.type)]
