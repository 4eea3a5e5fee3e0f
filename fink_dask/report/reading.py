"""The lines of Python that open a dataset: true for its kind of alerts, its columns, its directories and its place."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill

import pyarrow as pa

from fink_dask.dataset.formats import KAFKA_FIELDS
from fink_dask.dataset.surveys import CLASSES, Fields, find_fields

#: Characters of a line; a longer list is folded.
_WIDTH = 100
#: What is shown of an alert, as far as it has it.
_ROLES = ("object", "source", "time", "band", "value")
#: Columns that are shown of alerts that have none of these.
_SOME = 5
#: Classes that few alerts of LSST have.
_OFTEN_NULL = {"xm.simbad_otype", "pred.main_label_crossmatch"}
#: What polars and DuckDB take for a pattern, in the name of a directory, or what ends a text of SQL or of Python.
_PATTERN = frozenset("*?[]{}'\"\\")
#: What DuckDB calls the types of partition columns; it reads all others as text.
_SQL_TYPES = {"int32": "INT", "int64": "BIGINT", "bool": "BOOLEAN", "float": "FLOAT", "double": "DOUBLE"}
_IMPORT_DS = "import pyarrow.dataset as ds\n"
#: Columns that SQL takes as they are: it reserves words, and any of them may be a field of somebody's alerts.
_PLAIN = frozenset(
    [
        *("objectId", "candid", "candidate", "jd", "fid", "magpsf", "finkclass", "tnsclass", "classId"),
        *("diaObjectId", "diaSourceId", "diaSource", "midpointMjdTai", "band", "psfFlux", "scienceFlux"),
        *("pred", "main_label_classifier", "clf", "cats_class", "year", "month", "day"),
    ]
)


@dataclass(frozen=True)
class Reading:
    """What is to be read."""

    #: The dataset, as a user names it.
    place: str
    #: The dotted paths of columns that are worth a look, without the partition columns.
    columns: tuple[str, ...]
    #: The partition columns, and their types.
    kinds: Mapping[str, pa.DataType]
    #: object_id, value: dotted paths of what names an object, and of the brightness of a measurement; empty where the
    #: dataset lacks what a light curve needs.
    object_id: str = ""
    value: str = ""
    #: The dotted path of a class, or empty.
    label: str = ""
    #: Whether the brightness is a flux in nJy; otherwise it is a magnitude.
    is_flux: bool = False
    #: Whether all files have the same columns: a later schema may have added some.
    is_uniform: bool = True
    #: Whether each alert is to be read once, even if it is there twice.
    is_unique: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """The partition columns."""
        return tuple(self.kinds)

    @property
    def counted(self) -> tuple[str, ...]:
        """By which columns alerts are counted: the partition columns, or the class where there are none."""
        return self.keys or tuple(filter(None, [self.label]))

    def bright(self, name: str) -> str:
        """Write a condition that few measurements fulfil, of whatever their brightness is called."""
        return f"{name} > 1000" if self.is_flux else f"{name} < 18"


def find_reading(
    place: str,
    schema: pa.Schema,
    is_uniform: bool = True,
    keys: tuple[str, ...] | None = None,
    is_unique: bool = False,
) -> Reading:
    """Choose what to read of a dataset.

    `place`: the dataset, as a user names it.
    `schema`: that of `fink_dask.open_dataset`: the columns of the alerts, those of Kafka, and the partition columns.
    `is_uniform`: whether all files have the same columns.
    `keys`: the columns to count by, if not the partition columns.
    `is_unique`: whether each alert is to be read once.
    """
    names = schema.names
    keys = tuple(names[names.index(KAFKA_FIELDS[-1].name) + 1 :]) if keys is None else keys
    fields = find_fields(schema)
    shown = [fields.paths[role] for role in _ROLES if fields.has(role)]
    label = _label(fields, keys)
    columns = [path for path in [*shown, label] if path and leaf(path) not in keys]
    if not columns:
        columns = [field.name for field in schema if not pa.types.is_nested(field.type) and field.name not in keys]
        columns = columns[:_SOME]
    paths = {role: fields.paths.get(role, "") for role in ("object", "source", "time", "value")}
    if not all(path in columns for path in paths.values()):
        paths = dict.fromkeys(paths, "")
    return Reading(
        place,
        tuple(columns),
        {name: schema.field(name).type for name in keys},
        paths["object"],
        paths["value"],
        label,
        fields.survey.is_flux,
        is_uniform,
        is_unique,
    )


def _label(fields: Fields, keys: Sequence[str]) -> str:
    """Choose a class: one that the directories are called after, or one that Fink gives most alerts."""
    known = [path for path in CLASSES if path in fields.classes and path not in _OFTEN_NULL]
    return next((path for path in known if path in keys), known[0] if known else "")


def leaf(path: str) -> str:
    """Return the last part of a dotted path."""
    return path.rpartition(".")[2]


def reading_lines(reading: Reading) -> dict[str, str]:
    """Write the lines for each reader, by its name; each of them is a program of its own."""
    return {name: _without_idle_imports(write(reading)) for name, write in _READERS.items()}


def _without_idle_imports(lines: str) -> str:
    return lines if "ds." in lines.replace(_IMPORT_DS, "") else lines.replace(_IMPORT_DS, "")


def record_lines(place: str) -> str:
    """Write the lines that read a dataset of Avro files."""
    return f"""\
from pathlib import Path

import fastavro

path = next(Path({_quoted(place)}).rglob("*.avro"))
with path.open("rb") as file:
    print(next(fastavro.reader(file)))
"""


def _with_fink_dask(reading: Reading) -> str:
    lines = f"""\
import fink_dask
import pandas as pd
import pyarrow.dataset as ds

alerts = {_opened(reading)}
{_expressions(reading)}
table = alerts.to_table(columns=columns)
print(table.to_pandas(types_mapper=pd.ArrowDtype))  # with identifiers that stay integers
"""
    return lines + (_curve(reading) if reading.object_id else "")


def _curve(reading: Reading) -> str:
    mover = "  # 0 is what moves in the solar system" if reading.is_flux else ""
    return f"""
# The light curve of the object with the most alerts.
counts = table[{_quoted(leaf(reading.object_id))}].value_counts().to_pylist()
most = max(counts, key=lambda each: (bool(each["values"]), each["counts"]))["values"]
if most:{mover}
    print(fink_dask.light_curve({_quoted(reading.place)}, most).to_pandas())
"""


def _with_pandas(reading: Reading) -> str:
    if _needs_ledger(reading):
        opened = f"""\
import fink_dask
import pandas as pd
import pyarrow.dataset as ds

{_expressions(reading)}
table = {_opened(reading)}.to_table(columns=columns)
alerts = table.to_pandas(types_mapper=pd.ArrowDtype)
"""
    else:
        opened = f"""\
import pandas as pd
import pyarrow.dataset as ds

{_assigned("columns = [", [*map(_quoted, (*reading.columns, *reading.keys))], "]")}
hive = ds.partitioning(flavor="hive")  # partition columns as numbers and text, not as categories
place = {_quoted(reading.place)}
alerts = pd.read_parquet(place, columns=columns, partitioning=hive, dtype_backend="pyarrow")
"""
    if not reading.keys:
        return f"{opened}print(alerts)\n{_counted_in_pandas(reading)}"
    return f"{opened}print(alerts.sort_values({_listed(reading.keys)}))\n{_counted_in_pandas(reading)}"


def _counted_in_pandas(reading: Reading) -> str:
    if not reading.counted:
        return ""
    return f"print(alerts.groupby({_listed(map(leaf, reading.counted))}, dropna=False).size())\n"


def _with_nested_pandas(reading: Reading) -> str:
    if not reading.object_id:
        return ""
    name = _quoted(leaf(reading.object_id))
    condition = _quoted(f"lightcurve.{reading.bright(leaf(reading.value))}")
    movers = f"alerts = alerts[alerts[{name}] != 0]  # what moves in the solar system\n" if reading.is_flux else ""
    return f"""\
import fink_dask
import nested_pandas as npd
import pandas as pd
import pyarrow.dataset as ds

{_expressions(reading)}
table = {_opened(reading)}.to_table(columns=columns)
alerts = table.to_pandas(types_mapper=pd.ArrowDtype)
{movers}objects = npd.NestedFrame.from_flat(alerts, base_columns=[], on={name}, name="lightcurve")
print(objects)

# A query keeps objects of whose light curve nothing is left.
bright = objects.query({condition}).dropna(subset=["lightcurve"])
print(bright)
"""


def _with_polars(reading: Reading) -> str:
    columns: list[str] = []
    for record, names in _by_record((*reading.columns, *reading.keys)).items():
        first, *inner = record.split(".")
        steps = "".join(f".struct.field({_quoted(each)})" for each in inner)
        quoted = list(map(_quoted, names))
        columns += [f"pl.col({_quoted(first)}){steps}.struct.field({', '.join(quoted)})"] if record else quoted
    place = _quoted(reading.place)
    opened, also = f"pl.scan_parquet({place}, hive_partitioning=True)", ""
    if _needs_ledger(reading):
        opened, also = f"pl.scan_pyarrow_dataset({_opened(reading)})", "import fink_dask\n"
    count = ""
    if reading.counted:
        keys = ", ".join(_quoted(leaf(path)) for path in reading.counted)
        count = f"print(table.group_by({keys}).len().sort({keys}))\n"
    return f"""\
{also}import polars as pl

alerts = {opened}
{_assigned("table = alerts.select(", columns, ").collect()")}
print(table)
{count}"""


def _with_duckdb(reading: Reading) -> str:
    kinds = ", ".join(f"'{name}': {_SQL_TYPES.get(str(kind), 'VARCHAR')}" for name, kind in reading.kinds.items())
    hive = f", hive_partitioning = true,\n        hive_types = {{{kinds}}}" if kinds else ""
    opened = f"""\
duckdb.sql(\"\"\"
    SELECT *
    FROM read_parquet('{reading.place.rstrip("/")}/**/*.parquet'{hive})
\"\"\")"""  # noqa: S608 - names are quoted, and it is the reader who runs it
    also = ""
    if _needs_ledger(reading):
        opened, also = _opened(reading), "import fink_dask\n"
    columns = fill(
        ", ".join(map(_in_sql, (*reading.columns, *reading.keys))), _WIDTH, subsequent_indent=" " * 11,
        break_long_words=False,
    )  # fmt: skip
    count = ""
    if reading.counted:
        names = ", ".join(map(_in_sql, reading.counted))
        count = f"""\
count = \"\"\"
    SELECT {names}, count(*) AS alerts
    FROM alerts GROUP BY ALL ORDER BY ALL
\"\"\"
print(duckdb.sql(count))
"""  # noqa: S608 - as above
    return f"""\
import duckdb
{also}
alerts = {opened}
some = \"\"\"
    SELECT {columns}
    FROM alerts LIMIT 10
\"\"\"
print(duckdb.sql(some))
{count}"""  # noqa: S608 - as above


def _with_pyarrow(reading: Reading) -> str:
    opened, also = f'ds.dataset({_quoted(reading.place)}, partitioning="hive")', ""
    if _needs_ledger(reading):
        opened, also = _opened(reading), "import fink_dask\n"
    count = ""
    if reading.counted:
        names = _listed(map(leaf, reading.counted))
        count = f'print(table.group_by({names}).aggregate([([], "count_all")]))\n'
    return f"""\
{also}import pyarrow.dataset as ds

alerts = {opened}
{_expressions(reading)}
table = alerts.to_table(columns=columns)
print(table.slice(0, 5))
{count}"""


def _with_dask(reading: Reading) -> str:
    count = "print(len(frame))\n"
    if reading.counted:
        names = _listed(map(leaf, reading.counted))
        count = f'print(frame.groupby({names}, dropna=False).size().compute(scheduler="threads"))\n'
    if reading.is_unique:  # which no file knows by itself
        return f"""\
import dask.dataframe as dd
import fink_dask
import pandas as pd
import pyarrow.dataset as ds

{_expressions(reading)}
table = {_opened(reading)}.to_table(columns=columns)
frame = dd.from_pandas(table.to_pandas(types_mapper=pd.ArrowDtype), npartitions=4)
{count}"""
    return f"""\
import dask.dataframe as dd
import fink_dask
import pandas as pd
import pyarrow.dataset as ds

alerts = {_opened(reading)}
schema = alerts.schema
{_expressions(reading)}


def load(file):
    return file.to_table(schema=schema, columns=columns).to_pandas(types_mapper=pd.ArrowDtype)


frame = dd.from_map(load, list(alerts.get_fragments()))
{count}"""


#: In the order in which they are shown.
_READERS: dict[str, Callable[[Reading], str]] = {
    "fink_dask": _with_fink_dask,
    "pandas": _with_pandas,
    "polars": _with_polars,
    "DuckDB": _with_duckdb,
    "pyarrow": _with_pyarrow,
    "Dask": _with_dask,
    "nested-pandas": _with_nested_pandas,
}
READERS = tuple(_READERS)


def _opened(reading: Reading) -> str:
    """Write the call of `open_dataset`."""
    return f"fink_dask.open_dataset({_quoted(reading.place)}{', unique=True' if reading.is_unique else ''})"


def _needs_ledger(reading: Reading) -> bool:
    """Tell whether only `open_dataset` opens it: the files, the place or its name are not what others expect."""
    return reading.is_unique or not reading.is_uniform or "://" in reading.place or bool(_PATTERN & set(reading.place))


def _expressions(reading: Reading) -> str:
    """Write which columns a scanner of pyarrow is to be asked for; fields of structs become columns."""
    paths = (*reading.columns, *reading.keys)
    if not any("." in path for path in paths):
        return f"columns = {_listed(paths)}"
    lines: list[str] = []
    for record, names in _by_record(paths).items():
        place = "".join(f"{_quoted(part)}, " for part in record.split(".") if part)
        if len(names) == 1 and lines:
            lines.append(f"columns[{_quoted(names[0])}] = ds.field({place}{_quoted(names[0])})")
            continue
        line = f"columns {'|=' if lines else '='} {{name: ds.field({place}name) for name in %s}}"
        listed = _listed(names)
        if len(line) + len(listed) <= _WIDTH:
            lines.append(line % listed)
        else:
            lines += [f"names = {listed}", line % "names"]
    return "\n".join(lines)


def _by_record(paths: Iterable[str]) -> dict[str, list[str]]:
    """Sort columns by the record that they are fields of; that of an alert's own is ``""``."""
    found: dict[str, list[str]] = {}
    for path in paths:
        record, _, name = path.rpartition(".")
        found.setdefault(record, []).append(name)
    return found


def _assigned(start: str, items: Sequence[str], end: str) -> str:
    """Write items on one line, or a line each."""
    line = f"{start}{', '.join(items)}{end}"
    return line if len(line) <= _WIDTH else f"{start}\n{''.join(f'    {item},{chr(10)}' for item in items)}{end}"


def _listed(names: Iterable[str]) -> str:
    return f"[{', '.join(map(_quoted, names))}]"


def _quoted(text: str) -> str:
    # Python has other escapes than JSON, for what can't be printed.
    return json.dumps(text, ensure_ascii=False) if text.isprintable() else repr(text)


def _in_sql(path: str) -> str:
    return ".".join(name if name in _PLAIN else f'"{name}"' for name in path.split("."))
