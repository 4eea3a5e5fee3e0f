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
JD_OF_MJD = 2_400_000.5
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
        pa.field("positive", pa.bool_()),
        pa.field("unit", pa.string()),
        pa.field("quantity", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("source", pa.int64()),
        pa.field("alert", pa.int64()),
    ]
)
#: Whose a measurement is, and when the alert that it came with was taken: in MJD, as `mjd` is.
OBJECT, CARRIED = "object", "carried"
_CARRIED = SCHEMA.append(pa.field(CARRIED, pa.float64()))
#: What a measurement has, by the names of `Fields.paths`; the limit of a detection is beside its time.
MEASURED = ("time", "value", "error", "band", "limit", "positive")
#: How ZTF says so: with letters in alerts, with digits in their history.
_POSITIVE, _NEGATIVE = pa.array(["t", "1"]), pa.array(["f", "0"])


def points_of(found: Sequence[tuple[pa.Table, Fields]]) -> pa.Table:
    """Make a light curve of the alerts of one object, which may be in several datasets.

    `found`: alerts, and whose they are: the columns ``source`` and those of ``time``, ``value``, ``error``, ``band``
    and ``limit`` that the dataset has; ``history`` and ``forced``, lists of structs, where alerts have them.
    Returns: the columns of `SCHEMA`, in order of time.
    """
    pieces = [piece for alerts, fields in found for piece in (own_points(alerts, fields), *told_points(alerts, fields))]
    of_one = [piece.select(_CARRIED.names) for piece in pieces]
    return each_once(pa.concat_tables([_CARRIED.empty_table(), *of_one])).select(SCHEMA.names)


def own_points(alerts: pa.Table, fields: Fields) -> pa.Table:
    """Return the detection of each alert, in their order: a row for each, even if it has no brightness.

    `alerts`: as for `points_of`. If there is a column ``object``, the result has it too.
    """
    carriers, times = _one(alerts["source"]), _one(alerts["time"])
    own = {role: _one(alerts[role]) for role in (*MEASURED, OBJECT) if role in alerts.column_names}
    quantity = fields.paths["value"].rpartition(".")[2]
    return _piece(own | _said(ALERT, quantity, carriers, times) | {"source": carriers}, fields)


def told_points(alerts: pa.Table, fields: Fields) -> Iterator[pa.Table]:
    """Yield what alerts tell of other times than their own; see `own_points`."""
    carriers, times, survey = _one(alerts["source"]), _one(alerts["time"]), fields.survey
    for name, kind, source in (
        ("history", EARLIER, survey.names["source"]),
        ("forced", FORCED, survey.forced_source),
    ):
        if name in alerts.column_names:
            lists = _one(alerts[name])
            names = {**survey.names, "source": source, "limit": survey.limit}
            inside, told = pc.list_flatten(lists), [field.name for field in lists.type.value_type]
            found = {
                role: pc.struct_field(inside, names[role]) for role in (*MEASURED, "source") if names.get(role) in told
            }
            parents = pc.list_parent_indices(lists)
            if OBJECT in alerts.column_names:
                found[OBJECT] = _one(alerts[OBJECT]).take(parents)
            yield _piece(
                found | _said(kind, survey.names["value"], carriers.take(parents), times.take(parents)), fields
            )


def each_once(points: pa.Table) -> pa.Table:
    """Keep each measurement of an object once, in order of time; leave out what has neither brightness nor limit.

    What several alerts tell of the same moment is taken from the newest, and of the same alert from a full packet.

    `points`: the columns of `own_points` and `told_points`, and others, which are kept. If there is a column
    ``object``, they are those of several objects, and come back in the order of these.
    """
    is_one = pc.and_(points["mjd"].is_valid(), pc.or_(points["value"].is_valid(), points["limit"].is_valid()))
    points = points.filter(is_one)
    rank = pc.index_in(points["kind"], pa.array([ALERT, EARLIER, LIMIT, FORCED]))
    believed = points.append_column("rank", pc.if_else(pc.equal(rank, 2), 1, rank))
    keys = [("rank", "ascending"), (CARRIED, "descending"), ("alert", "descending"), ("limit", "ascending")]
    points = points.take(pc.sort_indices(believed, keys))
    points = points.filter(_is_first(points))
    by_object = [OBJECT] if OBJECT in points.column_names else []
    order = pc.sort_indices(points, [(name, "ascending") for name in (*by_object, "mjd")])
    return points.take(order).combine_chunks()


def _said(kind: str, quantity: str, carriers: pa.Array, times: pa.Array) -> dict[str, pa.Array]:
    said = {"kind": _all(kind, len(carriers)), "quantity": _all(quantity, len(carriers))}
    return said | {"alert": carriers, CARRIED: times.cast(pa.float64())}


def _piece(part: Mapping[str, pa.Array], fields: Fields) -> pa.Table:
    """Name and convert the columns of some measurements."""
    survey, count = fields.survey, len(part["kind"])

    def number(role: str, kind: pa.DataType) -> pa.Array:
        return part[role].cast(kind) if role in part else pa.nulls(count, kind)

    time, value, limit = (number(role, pa.float64()) for role in ("time", "value", "limit"))
    carried = part[CARRIED]
    if survey.scale == "utc-jd":  # exact: the result has no more digits than the time
        time, carried = pc.subtract(time, JD_OF_MJD), pc.subtract(carried, JD_OF_MJD)
    kinds = pc.if_else(pc.or_(value.is_valid(), pc.not_equal(part["kind"], EARLIER)), part["kind"], LIMIT)
    table = pa.table(
        [
            time,
            _all(survey.scale.partition("-")[0], count),
            _band_names(part["band"], survey.bands) if "band" in part else pa.nulls(count, pa.string()),
            value,
            number("error", pa.float64()),
            limit,
            _signs(part["positive"]) if "positive" in part else pa.nulls(count, pa.bool_()),
            _all("nJy" if survey.is_flux else "mag", count),
            part["quantity"],
            kinds,
            number("source", pa.int64()),
            part["alert"].cast(pa.int64()),
            carried,
        ],
        schema=_CARRIED,
    )
    return table.append_column(OBJECT, part[OBJECT]) if OBJECT in part else table


def _band_names(bands: pa.Array, names: Mapping[Any, str]) -> pa.Array:
    encoded = bands.dictionary_encode()
    known = [names.get(band, str(band)) for band in encoded.dictionary.to_pylist()]
    return pa.array(known, pa.string()).take(encoded.indices)


def _signs(flags: pa.Array) -> pa.Array:
    """Say of each flag of a survey whether it means more light than in the template; null where it means neither."""
    flags = flags.cast(pa.string())
    is_positive = pc.is_in(flags, _POSITIVE)
    is_known = pc.or_(is_positive, pc.is_in(flags, _NEGATIVE))
    return pc.if_else(is_known, is_positive, pa.scalar(None, pa.bool_()))


def _is_first(points: pa.Table) -> pa.Array:
    """Tell which is the first of each measurement: by its identifier, or by time and band where it has none."""
    rows = pa.array(np.arange(points.num_rows))
    of_object = [OBJECT] if OBJECT in points.column_names else []
    told = points.select(["source", "mjd", "band", *of_object])
    told = told.append_column("forced", pc.equal(points["kind"], FORCED)).append_column("row", rows)
    has_name, is_first = told["source"].is_valid(), np.zeros(points.num_rows, dtype=bool)
    for keys, chosen in ((["source"], has_name), (["mjd", "band"], pc.invert(has_name))):
        among = told.filter(has_name) if keys == ["source"] else told
        first = np.zeros(points.num_rows, dtype=bool)
        first[among.group_by([*of_object, "forced", *keys]).aggregate([("row", "min")])["row_min"].to_numpy()] = True
        is_first |= first & chosen.to_numpy()
    return pa.array(is_first)


def _one(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array."""
    joined = column.combine_chunks()
    if isinstance(joined, pa.ChunkedArray):
        return pa.concat_arrays(joined.chunks) if joined.num_chunks else pa.array([], joined.type)
    return joined


def _all(value: str, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(value), count)
