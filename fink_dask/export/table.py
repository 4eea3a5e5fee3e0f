"""Which columns a table has, and its rows, some at a time: every field that is a single value, by its dotted path."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from fink_dask.avro.evolution import near_column
from fink_dask.avro.fields import Field, fields_of
from fink_dask.avro.schema import field_type, is_single_value
from fink_dask.avro.spelling import steps_to
from fink_dask.dataset.formats import why_unreadable
from fink_dask.dataset.partitioning import column_of
from fink_dask.dataset.read import open_dataset
from fink_dask.dataset.schema_versions import known_versions
from fink_dask.errors import LedgerError, SettingsError, parameter
from fink_dask.export.formats import FORMATS, Column
from fink_dask.ledger.ledger import storage_error
from fink_dask.ledger.outdir import check_new_file, find_datasets
from fink_dask.store.local import LOCAL, is_stream
from fink_dask.store.location import locate
from fink_dask.where.condition import Condition, bind_condition

#: Rows that are held at once.
_ROWS = 20_000
#: https://cdsweb.u-strasbg.fr/doc/catstd-3.2.htx, for what both surveys call so.
_UNITS = {
    **dict.fromkeys(("ra", "dec", "raErr", "decErr"), "deg"),
    **dict.fromkeys(("jd", "midpointMjdTai"), "d"),
    **dict.fromkeys(("magpsf", "sigmapsf", "magap", "sigmagap", "diffmaglim", "magnr", "sigmagnr"), "mag"),
    **dict.fromkeys(("psfFlux", "psfFluxErr", "apFlux", "apFluxErr", "scienceFlux", "scienceFluxErr"), "nJy"),
    **dict.fromkeys(("templateFlux", "templateFluxErr"), "nJy"),
}
#: The unit at the end of a description, and units that FITS and VOTable spell otherwise.
_UNIT = re.compile(r"\[([A-Za-z0-9/^*.-]{1,20})\]\.?$")
_SPELLED = {"days": "d", "day": "d", "degrees": "deg", "pixels": "pix", "pixel": "pix", "seconds": "s"}
#: The longest description.
_DOC_CHARS = 200


@dataclass(frozen=True)
class Exported:
    """What a file has."""

    rows: int
    columns: tuple[str, ...]
    #: Columns of the dataset that have no place in it, such as lists, maps and cutouts; empty if some were chosen.
    left_out: tuple[str, ...]


def export_table(
    outdir: str | os.PathLike[str],
    target: Path,
    columns: Sequence[str] | None = None,
    where: str | None = None,
    unique: bool = False,
    begin: Callable[[str, int, str], None] = lambda *_: None,
    advance: Callable[[int], None] = lambda _: None,
) -> Exported:
    """Write a table of alerts, which appears whole or not at all.

    `outdir`: the dataset, or a directory with those of several topics.
    `target`: the file, which is not there yet; its suffix, one of `FORMATS`, is its format.
    `columns`: columns, or dotted fields; by default all that are single values.
    `where`: A condition: only alerts of which it is true.
    `begin, advance`: told what comes next, its number of rows and what these are, and how many are done.
    Raises SettingsError if the file is there, is of no known format, or a column is not there or no single value; of
    the condition.
    Raises LedgerError if the dataset is not what its ledger says.
    """
    write = FORMATS.get(target.suffix.lower())
    if write is None:
        raise SettingsError(f"{target}: its format is told by its name, which ends in {', '.join(FORMATS)}")
    check_new_file(target, locate(outdir))
    dataset = open_dataset(outdir, unique=unique)
    leaves = dict(_leaves(dataset.schema))
    # No path leads through a struct, or to a field of one, with dots in its own name.
    singles = {
        path: kind
        for path, kind in leaves.items()
        if is_single_value(kind) and field_type(dataset.schema, path) == kind
    }
    chosen = list(singles) if columns is None else list(dict.fromkeys(columns))
    for name in chosen:
        if name not in singles:
            raise SettingsError(f"{parameter('columns')} {name[:100]}: {_why_not(dataset.schema, name)}")
    docs = _docs_of(locate(outdir).resolve())
    table = Table(dataset, [_column(name, singles[name], docs.get(name, "")) for name in chosen])
    if where is not None:
        table.condition = _bound(where, dataset.schema)
    left_out = tuple(path for path in leaves if path not in singles) if columns is None else ()
    try:
        with _aside(target) as path:
            rows = write(path, table.columns, lambda: table.batches(begin, advance))
            LOCAL.sync(path)
    except OSError as error:
        raise storage_error(error, target) from error
    except pa.ArrowException as error:
        raise LedgerError(f"{outdir} can't be read: {why_unreadable(error)}") from error
    return Exported(rows, tuple(chosen), left_out)


class Table:
    """The rows of a dataset as plain columns; they can be gone through several times."""

    def __init__(self, dataset: ds.Dataset, columns: list[Column]) -> None:
        # What is wanted of it.
        self.columns = columns
        self.condition: Condition | None = None
        self.rows = dataset.count_rows()
        self._dataset = dataset

    def batches(
        self, begin: Callable[[str, int, str], None], advance: Callable[[int], None]
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows that the condition is true of."""
        begin("reading alerts", self.rows, "alert")
        asked = self.condition.columns if self.condition is not None else ()
        names = self._dataset.schema.names
        needed = {steps_to(names, path)[0] for path in (*(column.path for column in self.columns), *asked)}
        # Not by their names alone, in which pyarrow takes dots for those of a path.
        columns = {name: pc.field(name) for name in names if name in needed}
        for batch in self._dataset.to_batches(columns=columns, batch_size=_ROWS):
            advance(batch.num_rows)
            arrays = [column_of(batch, column.path) for column in self.columns]
            rows = pa.record_batch(arrays, [column.path for column in self.columns])
            if self.condition is not None:
                rows = rows.filter(pa.array(self.condition.is_true(batch)))
            if rows.num_rows:
                yield rows


def _column(path: str, kind: pa.DataType, doc: str) -> Column:
    """Describe a column; what a survey ends a description with in brackets is the unit: ``magnitude [mag]``."""
    text = " ".join(doc.split())[:_DOC_CHARS]
    said = _UNIT.search(text)
    unit = _UNITS.get(path.rpartition(".")[2], "") or (_SPELLED.get(said[1], said[1]) if said else "")
    return Column(path, kind, unit, text)


def _docs_of(outdir: Path) -> dict[str, str]:
    """Read what the schemas say of each field, by dotted path; of several topics, the first that says it counts."""
    found: dict[str, str] = {}
    ledger, several = find_datasets(outdir)
    for each in several or [ledger]:
        for schema in known_versions(each, each.plans()[-1].identity).schemas:
            for path, doc in _walk(fields_of(schema)):
                found.setdefault(path, doc)
    return found


def _walk(fields: Iterable[Field], prefix: str = "") -> Iterator[tuple[str, str]]:
    for field in fields:
        if field.doc:
            yield prefix + field.name, field.doc
        yield from _walk(field.fields, f"{prefix}{field.name}.")


def _bound(where: str, schema: pa.Schema) -> Condition:
    try:
        return bind_condition(where, schema)
    except SettingsError as error:
        raise SettingsError(f"{parameter('where')}: {error.line}") from error


def _leaves(schema: pa.Schema, prefix: str = "") -> Iterator[tuple[str, pa.DataType]]:
    """Walk to the fields that are no structs."""
    for field in schema:
        if pa.types.is_struct(field.type):
            yield from _leaves(pa.schema(list(field.type)), f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, field.type


def _why_not(schema: pa.Schema, name: str) -> str:
    if field_type(schema, name) is None:
        return f"the dataset has no such column{near_column(name, schema)}"
    return "it is no single value, and a table has no place for it"


@contextmanager
def _aside(target: Path) -> Iterator[Path]:
    """Yield a path beside the target, which gets its name at the end; what it holds, where that is a pipe or device."""
    if is_stream(target):
        with TemporaryDirectory(prefix="fink-dask-") as here:
            yield (path := Path(here, "table"))
            with path.open("rb") as file, target.open("ab") as stream:
                shutil.copyfileobj(file, stream)
        return
    path = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        yield path
        path.rename(target)
        LOCAL.sync(target.parent)
    finally:
        path.unlink(missing_ok=True)
