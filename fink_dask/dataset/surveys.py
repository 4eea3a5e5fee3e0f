"""What surveys call things, and which of these a dataset has: position, time, brightness, class, history, cutouts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fink_dask.avro.schema import field_type
from fink_dask.dataset.partitioning import Scale

#: Columns that say what an alert may be; the first that has values counts.
CLASSES = (
    *("finkclass", "tnsclass", "classId", "xm.simbad_otype", "pred.main_label_crossmatch"),
    *("pred.main_label_classifier", "clf.cats_class"),
)
#: What the numbers of LSST's classifier stand for: https://api.lsst.fink-portal.org, /api/v1/schema.
_CLASSIFIED = {-1: "not processed", 11: "SN-like", 12: "Fast", 13: "Long", 21: "Periodic", 22: "Non-periodic"}
#: Filters by ZTF's numbers.
_ZTF_BANDS = {1: "g", 2: "r", 3: "i"}
_LSST_BANDS = {band: band for band in "ugrizy"}
#: What is no number, or need not be one.
_LABELS = frozenset({"object", "source", "band", "positive"})
#: What a cutout is called below its picture, and in packets.
CUTOUTS = {"science": "cutoutScience", "template": "cutoutTemplate", "difference": "cutoutDifference"}


@dataclass(frozen=True)
class SurveyNames:
    """What a survey calls things."""

    #: The record with the detection in full packets; light packets have its fields at the top level.
    record: str
    #: The list of earlier detections.
    history: str
    #: The list of forced photometry: brightness where and when nothing was detected; empty if there is none.
    forced: str
    #: Its identifier of a measurement.
    forced_source: str
    #: The survey's names for ``object``, ``source``, ``time``, ``value``, ``error`` and ``band``; and for ``positive``,
    #: whether there is more light than in the template, where the value does not tell.
    names: Mapping[str, str]
    #: Other names for ``value`` and ``error``, if alerts lack those: light packets have another brightness.
    light: Mapping[str, str]
    #: In earlier measurements, what was not bright enough to be seen; empty if there is no such thing.
    limit: str
    #: The scale of its times, in days.
    scale: Scale
    #: The filters, by their values in alerts.
    bands: Mapping[int, str] | Mapping[str, str]
    #: Whether the value is a flux in nJy; otherwise it is a magnitude.
    is_flux: bool
    #: The field of a cutout that has the picture; empty if the cutout is the picture.
    stamp: str
    #: The designation of something in the solar system, whose detections belong to no object, and have the number 0;
    #: empty if they have an object like all others.
    mover: str


# https://zwickytransientfacility.github.io/ztf-avro-alert and https://sdm-schemas.lsst.io/apdb.html list the fields.
_ZTF = SurveyNames(
    "candidate",
    "prv_candidates",
    "",
    "",
    {
        "object": "objectId",
        "source": "candid",
        "time": "jd",
        "value": "magpsf",
        "error": "sigmapsf",
        "band": "fid",
        "positive": "isdiffpos",
    },
    {},
    "diffmaglim",
    "utc-jd",
    _ZTF_BANDS,
    False,
    ".stampData",
    "",
)

_LSST = SurveyNames(
    "diaSource",
    "prvDiaSources",
    "prvDiaForcedSources",
    "diaForcedSourceId",
    {
        "object": "diaObjectId",
        "source": "diaSourceId",
        "time": "midpointMjdTai",
        "value": "psfFlux",
        "error": "psfFluxErr",
        "band": "band",
    },
    {"value": "scienceFlux", "error": "scienceFluxErr"},
    "",
    "tai-mjd",
    _LSST_BANDS,
    True,
    "",
    "ssSource.designation",
)


@dataclass(frozen=True)
class Fields:
    """Which of these a dataset has."""

    #: Whose alerts they are.
    survey: SurveyNames
    #: The dotted paths of ``object``, ``source``, ``time``, ``value``, ``error``, ``band``, ``ra``, ``dec``, ``mover``
    #: and ``class``, as far as they exist.
    paths: Mapping[str, str]
    #: Which of ``time``, ``value``, ``error``, ``band`` and ``limit`` the earlier measurements have; empty unless they
    #: have at least a time and a value.
    history: tuple[str, ...]
    #: The paths of the pictures that exist, by what they show.
    cutouts: Mapping[str, str]
    #: Those of `CLASSES` that exist; until `of_class` chooses one, none is in `paths`.
    classes: tuple[str, ...] = ()

    def of_class(self, path: str) -> Fields:
        """Return the same with one column of classes."""
        return replace(self, paths={**self.paths, "class": path})

    def class_name(self, value: Any) -> str:
        """Name a class; a number that Fink has no name for is given with that of its column."""
        if value is None or isinstance(value, str):
            return value or ""
        known = _CLASSIFIED.get(value)
        return f"{known} ({value})" if known else f"{self.paths['class'].rpartition('.')[2]} {value}"

    def has(self, *names: str) -> bool:
        """Tell whether all of these exist."""
        return set(names) <= self.paths.keys()


def find_fields(schema: pa.Schema) -> Fields:
    """Look for everything in the columns of a dataset, partition columns too; the survey is the one that has more."""
    found = [_look(schema, survey) for survey in (_ZTF, _LSST)]
    return max(found, key=lambda fields: len(fields.paths) + len(fields.history))


def expression(path: str) -> pc.Expression:
    """Return the expression to ask a scanner of the dataset for."""
    return pc.field(*path.split("."))


def _kind_of(schema: pa.Schema, path: str) -> pa.DataType | None:
    """Find the type of a field; a column with dots in its own name is none of a survey's."""
    return None if path in schema.names and "." in path else field_type(schema, path)


def _look(schema: pa.Schema, survey: SurveyNames) -> Fields:
    def first(name: str, is_fit: Callable[[pa.DataType], bool]) -> str | None:
        for path in (f"{survey.record}.{name}", name):
            kind = _kind_of(schema, path)
            if kind is not None and is_fit(kind):
                return path
        return None

    wanted: dict[str, tuple[str, Callable[[pa.DataType], bool]]] = {
        role: (name, _is_label if role in _LABELS else _is_number) for role, name in survey.names.items()
    }
    wanted |= {"ra": ("ra", _is_number), "dec": ("dec", _is_number)}
    paths = {role: path for role, (name, is_fit) in wanted.items() if (path := first(name, is_fit)) is not None}
    if "value" not in paths:
        paths |= {role: path for role, name in survey.light.items() if (path := first(name, _is_number)) is not None}
    if (kind := _kind_of(schema, survey.mover)) is not None and _is_label(kind):
        paths["mover"] = survey.mover
    classes = tuple(name for name in CLASSES if (kind := _kind_of(schema, name)) is not None and _is_label(kind))
    cutouts = {}
    for shown, column in CUTOUTS.items():
        kind = _kind_of(schema, f"{column}{survey.stamp}")
        if kind is not None and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            cutouts[shown] = f"{column}{survey.stamp}"
    return Fields(survey, paths, _history(schema, survey), cutouts, classes)


def _history(schema: pa.Schema, survey: SurveyNames) -> tuple[str, ...]:
    kind = _kind_of(schema, survey.history)
    if kind is None or not pa.types.is_list(kind) or not pa.types.is_struct(kind.value_type):
        return ()
    inside = pa.schema(list(kind.value_type))
    roles = [
        role
        for role in ("time", "value", "error", "band", "limit")
        if (found := field_type(inside, survey.names.get(role, survey.limit))) is not None
        and (_is_label(found) if role == "band" else _is_number(found))
    ]
    return tuple(roles) if {"time", "value"} <= set(roles) else ()


def _is_label(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_integer(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))
