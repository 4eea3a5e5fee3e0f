"""Where in its alerts a dataset has what a report draws: position, time, brightness, class, history, cutouts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from fink_dask.avro.schema import field_type
from fink_dask.dataset.partitioning import Scale

#: Columns that say what an alert may be; the first that exists counts.
CLASSES = ("finkclass", "tnsclass", "classId", "xm.simbad_otype", "pred.main_label_crossmatch")
#: Filters by ZTF's numbers.
_ZTF_BANDS = {1: "g", 2: "r", 3: "i"}
_LSST_BANDS = {band: band for band in "ugrizy"}
#: What a cutout is called below its picture, and in packets.
CUTOUTS = {"science": "cutoutScience", "template": "cutoutTemplate", "difference": "cutoutDifference"}


@dataclass(frozen=True)
class SurveyNames:
    """What a survey calls things.

    Parameters
    ----------
    record : str
        The record with the detection in full packets; light packets have its fields at the top level.
    history : str
        The list of earlier detections.
    names : mapping of str to str
        The survey's names for ``object``, ``source``, ``time``, ``value``, ``error`` and ``band``.
    scale : {"utc-jd", "tai-mjd"}
        The scale of its times, in days.
    bands : mapping
        The filters, by their values in alerts.
    is_flux : bool
        Whether the value is a flux in nJy; otherwise it is a magnitude.
    stamp : str
        The field of a cutout that has the picture; empty if the cutout is the picture.
    mover : str
        The designation of something in the solar system, whose detections belong to no object, and have the number 0;
        empty if they have an object like all others.
    """

    record: str
    history: str
    names: Mapping[str, str]
    scale: Scale
    bands: Mapping[int, str] | Mapping[str, str]
    is_flux: bool
    stamp: str
    mover: str


# https://zwickytransientfacility.github.io/ztf-avro-alert and https://sdm-schemas.lsst.io/apdb.html list the fields.
_ZTF = SurveyNames(
    "candidate",
    "prv_candidates",
    {"object": "objectId", "source": "candid", "time": "jd", "value": "magpsf", "error": "sigmapsf", "band": "fid"},
    "utc-jd",
    _ZTF_BANDS,
    False,
    ".stampData",
    "",
)
_LSST = SurveyNames(
    "diaSource",
    "prvDiaSources",
    {
        "object": "diaObjectId",
        "source": "diaSourceId",
        "time": "midpointMjdTai",
        "value": "psfFlux",
        "error": "psfFluxErr",
        "band": "band",
    },
    "tai-mjd",
    _LSST_BANDS,
    True,
    "",
    "ssSource.designation",
)


@dataclass(frozen=True)
class Fields:
    """Which of these a dataset has.

    Parameters
    ----------
    survey : SurveyNames
        Whose alerts they are.
    paths : mapping of str to str
        The dotted paths of ``object``, ``source``, ``time``, ``value``, ``error``, ``band``, ``ra``, ``dec``, ``mover``
        and ``class``, as far as they exist.
    history : tuple of str
        Which of ``time``, ``value``, ``error`` and ``band`` the earlier detections have; empty unless they have at
        least a time and a value.
    cutouts : mapping of str to str
        The paths of the pictures that exist, by what they show.
    """

    survey: SurveyNames
    paths: Mapping[str, str]
    history: tuple[str, ...]
    cutouts: Mapping[str, str]

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


def _look(schema: pa.Schema, survey: SurveyNames) -> Fields:
    def first(name: str, is_fit: Callable[[pa.DataType], bool]) -> str | None:
        for path in (f"{survey.record}.{name}", name):
            kind = field_type(schema, path)
            if kind is not None and is_fit(kind):
                return path
        return None

    wanted: dict[str, tuple[str, Callable[[pa.DataType], bool]]] = {
        role: (name, _is_label if role in {"object", "source", "band"} else _is_number)
        for role, name in survey.names.items()
    }
    wanted |= {"ra": ("ra", _is_number), "dec": ("dec", _is_number)}
    paths = {role: path for role, (name, is_fit) in wanted.items() if (path := first(name, is_fit)) is not None}
    if (kind := field_type(schema, survey.mover)) is not None and _is_label(kind):
        paths["mover"] = survey.mover
    for name in CLASSES:
        kind = field_type(schema, name)
        if kind is not None and _is_label(kind):
            paths["class"] = name
            break
    cutouts = {}
    for shown, column in CUTOUTS.items():
        kind = field_type(schema, f"{column}{survey.stamp}")
        if kind is not None and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            cutouts[shown] = f"{column}{survey.stamp}"
    return Fields(survey, paths, _history(schema, survey), cutouts)


def _history(schema: pa.Schema, survey: SurveyNames) -> tuple[str, ...]:
    kind = field_type(schema, survey.history)
    if kind is None or not pa.types.is_list(kind) or not pa.types.is_struct(kind.value_type):
        return ()
    inside = pa.schema(list(kind.value_type))
    roles = [
        role
        for role in ("time", "value", "error", "band")
        if (found := field_type(inside, survey.names[role])) is not None
        and (_is_label(found) if role == "band" else _is_number(found))
    ]
    return tuple(roles) if {"time", "value"} <= set(roles) else ()


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _is_label(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_integer(kind))
