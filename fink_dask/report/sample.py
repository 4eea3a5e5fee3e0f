"""Read some columns of a dataset, in bounded time and memory: all rows of a small one, a fair sample of a large one.

Which columns these are is found in its schema: position, time, brightness, class, history, cutouts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from fink_dask.avro.schema import field_type
from fink_dask.dataset.partitioning import Scale
from fink_dask.store.location import for_each

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
#: What a cutout is called below its picture, and in packets.
CUTOUTS = {"science": "cutoutScience", "template": "cutoutTemplate", "difference": "cutoutDifference"}

Floats = npt.NDArray[np.float64]

#: Rows of a sample; a dataset of no more rows, and of this many files at most, is read in full.
SAMPLE_ROWS = 250_000
_WHOLE_FILES = 400
#: Places of a larger dataset that are looked at, and how many rows each.
_PLACES = 250
_ROWS_OF_PLACE = SAMPLE_ROWS // _PLACES


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
    light : mapping of str to str
        Other names for ``value`` and ``error``, if alerts lack those: light packets have another brightness.
    limit : str
        In earlier measurements, what was not bright enough to be seen; empty if there is no such thing.
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
    light: Mapping[str, str]
    limit: str
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
    """Which of these a dataset has.

    Parameters
    ----------
    survey : SurveyNames
        Whose alerts they are.
    paths : mapping of str to str
        The dotted paths of ``object``, ``source``, ``time``, ``value``, ``error``, ``band``, ``ra``, ``dec``, ``mover``
        and ``class``, as far as they exist.
    history : tuple of str
        Which of ``time``, ``value``, ``error``, ``band`` and ``limit`` the earlier measurements have; empty unless they
        have at least a time and a value.
    classes : tuple of str
        Those of `CLASSES` that exist; until `of_class` chooses one, none is in `paths`.
    cutouts : mapping of str to str
        The paths of the pictures that exist, by what they show.
    """

    survey: SurveyNames
    paths: Mapping[str, str]
    history: tuple[str, ...]
    cutouts: Mapping[str, str]
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
    if "value" not in paths:
        paths |= {role: path for role, name in survey.light.items() if (path := first(name, _is_number)) is not None}
    if (kind := field_type(schema, survey.mover)) is not None and _is_label(kind):
        paths["mover"] = survey.mover
    classes = tuple(name for name in CLASSES if (kind := field_type(schema, name)) is not None and _is_label(kind))
    cutouts = {}
    for shown, column in CUTOUTS.items():
        kind = field_type(schema, f"{column}{survey.stamp}")
        if kind is not None and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            cutouts[shown] = f"{column}{survey.stamp}"
    return Fields(survey, paths, _history(schema, survey), cutouts, classes)


def _history(schema: pa.Schema, survey: SurveyNames) -> tuple[str, ...]:
    kind = field_type(schema, survey.history)
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


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _is_label(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_integer(kind))


@dataclass(frozen=True)
class Piece:
    """What to read of a file.

    Parameters
    ----------
    fragment : pyarrow.dataset.Fragment
        The file.
    places : tuple of int or None
        Rows around which to read; None for the whole file.
    """

    fragment: Any
    places: tuple[int, ...] | None = None

    def groups(self) -> Iterator[tuple[Any, int]]:
        """Yield each row group that has some of the places, and how many; or the file itself if it is read whole."""
        known = self.fragment
        # A fragment keeps its footer once it is read, and footers of full packets take a megabyte.
        fresh = known.format.make_fragment(known.path, known.filesystem, known.partition_expression)
        if self.places is None:
            yield fresh, 0
            return
        ends = np.cumsum([group.num_rows for group in fresh.row_groups])
        for index, count in sorted(Counter(np.searchsorted(ends, self.places, side="right").tolist()).items()):
            if index < len(ends):
                yield fresh.subset(row_group_ids=[index]), count


@dataclass(frozen=True)
class Sample:
    """Some rows, and what they stand for.

    Parameters
    ----------
    table : pyarrow.Table
        The columns that were asked for.
    weights : numpy.ndarray
        How many alerts of the dataset each row stands for.
    of : int
        Rows of the dataset.
    unread : int
        Files that could not be read, such as those removed in the meantime.
    """

    table: pa.Table
    weights: Floats
    of: int
    unread: int = 0

    def numbers(self, name: str) -> Floats:
        """Return a column as numbers; NaN for null."""
        return np.asarray(pc.fill_null(self.table[name].cast(pa.float64()), np.nan).to_numpy(), dtype=np.float64)

    def counts(self, values: pa.ChunkedArray) -> dict[Any, float]:
        """Estimate how many alerts have each value of a column."""
        encoded = values.combine_chunks().dictionary_encode(null_encoding="encode")
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.combine_chunks()
        codes = encoded.indices.to_numpy(zero_copy_only=False)
        sums = np.bincount(codes, self.weights, len(encoded.dictionary))
        return dict(zip(encoded.dictionary.to_pylist(), sums.tolist(), strict=True))


def choose_pieces(dataset: ds.Dataset, rows_of: Mapping[str, int]) -> list[Piece]:
    """Choose what to read: equidistant places, with files in the order of their names, so that each key has some.

    Parameters
    ----------
    dataset : pyarrow.dataset.Dataset
        The dataset.
    rows_of : mapping of str to int
        Rows of each of its files, by path.
    """
    fragments = sorted(dataset.get_fragments(), key=lambda fragment: str(fragment.path))
    fragments = [fragment for fragment in fragments if rows_of.get(fragment.path)]
    ends = np.cumsum([rows_of[fragment.path] for fragment in fragments], dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    if total <= SAMPLE_ROWS and len(fragments) <= _WHOLE_FILES:
        return [Piece(fragment) for fragment in fragments]
    places = ((np.arange(_PLACES) + 0.5) * total / _PLACES).astype(np.int64)
    by_file: dict[int, list[int]] = {}
    for place, index in zip(places.tolist(), np.searchsorted(ends, places, side="right").tolist(), strict=True):
        by_file.setdefault(index, []).append(place - int(ends[index]) + rows_of[fragments[index].path])
    return [Piece(fragments[index], tuple(inside)) for index, inside in by_file.items()]


def read_sample(outdir: Path, dataset: ds.Dataset, pieces: list[Piece], paths: Mapping[str, str], of: int) -> Sample:
    """Read columns of the pieces; files that can't be read are left out, and counted.

    Parameters
    ----------
    outdir : pathlib.Path
        Where the dataset is.
    dataset : pyarrow.dataset.Dataset
        The dataset.
    pieces : list of Piece
        From `choose_pieces`.
    paths : mapping of str to str
        The columns by name, as dotted paths.
    of : int
        Rows of the dataset.
    """
    columns = {name: expression(path) for name, path in paths.items()}
    tables: list[pa.Table] = []
    weights, unread = [np.empty(0)], 0

    def read(piece: Piece) -> list[tuple[pa.Table, int]] | None:
        try:
            found = [(group.to_table(dataset.schema, columns=columns), count) for group, count in piece.groups()]
        except (OSError, pa.ArrowException):
            return None
        # Rows are in the order of offsets: take as many as are wanted, equidistant.
        return [(_thinned(table, count * _ROWS_OF_PLACE) if count else table, count) for table, count in found]

    for _, read_tables in for_each(outdir, read, pieces):
        unread += read_tables is None
        for table, count in read_tables or []:
            tables.append(table)
            weights.append(np.full(table.num_rows, count / max(table.num_rows, 1) if count else 1.0))
    if not tables:
        kinds = [(name, field_type(dataset.schema, path)) for name, path in paths.items()]
        tables.append(pa.schema(kinds).empty_table())
    weight = np.concatenate(weights)
    return Sample(pa.concat_tables(tables), weight * (of / max(weight.sum(), 1e-9)), of, unread)


def _thinned(table: pa.Table, rows: int) -> pa.Table:
    if table.num_rows <= rows:
        return table
    return table.take(pa.array(np.linspace(0, table.num_rows - 1, rows).astype(np.int64)))
