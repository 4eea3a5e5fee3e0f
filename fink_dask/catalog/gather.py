"""What the rows of a catalog are: the alerts of an object as one row with a nested column, or an alert that has none.

A dataset may be larger than memory, and the alerts of an object are anywhere in it. So alerts are first dealt into
buckets, all those of an object into the same one, and then each bucket is gathered by itself. A row can be taken apart
again: that is how an object gets the alerts of the next night.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fink_dask.catalog.form import (
    ALERTS,
    DESIGNATION,
    LIGHT_CURVE,
    PLACE,
    POINTS,
    POSITION,
    USUAL,
    Form,
    named,
)
from fink_dask.lightcurves.points import ALERT, OBJECT, each_once

#: About how many bytes a file of the catalog takes in memory: what a task of LSDB holds.
FILE_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Alerts:
    """Some alerts."""

    #: The columns of a form; with history, also the detection of each alert as a point.
    rows: pa.Table
    #: What they tell of other times, and of which object; None without history.
    points: pa.Table | None = None

    def chosen(self, is_chosen: pa.Array, key: str) -> Alerts:
        """Return some of them, and what these tell."""
        rows = self.rows.filter(is_chosen)
        if self.points is None:
            return Alerts(rows)
        ids = rows[key].unique()
        return Alerts(rows, self.points.filter(pc.is_in(self.points[OBJECT], ids)))


def joined(parts: list[Alerts]) -> Alerts:
    """Put alerts together."""
    points = [part.points for part in parts if part.points is not None]
    return Alerts(pa.concat_tables([part.rows for part in parts]), pa.concat_tables(points) if points else None)


class Rows(Protocol):
    """One of the catalogs that a dataset is exported to, as rows."""

    #: The column that no two rows have the same value of.
    key: str
    #: The columns by which rows can be found.
    indexed: tuple[str, ...]
    #: What HATS calls such a catalog.
    catalog_type: str
    #: The columns of its alerts.
    form: Form

    @property
    def schema(self) -> pa.Schema:
        """The columns of a row."""

    @property
    def flat(self) -> pa.Schema:
        """The columns of an alert."""

    @property
    def most_in_file(self) -> int:
        """The largest sum of `weights` in a file."""

    def flatten(self, rows: pa.Table, own: pa.Table | None) -> pa.Table:
        """Call what was read of alerts as this catalog does, beside the point that each of them is."""

    def gather(self, alerts: Alerts) -> tuple[pa.Table, int]:
        """Make rows of alerts; returns also how many were left out, as others have the same identifier."""

    def take_apart(self, rows: pa.Table) -> Alerts:
        """Return the alerts that rows were made of."""

    def weights(self, rows: pa.Table) -> np.ndarray:
        """Tell how large each row is."""

    def alerts_of(self, rows: pa.Table) -> int:
        """Count the alerts in rows."""


class Objects:
    """A row per object, with its light curve."""

    catalog_type = "object"

    def __init__(self, form: Form) -> None:
        self.form = form
        self.key = form.object_id
        self.indexed: tuple[str, ...] = (form.object_id,)
        self._points = POINTS.names if form.has_history else []
        self._name_of = {of: name for name, of in form.nested.items()} | {self.key: self.key}

    @property
    def flat(self) -> pa.Schema:
        """The columns of an alert, called as in a light curve."""
        columns = [
            (self._name_of[field.name], field.type) for field in self.form.columns if field.name in self._name_of
        ]
        return pa.schema([*columns, *(POINTS if self._points else ())])

    @property
    def schema(self) -> pa.Schema:
        """The columns of a row."""
        kind_of, nested = self.form.columns.field, [field for field in self.flat if field.name != self.key]
        return pa.schema(
            [
                *((named(name), kind_of(name).type) for name in self.form.of_newest),
                *((named(USUAL + name), kind_of(name).type) for name in self.form.classes),
                (ALERTS, pa.int64()),
                (LIGHT_CURVE, pa.struct([(field.name, pa.list_(field.type)) for field in nested])),
            ]
        )

    @property
    def most_in_file(self) -> int:
        """How many points of light curves fit into a file."""
        return max(1, FILE_BYTES // sum(map(_width, self.flat.types)))

    def flatten(self, rows: pa.Table, own: pa.Table | None) -> pa.Table:
        """Call what was read of alerts as in a light curve, beside the point that each of them is."""
        flat = pa.table({name: rows[of] for of, name in self._name_of.items()})
        if own is not None:
            for name in self._points:
                flat = flat.append_column(name, own[name])
        return flat.select(self.flat.names)

    def gather(self, alerts: Alerts) -> tuple[pa.Table, int]:
        """Gather all alerts of each object into one row.

        Returns: A row per object: the columns of its newest alert, the class that most of its alerts have, the number
        of alerts, and the light curve in order of time.
        Returns: alerts left out because an earlier one in Kafka's order has the same identifier.
        """
        # Of the same alert, a full packet tells more: its limit, and not the flux of the image itself.
        fullest = [name for name in ("quantity", "limit") if name in self._points]
        unique = without_duplicates(alerts.rows, self.key, self._name_of[self.form.source_id], first_by=fullest)
        table = unique.take(self._by_time(unique)).combine_chunks()
        starts = np.flatnonzero(is_first(table[self.key]))
        ends = np.append(starts[1:], table.num_rows)
        last = pa.array(ends - 1)
        rows = pa.table({named(name): table[self._name_of[name]].take(last) for name in self.form.of_newest})
        for name in self.form.classes:
            usual = _most_frequent(table, self.key, self._name_of[name], rows[self.key])
            rows = rows.append_column(named(USUAL + name), usual)
        rows = rows.append_column(ALERTS, pa.array(ends - starts, pa.int64()))
        curves = table
        if alerts.points is not None:
            curves = _with_history(table, alerts.points, self.key)
            starts = np.flatnonzero(is_first(curves[self.key]))
        offsets = pa.array(np.append(starts, curves.num_rows), pa.int32())
        nested = [field.name for field in self.schema.field(LIGHT_CURVE).type]
        lists = [pa.ListArray.from_arrays(offsets, _array(curves[name])) for name in nested]
        rows = rows.append_column(LIGHT_CURVE, pa.StructArray.from_arrays(lists, nested))
        return rows.cast(self.schema), alerts.rows.num_rows - unique.num_rows

    def take_apart(self, rows: pa.Table) -> Alerts:
        """Return the alerts that objects were made of, and what they tell."""
        curves = _array(rows[LIGHT_CURVE])
        lists = {field.name: pc.struct_field(curves, field.name) for field in curves.type}
        owners = _array(rows[self.key]).take(pc.list_parent_indices(next(iter(lists.values()))))
        flat = pa.table({self.key: owners} | {name: pc.list_flatten(each) for name, each in lists.items()})
        flat = flat.select(self.flat.names).cast(self.flat)
        if not self._points:
            return Alerts(flat)
        is_alert = pc.equal(flat["kind"], ALERT)
        told = flat.filter(pc.invert(is_alert)).select([*self._points, self.key])
        return Alerts(flat.filter(is_alert), told.rename_columns([*self._points, OBJECT]))

    def weights(self, rows: pa.Table) -> np.ndarray:
        """Count the points of each light curve."""
        curves = _array(rows[LIGHT_CURVE])
        return np.asarray(pc.list_value_length(pc.struct_field(curves, 0)).to_numpy(zero_copy_only=False))

    def alerts_of(self, rows: pa.Table) -> int:
        """Count the alerts in light curves."""
        return int(pc.sum(rows[ALERTS]).as_py() or 0)

    def _by_time(self, table: pa.Table) -> pa.Array:
        """Order alerts by time, the newest of each object last; those without a time come first."""
        time = pc.fill_null(table[self._name_of[self.form.time]].cast(pa.float64()), -np.inf)
        keys = {name: table[name] for name in (self.key, *PLACE)}
        keys["time"] = pc.if_else(pc.is_nan(time), -np.inf, time)
        return pc.sort_indices(pa.table(keys), [(name, "ascending") for name in (self.key, "time", *PLACE)])


class Movers:
    """A row per alert of no object: what moves is somewhere else in each of its alerts."""

    catalog_type = "source"

    def __init__(self, form: Form) -> None:
        self.form = form
        self.key = named(form.source_id)
        self.indexed: tuple[str, ...] = (self.key, DESIGNATION)

    @property
    def schema(self) -> pa.Schema:
        """The columns of a row."""
        first = [DESIGNATION, *POSITION]
        names = [*first, *(name for name in self.form.columns.names if name not in {*first, self.form.object_id})]
        return pa.schema([(named(name), self.form.columns.field(name).type) for name in names])

    @property
    def flat(self) -> pa.Schema:
        """The columns of an alert, which are those of a row."""
        return self.schema

    @property
    def most_in_file(self) -> int:
        """How many rows fit into a file."""
        return max(1, FILE_BYTES // sum(map(_width, self.schema.types)))

    def flatten(self, rows: pa.Table, own: pa.Table | None) -> pa.Table:
        """Call what was read of alerts as in a row."""
        return rows.rename_columns([named(name) for name in rows.column_names]).select(self.schema.names)

    def gather(self, alerts: Alerts) -> tuple[pa.Table, int]:
        """Keep each alert once."""
        unique = without_duplicates(alerts.rows, self.key)
        return unique.select(self.schema.names), alerts.rows.num_rows - unique.num_rows

    def take_apart(self, rows: pa.Table) -> Alerts:
        """Return the alerts, which are the rows."""
        return Alerts(rows.select(self.schema.names).cast(self.schema))

    def weights(self, rows: pa.Table) -> np.ndarray:
        """Tell that each row is one."""
        return np.ones(rows.num_rows, dtype=np.int64)

    def alerts_of(self, rows: pa.Table) -> int:
        """Count the rows."""
        return int(rows.num_rows)


def is_placed(rows: pa.Table, object_id: str) -> tuple[np.ndarray, np.ndarray]:
    """Tell for each alert whether it has an object, and whether it has a position.

    LSST gives alerts of the solar system the object 0.
    """
    ids = rows[object_id]
    no_object = "" if pa.types.is_string(ids.type) else 0
    ra, dec = (pc.fill_null(rows[name].cast(pa.float64()), np.nan).to_numpy() for name in POSITION)
    has_position = (ra >= 0) & (ra <= 360) & (np.abs(dec) <= 90)
    return pc.fill_null(pc.not_equal(ids, no_object), False).to_numpy(), has_position


def without_duplicates(rows: pa.Table, *keys: str, first_by: Sequence[str] = ()) -> pa.Table:
    """Keep the first of the alerts, in Kafka's order, that have the same keys; and each place in Kafka once."""
    names = [*keys, *first_by, *PLACE]
    table = rows.take(pc.sort_indices(rows, [(name, "ascending") for name in names]))
    is_same = np.logical_and.reduce([~is_first(table[name]) for name in keys])
    is_known = np.logical_and.reduce([table[name].is_valid().to_numpy() for name in keys])
    is_same_place = np.logical_and.reduce([~is_first(table[name]) for name in PLACE])
    return table.filter(pa.array(~(is_same & is_known | is_same_place)))


def is_first(values: pa.ChunkedArray) -> np.ndarray:
    """Tell for each value whether it differs from the one before."""
    found = np.ones(len(values), dtype=bool)
    found[1:] = pc.fill_null(pc.not_equal(values.slice(1), values.slice(0, len(values) - 1)), True).to_numpy()
    return found


def _with_history(table: pa.Table, points: pa.Table, key: str) -> pa.Table:
    """Put what alerts tell of other times between them, in order of time; an alert is there whatever it measured."""
    rows = pa.array(np.arange(table.num_rows))
    own = table.select([*POINTS.names, key]).rename_columns([*POINTS.names, OBJECT]).append_column("row", rows)
    told = points.append_column("row", pa.nulls(points.num_rows, pa.int64())).select(own.column_names)
    believed = each_once(pa.concat_tables([own, told]))
    all_points = pa.concat_tables([own, believed.filter(believed["row"].is_null())])
    keys = pa.table({OBJECT: all_points[OBJECT], "mjd": pc.fill_null(all_points["mjd"], -np.inf)})
    order = pc.sort_indices(keys, [(OBJECT, "ascending"), ("mjd", "ascending")])
    curves = all_points.take(order).combine_chunks()
    of_alerts = table.drop_columns([*POINTS.names, key]).take(_array(curves["row"]))
    for name in of_alerts.column_names:
        curves = curves.append_column(name, of_alerts[name])
    return curves.rename_columns([key if name == OBJECT else name for name in curves.column_names])


def _most_frequent(table: pa.Table, object_id: str, name: str, objects: pa.ChunkedArray) -> pa.Array:
    """Find the value that most alerts of each object have; of several, the first in order; null where all are null."""
    known = table.select([object_id, name]).filter(table[name].is_valid())
    counts = known.group_by([object_id, name]).aggregate([([], "count_all")])
    order = counts.sort_by(
        [(object_id, "ascending"), ("count_all", "descending"), (name, "ascending")]
    ).combine_chunks()
    first = order.filter(pa.array(is_first(order[object_id]))) if order.num_rows else order
    return first[name].take(pc.index_in(objects, first[object_id]))


def _array(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _width(kind: pa.DataType) -> int:
    """About how many bytes a value takes in memory; a text, as long as Fink's usually are."""
    try:
        return max(1, int(kind.bit_width) // 8)
    except ValueError:
        return 16
