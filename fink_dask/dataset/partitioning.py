"""Partition columns: which directory of the dataset an alert belongs in; and the UTC day of an alert, from its time."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fink_dask.avro.evolution import near_column
from fink_dask.avro.schema import field_type
from fink_dask.avro.spelling import steps_to
from fink_dask.errors import SettingsError, parameter

#: UTC as a Julian date (ZTF), or TAI as a modified Julian date (LSST).
Scale = Literal["utc-jd", "tai-mjd"]
Integers = npt.NDArray[np.int64]

#: Days since 1970 of 0001-01-01 and 9999-12-31: the years that four digits can say.
FIRST_DAY, LAST_DAY = -719162, 2932896
#: Stands for a time that is not a date.
NO_DAY = np.iinfo(np.int64).min

_JD_OF_1970 = 2440587.5
_MJD_OF_1970 = 40587
#: Day of 1958-01-01, when TAI began: anything earlier (such as 0 and -1) stands for no time at all.
_FIRST_TAI_DAY = -4383

#: Where rows without a usable partition key go; the name is Hive's, and all readers take it for null.
NULL_KEY = "__HIVE_DEFAULT_PARTITION__"
#: Stands for a date of more digits; as texts are quoted, none is like it.
_NO_DATE = "+"
_QUOTED_NULL_KEY = "%5F" + NULL_KEY[1:]
#: File systems allow 255 bytes a name; ``column=`` and what readers append must fit as well.
MAX_KEY_LENGTH = 180

#: Where each survey keeps an alert's time, full packets first. https://zwickytransientfacility.github.io/ztf-avro-alert
#: and https://sdm-schemas.lsst.io/apdb.html name the fields and their scales.
_TIME_FIELDS = {
    "ztf": ("candidate.jd", "jd"),
    "lsst": ("diaSource.midpointMjdTai", "midpointMjdTai"),
}
#: What no two alerts have in common, or few: the number of an alert, and that of its object.
IDENTIFIERS = frozenset({"candid", "objectId", "diaSourceId", "diaObjectId"})
_DATE_COLUMNS = ("year", "month", "day")
#: Of these, whatever type a packet's own fields of these names have.
_DATE_PART = pa.int32()


def days_since_1970(times: npt.NDArray[np.float64], scale: Scale) -> Integers:
    """Find the UTC day of each time, rounding down.

    Parameters
    ----------
    times : numpy.ndarray
        Julian dates in UTC, or modified Julian dates in TAI, in days.
    scale : {"utc-jd", "tai-mjd"}
        Which of them.

    Returns
    -------
    numpy.ndarray
        Days since 1970-01-01, or `NO_DAY` where a time is not a date between the years 1 (TAI: 1958) and 9999.

    Notes
    -----
    TAI becomes UTC by ERFA's ``taiutc``, whose table holds the leap seconds
    (https://www.iausofa.org/current_C.html, SOFA Time Scales and Calendar Tools).
    """
    days = np.full(times.shape, NO_DAY, dtype=np.int64)
    epoch = _JD_OF_1970 if scale == "utc-jd" else _MJD_OF_1970
    first = FIRST_DAY if scale == "utc-jd" else _FIRST_TAI_DAY
    with np.errstate(invalid="ignore"):
        valid = (times - epoch >= first) & (times - epoch < LAST_DAY + 1)
    chosen = times[valid]
    if scale == "tai-mjd" and chosen.size:
        import erfa  # here, as only alerts of LSST need it

        with warnings.catch_warnings():
            # "Dubious year" is said of dates before UTC began and years ahead of the table; the day is still the best.
            warnings.simplefilter("ignore", erfa.ErfaWarning)
            whole, fraction = erfa.taiutc(2400000.5, chosen)
        chosen = (whole - 2400000.5) + fraction
    # The difference of two close numbers is exact, so that 0.1 ms before midnight is not rounded into the next day.
    days[valid] = np.floor(chosen - epoch)
    return days


@dataclass(frozen=True)
class PartitionSource:
    """One field and the partition columns that come from it."""

    #: Dotted path of the field.
    path: str
    #: Names of the partition columns.
    columns: tuple[str, ...]
    #: How the field gives a time; None for a field that is used as it is.
    scale: Scale | None = None

    def fields(self, alerts: pa.Schema) -> list[pa.Field]:
        """Return its columns as readers have them: with the types that they had in the alerts."""
        kind = field_type(alerts, self.path) if self.scale is None else _DATE_PART
        return [pa.field(column, kind) for column in self.columns]

    @property
    def is_replaced(self) -> bool:
        """Whether the files don't have the field, so that what its directory does not say is lost."""
        return self.scale is None and self.columns == (self.path,)


@dataclass(frozen=True, eq=False)
class Split:
    """An order of the rows of a batch in which those of each partition key are together."""

    #: The rows: of each key in their order, then those that can't be placed.
    order: Integers
    #: A directory such as ``year=2026/month=02/day=24`` (empty without partition columns), and how many of the rows
    #: belong in it; in the order of the rows.
    parts: list[tuple[str, int]]
    #: Why each of the rows that are left can't be placed.
    refused: list[str]

    def slices(self) -> Iterator[tuple[str, slice]]:
        """Yield each directory and where its rows are in this order."""
        start = 0
        for directory, count in self.parts:
            yield directory, slice(start, start + count)
            start += count


@dataclass(frozen=True)
class Partitioning:
    """What the directories of a dataset come from."""

    #: In the order of the directories.
    sources: tuple[PartitionSource, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the partition columns."""
        return tuple(column for source in self.sources for column in source.columns)

    def schema(self, alerts: pa.Schema) -> pa.Schema:
        """Return the partition columns, with their types."""
        return pa.schema([field for source in self.sources for field in source.fields(alerts)])

    def file_schema(self, schema: pa.Schema) -> pa.Schema:
        """Return the columns that go into the files: those that the directories replace are left out."""
        return pa.schema([field for field in schema if field.name not in self.columns])

    def split(self, batch: pa.RecordBatch, is_whole: bool = False) -> Split:
        """Sort the rows of a batch by partition key; it needs only the columns of the sources.

        Where files have whole records, nothing is lost that a directory can't say.
        """
        if not self.sources:
            return Split(np.arange(batch.num_rows, dtype=np.int64), [("", batch.num_rows)], [])
        codes = np.zeros(batch.num_rows, dtype=np.int64)
        names = [""]
        for source in self.sources:
            more_codes, more_names = _number_and_name(source, batch, is_whole or not source.is_replaced)
            codes = codes * len(more_names) + more_codes
            # Only combinations that occur are named, so that many sources of many values stay few.
            found, codes = np.unique(codes, return_inverse=True)
            names = [
                "/".join(filter(None, (names[code // len(more_names)], more_names[code % len(more_names)])))
                for code in found
            ]
        reasons = [next(filter(None, map(_why_refused, name.split("/"))), None) for name in names]
        # Those that can't be placed get the highest numbers.
        places = np.array([len(names) if reason else code for code, reason in enumerate(reasons)], np.int64)
        order = np.argsort(places[codes], kind="stable")
        counts = np.bincount(codes, minlength=len(names)).tolist()
        parts = [(name, count) for name, count, reason in zip(names, counts, reasons, strict=True) if not reason]
        last = order[sum(count for _, count in parts) :]
        return Split(order, parts, [str(reasons[code]) for code in codes[last]])


def resolve_partitioning(names: tuple[str, ...], survey: str | None, schema: pa.Schema) -> Partitioning:
    """Find the fields that partition columns come from.

    `survey`: ``ztf`` or ``lsst``: how times are given.
    Raises SettingsError if there is no such field, its type has no place in a directory's name, or two columns would
    have one name.
    """
    sources = []
    for name in names:
        if name == "time":
            sources.append(_time_source(survey, schema))
        else:
            kind = field_type(schema, name)
            if kind is None:
                near = near_column(name, [pa.field("time", pa.float64()), *schema]) or f"; {_columns_in_words(schema)}"
                raise SettingsError(f"{parameter('partitionby')} {name}: the alerts have no such column{near}")
            if not _is_scalar(kind):
                raise SettingsError(
                    f"{parameter('partitionby')} {name}: {_in_words(kind)} can't be part of a directory's name"
                )
            column = name.replace(".", "_")
            if len(column) > MAX_KEY_LENGTH // 2:
                raise SettingsError(f"{parameter('partitionby')} {name[:40]}...: the name is too long for a directory")
            sources.append(PartitionSource(name, (column,)))
    columns = [column for source in sources for column in source.columns]
    for column in columns:
        nested = any("." in source.path and column in source.columns for source in sources if source.scale is None)
        if columns.count(column) > 1 or (nested and column in schema.names):
            raise SettingsError(f"{parameter('partitionby')} {','.join(names)}: two columns would be named {column}")
    return Partitioning(tuple(sources))


@lru_cache(maxsize=4096)
def hive_level(column: str, value: str | None) -> str:
    """Name the directory of one partition column, encoded as Hive and pyarrow do.

    Null goes to `NULL_KEY`, as in Spark. Everything but ASCII letters, digits and ``_.-~`` is percent-encoded, so that
    no value can leave its directory, and macOS normalises nothing. Where `NULL_KEY` itself is the value it is encoded
    as well, but readers decode before they look for null; and an empty value some take for null, and others for a
    damaged dataset. `Partitioning.split` refuses both.
    """
    if value is None:
        return f"{quote(column, safe='')}={NULL_KEY}"
    if value == NULL_KEY:
        return f"{quote(column, safe='')}={_QUOTED_NULL_KEY}"
    return f"{quote(column, safe='')}={quote(value, safe='')}"


def _time_source(survey: str | None, schema: pa.Schema) -> PartitionSource:
    if survey is None:
        raise SettingsError(
            f"{parameter('partitionby')} time: the topic's name does not tell the survey; add "
            f"{parameter('survey', 'ztf')} or lsst"
        )
    for path in _TIME_FIELDS[survey]:
        if field_type(schema, path) == pa.float64():
            return PartitionSource(path, _DATE_COLUMNS, "utc-jd" if survey == "ztf" else "tai-mjd")
    raise SettingsError(
        f"{parameter('partitionby')} time: the alerts have no {' or '.join(_TIME_FIELDS[survey])}; "
        f"{_columns_in_words(schema)}"
    )


def _in_words(kind: pa.DataType) -> str:
    if pa.types.is_struct(kind):
        return f"a struct (its fields {', '.join(kind.field(i).name for i in range(min(3, kind.num_fields)))}, … could)"
    return "a map" if pa.types.is_map(kind) else "a list" if pa.types.is_list(kind) else f"a {kind}"


def _columns_in_words(schema: pa.Schema) -> str:
    names = [field.name for field in schema if _is_scalar(field.type)]
    return f"there are {', '.join(names[:8])}{' and others' if len(names) > 8 else ''}"


def _is_scalar(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_date(kind)
    )


def _number_and_name(source: PartitionSource, batch: pa.RecordBatch, is_kept: bool) -> tuple[Integers, list[str]]:
    """Give each value of a source a number, and each number a directory.

    Of what is kept in the files as well, values that no directory can say go where null goes.
    """
    values = column_of(batch, source.path)
    if source.scale is not None:
        times = values.to_numpy(zero_copy_only=False)  # null becomes NaN
        days, codes = np.unique(days_since_1970(times, source.scale), return_inverse=True)
        return codes.astype(np.int64), [_date_levels(int(day)) for day in days]
    if is_date := pa.types.is_date(values.type):
        # Avro's dates reach millions of years further than those of any reader, and Python's.
        values = _dates_as_text(values, pa.scalar(None if is_kept else _NO_DATE, pa.string()))
    encoded = values.dictionary_encode(null_encoding="encode")
    # Where the files have the value, it goes where null goes.
    unsaid = "NaN" if pa.types.is_floating(values.type) else ""
    names = []
    for text in map(_text, encoded.dictionary.to_pylist()):
        if is_date and text == _NO_DATE:
            names.append(f"{quote(source.columns[0], safe='')}={_NO_DATE}")
        else:
            names.append(hive_level(source.columns[0], None if is_kept and text == unsaid else text))
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    # Two values can share a directory: null and the empty string, or NaN of different bits.
    unique = {name: position for position, name in enumerate(sorted(set(names)))}
    positions = np.array([unique[name] for name in names], dtype=np.int64)
    return positions[codes] if names else codes, list(unique)


def _dates_as_text(values: pa.Array, no_date: pa.Scalar) -> pa.Array:
    """Write dates as ISO 8601 has them, or `no_date` where they are out of its four digits."""
    import pyarrow.compute as pc  # here, as it takes as long to load as this package, and few keys are dates

    days = values.cast(pa.int32())
    fits = pc.and_(pc.greater_equal(days, FIRST_DAY), pc.less_equal(days, LAST_DAY))
    # Those that do not fit can't be written at all.
    texts = pc.if_else(fits, values, pa.scalar(0, pa.int32()).cast(values.type)).cast(pa.string())
    return pc.if_else(fits, texts, no_date)


def _why_refused(level: str) -> str | None:
    """Say why there can be no such directory, or None."""
    if len(level) > MAX_KEY_LENGTH:
        return f"its partition key is longer than {MAX_KEY_LENGTH} characters: {level[:60]}..."
    if level.endswith("="):
        return f"its partition key is the empty string, which readers of directories take for null: {level[:60]}"
    if level.endswith(f"={_NO_DATE}"):
        return f"its partition key is no date between the years 1 and 9999: {level[:60]}"
    if level.endswith(f"={_QUOTED_NULL_KEY}"):
        return f"its partition key is {NULL_KEY}, which every reader takes for null"
    return None


def column_of(batch: pa.RecordBatch, path: str) -> pa.Array:
    """Return a column, or the field of nested structs that a dotted path leads to; null where its struct is.

    Raises KeyError if there is none.
    """
    column, *fields = steps_to(batch.schema.names, path)
    array = batch.column(column)
    for field in fields:
        index = array.type.get_field_index(field)
        if index < 0:  # which would be the last of them
            raise KeyError(path)
        array = array.flatten()[index]
    return array


@lru_cache(maxsize=4096)
def _date_levels(day: int) -> str:
    if day == NO_DAY:
        return "/".join(hive_level(column, None) for column in _DATE_COLUMNS)
    year, month, of_month = str(np.datetime64(day, "D")).split("-")
    return "/".join(hive_level(*level) for level in zip(_DATE_COLUMNS, (year, month, of_month), strict=True))


def _text(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, float) and math.isnan(value):
        return "NaN"  # as Java writes it, too
    return str(value).lower() if isinstance(value, bool) else str(value)
