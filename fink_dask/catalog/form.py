"""The columns of a catalog, and where each of them is in the alerts of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from fink_dask.avro.evolution import near_column
from fink_dask.avro.schema import field_type, is_single_value
from fink_dask.dataset.formats import KAFKA_FIELDS
from fink_dask.dataset.season import TOPIC
from fink_dask.dataset.surveys import CLASSES, find_fields
from fink_dask.errors import LedgerError, SettingsError, parameter
from fink_dask.lightcurves.find import told_of
from fink_dask.lightcurves.points import CARRIED, SCHEMA

#: The catalog of alerts that belong to no object, in the directory of the one of objects.
MOVERS = "movers"
#: The nested column.
LIGHT_CURVE = "lightcurve"
#: The column with the number of alerts in a light curve.
ALERTS = "alerts"
#: What is in the solar system is called by this, whatever the survey calls it.
DESIGNATION = "designation"
#: The prefix of the class that most alerts of an object have.
USUAL = "usual_"
POSITION = ("ra", "dec")
#: Where an alert is: in the order of which one counts, if it was sent twice.
PLACE = (TOPIC, *(field.name for field in KAFKA_FIELDS))
#: The columns of light curves with history.
POINTS = pa.schema([*SCHEMA, pa.field(CARRIED, pa.float64())])
#: Records of LSST's alerts with what Fink adds: classes and scores. Fields of all others have to be asked for.
_FINK = ("pred", "clf", "xm")
#: Object, record of full packets, identifier and time of each survey's detections, and its fields with the designation
#: of something in the solar system; light packets have no such record.
_SURVEYS = (
    ("objectId", "candidate", "candid", "jd", ("candidate.ssnamenr", "ssnamenr")),
    ("diaObjectId", "diaSource", "diaSourceId", "midpointMjdTai", ("ssSource.designation", "mpc_orbits.designation")),
)


@dataclass(frozen=True)
class Form:
    """What a catalog is made of."""

    #: object_id, source_id, time: names of the columns that tell objects and detections apart, and the detections'
    #: time.
    object_id: str
    source_id: str
    time: str
    #: The columns of an alert, by their names or dotted fields. What the row of an object is made of is among them: so
    #: a row can be taken apart again when more alerts come.
    columns: pa.Schema
    #: Whether light curves have what alerts tell of other times than their own.
    has_history: bool
    #: Columns that light curves lack, as what was measured is in their history; those of alerts of no object have them.
    measured: tuple[str, ...]

    @property
    def of_newest(self) -> tuple[str, ...]:
        """Columns that an object takes from its newest alert."""
        return (self.object_id, *POSITION, *self.classes)

    @property
    def classes(self) -> tuple[str, ...]:
        """Columns of classes."""
        return tuple(name for name in CLASSES if name in self.columns.names)

    @property
    def nested(self) -> dict[str, str]:
        """The columns of a light curve, and which of `columns` each is.

        One that the object, or a measurement, has too is prefixed with ``alert_``.
        """
        taken = {*self.of_newest, ALERTS, *(POINTS.names if self.has_history else ())}
        return {
            named(f"alert_{name}" if name in taken else name): name
            for name in self.columns.names
            if name not in {self.object_id, DESIGNATION, *self.measured}
        }


def named(path: str) -> str:
    """Name a column: to readers of catalogs, a dot leads into a nested column."""
    return path.replace(".", "_")


def find_form(schemas: Sequence[pa.Schema], columns: Sequence[str] | None = None, has_history: bool = False) -> Form:
    """Find the columns of which a catalog of datasets can be made.

    `schemas`: the columns of each dataset, partition columns too.
    `columns`: the columns of a light curve, and dotted fields, those of the record with the position with or without
    its name; by default every one that is a single value: first those of that record, unless the history has them, then
    those of the alert, then what Fink has found out, such as ``pred.is_sso``, which is called ``pred_is_sso`` in the
    catalog.
    `has_history`: whether light curves are to have what alerts tell of other times than their own.
    Raises SettingsError if a dataset has no objects, positions or times, or none has one of the columns, or a history.
    Raises LedgerError if datasets are of two surveys, or have columns of different types.
    """
    looked = [_look(schema) for schema in schemas]
    object_id, record, source_id, time, _ = looked[0].survey
    if any(each.survey[0] != object_id for each in looked):
        raise LedgerError("a catalog is of one survey, and these datasets are of two: export each by itself")
    found: dict[str, pa.DataType] = {}
    for each in looked:
        for name, kind in each.kinds.items():
            if name in found and found[name] != kind:
                raise LedgerError(f"the column {name} is {kind} in one dataset, and {found[name]} in another")
            found.setdefault(name, kind)
    kinds = {**found, TOPIC: pa.string(), DESIGNATION: pa.string()}
    if columns is not None:  # of the record with the position, as a transfer calls them as well
        inside = {f"{record}.{name}": name for name in kinds}
        columns = [name if name in kinds else inside.get(name, name) for name in columns]
    if columns is not None and (unknown := [name for name in columns if name not in kinds]):
        near = near_column(unknown[0], [pa.field(name, kind) for name, kind in kinds.items()])
        raise SettingsError(
            f"{parameter('columns')} {unknown[0][:80]}: there is no such column, or it is not a single value{near}"
        )
    if has_history and not any(told_of(find_fields(schema).survey, schema) for schema in schemas):
        raise SettingsError(
            f"{parameter('history')}: these alerts tell of no earlier detections or forced photometry, as light packets"
        )
    wanted = {name for each in looked for name in each.usual} if columns is None else set(columns)
    needed = {object_id, source_id, time, *POSITION, *PLACE, DESIGNATION, *CLASSES}
    names = sorted((name for name in kinds if name in wanted | needed), key=lambda name: name not in wanted)
    measured = tuple(
        name
        for name in names
        if columns is None and has_history and name not in needed
        if any(each.paths.get(name, "").startswith(f"{record}.") for each in looked)
    )
    shown = pa.schema([(name, kinds[name]) for name in names])
    return Form(object_id, source_id, time, shown, has_history, measured)


def paths_in(schema: pa.Schema, form: Form) -> dict[str, str]:
    """Find where the columns of a catalog are in the alerts of a dataset, as far as they are there.

    Raises SettingsError if it lacks what a catalog needs.
    Raises LedgerError if it is of another survey.
    """
    looked = _look(schema)
    if looked.survey[0] != form.object_id:
        raise LedgerError(f"the catalog is of objects with {form.object_id}, and the dataset of another survey")
    paths = {name: path for name, path in looked.paths.items() if name in form.columns.names}
    for path in looked.survey[4]:
        if DESIGNATION not in paths and (kind := field_type(schema, path)) is not None and pa.types.is_string(kind):
            paths[DESIGNATION] = path
    return paths


def left_out(schema: pa.Schema, form: Form) -> list[str]:
    """Name the columns that a catalog made now would have, and this one has not, as it was begun without them."""
    return sorted(set(_look(schema).usual) - set(form.columns.names))


@dataclass(frozen=True)
class _Looked:
    survey: tuple[str, str, str, str, tuple[str, ...]]
    paths: dict[str, str]
    kinds: dict[str, pa.DataType]
    usual: tuple[str, ...]


def _look(schema: pa.Schema) -> _Looked:
    """Find the single values of a dataset: those of the record with the position are called as in light packets."""
    for survey in _SURVEYS:
        object_id, record, source_id, time, _ = survey
        prefix = record if record in schema.names and field_type(schema, f"{record}.ra") is not None else ""
        paths = {name: f"{prefix}.{name}" if prefix else name for name in _singles(schema, prefix)}
        paths |= {name: name for name in _singles(schema, "") if name not in paths and name != TOPIC}
        dotted = [
            f"{field.name}.{name}"
            for field in schema
            if pa.types.is_struct(field.type) and field.name != prefix
            for name in _singles(schema, field.name)
        ]
        usual = (*paths, *(name for name in dotted if name.partition(".")[0] in _FINK))
        paths |= {name: name for name in dotted}
        if {object_id, source_id, time, *POSITION} <= paths.keys():
            kinds = {name: field_type(schema, path) for name, path in paths.items()}
            return _Looked(survey, paths, kinds, usual)
    raise SettingsError(
        "a catalog needs objectId, candid, jd, ra and dec (of candidate), or diaObjectId, diaSourceId, "
        "midpointMjdTai, ra and dec (of diaSource), and the dataset lacks some of them"
    )


def _singles(schema: pa.Schema, record: str) -> list[str]:
    fields = schema.field(record).type if record else schema
    return [field.name for field in fields if is_single_value(field.type)]
