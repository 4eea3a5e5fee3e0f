"""The points of a light curve, each once, from the alerts of an object: detections, their history, forced photometry.

The same earlier detection comes with every later alert of its object. The points are equal to what a loop over the
records finds: nothing is converted but the time, and nothing is judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fink_dask.dataset.surveys import Fields

#: MJD is JD without this. https://aa.usno.navy.mil/faq/MJD_intro
_JD_OF_MJD = 2_400_000.5
#: In the order in which the same measurement is believed.
ALERT, EARLIER, FORCED, LIMIT = "alert", "earlier", "forced", "limit"
KINDS = (ALERT, EARLIER, FORCED, LIMIT)
SCHEMA = pa.schema(
    [
        pa.field("mjd", pa.float64()),
        pa.field("scale", pa.string()),
        pa.field("band", pa.string()),
        pa.field("value", pa.float64()),
        pa.field("error", pa.float64()),
        pa.field("limit", pa.float64()),
        pa.field("unit", pa.string()),
        pa.field("quantity", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("source", pa.int64()),
        pa.field("alert", pa.int64()),
    ]
)
#: With the time of the alert that a measurement came with, in the survey's own days.
_CARRIED = SCHEMA.append(pa.field("carried", pa.float64()))
_MEASURED = ("time", "value", "error", "band", "limit")


def points_of(found: Sequence[tuple[pa.Table, Fields]]) -> pa.Table:
    """Make a light curve of the alerts of one object, which may be in several datasets.

    Parameters
    ----------
    found : sequence of (pyarrow.Table, Fields)
        Alerts, and whose they are: the columns ``source`` and those of ``time``, ``value``, ``error``, ``band`` and
        ``limit`` that the dataset has; ``history`` and ``forced``, lists of structs, where alerts have them.

    Returns
    -------
    pyarrow.Table
        The columns of `SCHEMA`, in order of time.
    """
    points = pa.concat_tables(
        [_CARRIED.empty_table(), *(_piece(part, fields) for alerts, fields in found for part in _parts(alerts, fields))]
    )
    # What several alerts tell of the same moment is taken from the newest, and of the same alert from a full packet.
    rank = pc.index_in(points["kind"], pa.array([ALERT, EARLIER, LIMIT, FORCED]))
    believed = points.append_column("rank", pc.if_else(pc.equal(rank, 2), 1, rank))
    keys = [("rank", "ascending"), ("carried", "descending"), ("alert", "descending"), ("limit", "ascending")]
    points = points.take(pc.sort_indices(believed, keys))
    points = points.take(_once(points)).select(SCHEMA.names)
    order = pa.array(np.argsort(points["mjd"].to_numpy(), kind="stable"))
    return points.take(order).combine_chunks()


def _parts(alerts: pa.Table, fields: Fields) -> Iterator[dict[str, pa.Array]]:
    """Yield the measurements of the alerts themselves, then those of each list, as columns of the same names."""
    carriers, times = _one(alerts["source"]), _one(alerts["time"])
    own = {role: _one(alerts[role]) for role in _MEASURED if role in alerts.column_names}
    survey, quantity = fields.survey, fields.paths["value"].rpartition(".")[2]
    yield own | _said(ALERT, quantity, carriers, times) | {"source": carriers}
    for name, kind, source in (
        ("history", EARLIER, survey.names["source"]),
        ("forced", FORCED, survey.forced_source),
    ):
        if name in alerts.column_names:
            lists = _one(alerts[name])
            names = {**survey.names, "source": source, "limit": survey.limit}
            inside, said = pc.list_flatten(lists), [field.name for field in lists.type.value_type]
            found = {
                role: pc.struct_field(inside, names[role]) for role in (*_MEASURED, "source") if names[role] in said
            }
            parents = pc.list_parent_indices(lists)
            yield found | _said(kind, names["value"], carriers.take(parents), times.take(parents))


def _said(kind: str, quantity: str, carriers: pa.Array, times: pa.Array) -> dict[str, pa.Array]:
    said = {"kind": _all(kind, len(carriers)), "quantity": _all(quantity, len(carriers))}
    return said | {"alert": carriers, "carried": times.cast(pa.float64())}


def _piece(part: Mapping[str, pa.Array], fields: Fields) -> pa.Table:
    """Name and convert the columns of some measurements, and leave out what has neither brightness nor limit."""
    survey, count = fields.survey, len(part["kind"])

    def number(role: str, kind: pa.DataType) -> pa.Array:
        return part[role].cast(kind) if role in part else pa.nulls(count, kind)

    time, value, limit = (number(role, pa.float64()) for role in ("time", "value", "limit"))
    if survey.scale == "utc-jd":
        time = pc.subtract(time, _JD_OF_MJD)  # exact: the result has no more digits than the time
    kinds = pc.if_else(pc.or_(value.is_valid(), pc.not_equal(part["kind"], EARLIER)), part["kind"], LIMIT)
    bands = part["band"].to_pylist() if "band" in part else [None] * count
    names: Mapping[Any, str] = survey.bands
    table = pa.table(
        [
            time,
            _all(survey.scale.partition("-")[0], count),
            pa.array([None if band is None else names.get(band, str(band)) for band in bands], pa.string()),
            value,
            number("error", pa.float64()),
            limit,
            _all("nJy" if survey.is_flux else "mag", count),
            part["quantity"],
            kinds,
            number("source", pa.int64()),
            part["alert"].cast(pa.int64()),
            part["carried"],
        ],
        schema=_CARRIED,
    )
    return table.filter(pc.and_(time.is_valid(), pc.or_(value.is_valid(), limit.is_valid())))


def _once(points: pa.Table) -> pa.Array:
    """Find the first of each measurement: by its identifier, or by time and band where it has none."""
    seen: set[object] = set()
    kept = []
    columns = (points[name].to_pylist() for name in ("kind", "source", "mjd", "band"))
    for row, (kind, source, mjd, band) in enumerate(zip(*columns, strict=True)):
        moment, name = (kind == FORCED, mjd, band), (kind == FORCED, source)
        if (moment if source is None else name) not in seen:
            kept.append(row)
        seen |= {moment, name}
    return pa.array(kept, pa.int64())


def _one(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array."""
    joined = column.combine_chunks()
    if isinstance(joined, pa.ChunkedArray):
        return pa.concat_arrays(joined.chunks) if joined.num_chunks else pa.array([], joined.type)
    return joined


def _all(value: str, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(value), count)
