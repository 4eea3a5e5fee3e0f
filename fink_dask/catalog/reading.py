"""Read the alerts of datasets for a catalog: its columns, and of lists of structs only the fields that it needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from fink_dask.avro.spelling import steps_to
from fink_dask.catalog.form import Form, paths_in
from fink_dask.dataset.read import Part
from fink_dask.dataset.season import TOPIC
from fink_dask.dataset.surveys import Fields, find_fields
from fink_dask.lightcurves.find import told_of
from fink_dask.lightcurves.points import MEASURED, OBJECT

#: Rows that are read at once; those with history are a hundred times as large.
_BATCH_ROWS, _BATCH_ROWS_WITH_HISTORY = 65_536, 1024
#: What a point needs of an alert, and of what it tells.
_ROLES = ("source", *MEASURED)


@dataclass(frozen=True)
class Batch:
    """Some alerts of a dataset."""

    #: The columns of a form.
    rows: pa.Table
    #: What `fink_dask.lightcurves.points` makes points of; None without history.
    measured: pa.Table | None
    fields: Fields


class Reader:
    """Reads what one topic's dataset has for a catalog."""

    def __init__(self, part: Part, form: Form) -> None:
        self._part = part
        self._form = form
        self._paths = paths_in(part.dataset.schema, form)
        self._fields = find_fields(part.dataset.schema)
        self._lists = told_of(self._fields.survey, part.dataset.schema) if form.has_history else {}

    def count(self) -> tuple[int, int]:
        """Count the alerts, and about how many points their lists have, by the footers of the files."""
        alerts = points = 0
        for fragment in self._fragments():
            metadata = fragment.metadata
            alerts += metadata.num_rows
            if self._lists and metadata.num_row_groups:
                group = metadata.row_group(0)
                paths = [group.column(number).path_in_schema for number in range(group.num_columns)]
                firsts = [
                    next((i for i, path in enumerate(paths) if _is_below(path, at)), None)
                    for at in self._lists.values()
                ]
                points += sum(
                    metadata.row_group(i).column(first).num_values
                    for i in range(metadata.num_row_groups)
                    for first in firsts
                    if first is not None
                )
        return alerts, points

    def batches(self) -> Iterator[Batch]:
        """Yield the alerts, file by file."""
        size = _BATCH_ROWS_WITH_HISTORY if self._form.has_history else _BATCH_ROWS
        for fragment in self._fragments():
            keys = ds.get_partition_keys(fragment.partition_expression)
            with fragment.filesystem.open_input_file(fragment.path) as file:
                parquet = pq.ParquetFile(file)
                wanted = [path for path in _leaves(parquet) if self._is_wanted(path)]
                for batch in parquet.iter_batches(size, columns=wanted):
                    yield self._batch(batch, keys)

    def _fragments(self) -> list[ds.ParquetFileFragment]:
        """List the files; ranges may have none, if nothing of them was kept."""
        dataset = self._part.dataset
        return list(dataset.get_fragments()) if isinstance(dataset, ds.FileSystemDataset) else []

    def _is_wanted(self, leaf: str) -> bool:
        if leaf in self._paths.values() or leaf in self._fields.paths.values() or leaf == self._limit:
            return True
        survey = self._fields.survey
        needed = {*(survey.names.get(role) for role in _ROLES), survey.forced_source, survey.limit}
        return any(_is_below(leaf, path) and leaf.rpartition(".")[2] in needed for path in self._lists.values())

    @property
    def _limit(self) -> str:
        """Where the limit of the detection itself is, if the survey gives one."""
        survey = self._fields.survey
        return self._fields.paths["time"].removesuffix(survey.names["time"]) + survey.limit if survey.limit else ""

    def _batch(self, batch: pa.RecordBatch, keys: dict[str, object]) -> Batch:
        count, schema = batch.num_rows, self._part.dataset.schema

        def column(path: str) -> pa.Array | None:
            if path in keys:
                return pa.repeat(pa.scalar(keys[path], schema.field(path).type), count)
            first, *below = steps_to(batch.schema.names, path)
            if first not in batch.schema.names:
                return None
            found = batch.column(first)
            for name in below:
                if found.type.get_field_index(name) < 0:
                    return None
                found = pc.struct_field(found, name)
            return found

        columns = {}
        for field in self._form.columns:
            path = self._paths.get(field.name)
            found = None if path is None else column(path)
            if field.name == TOPIC:
                found = pa.repeat(self._part.identity.topic, count)
            columns[field.name] = pa.nulls(count, field.type) if found is None else found.cast(field.type)
        measured = None
        if self._form.has_history:
            roles = {role: self._fields.paths[role] for role in _ROLES if role in self._fields.paths}
            asked = roles | ({"limit": self._limit} if self._limit else {}) | self._lists
            told = {name: found for name, path in asked.items() if (found := column(path)) is not None}
            measured = pa.table(told | {OBJECT: columns[self._form.object_id]})
        return Batch(pa.table(columns), measured, self._fields)


def _leaves(parquet: pq.ParquetFile) -> list[str]:
    return [parquet.schema.column(number).path for number in range(len(parquet.schema))]


def _is_below(leaf: str, path: str) -> bool:
    return leaf.startswith(f"{path}.")
