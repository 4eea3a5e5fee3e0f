"""A season: the datasets of several topics as one, with the columns of all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds

from fink_dask.avro.evolution import Versions
from fink_dask.dataset.surveys import find_fields
from fink_dask.errors import LedgerError, SchemaError

#: The column that tells where an alert is from.
TOPIC = "topic"


def unite(outdir: Path, opened: Sequence[tuple[str, ds.Dataset, Versions]]) -> ds.Dataset:
    """Make one dataset of several, which reads the same files.

    `opened`: topics, their datasets, and the schemas of their alerts; at least one, and all in one file system.
    Raises LedgerError if the alerts do not fit each other, as those of two surveys, or one of the topics has a column
    of another type, or called ``topic``.
    """
    _check_survey(outdir, [(topic, each.schema) for topic, each, _ in opened])
    season = _merge([(topic, versions) for topic, _, versions in opened])
    schema = pa.schema([*_columns([(topic, each.schema) for topic, each, _ in opened], season), (TOPIC, pa.string())])
    parquet = ds.ParquetFileFormat()
    fragments = [
        parquet.make_fragment(
            fragment.path,
            each.filesystem,
            partition_expression=fragment.partition_expression & (ds.field(TOPIC) == topic),
        )
        for topic, each, _ in opened
        for fragment in each.get_fragments()
    ]
    return ds.FileSystemDataset(fragments, schema, parquet, opened[0][1].filesystem)


def _check_survey(outdir: Path, topics: Sequence[tuple[str, pa.Schema]]) -> None:
    """Refuse what holds alerts of two surveys, which would be one table with half of its values missing."""
    of_survey: dict[str, str] = {}
    for topic, schema in topics:
        fields = find_fields(schema)
        if fields.has("object"):
            of_survey.setdefault(fields.survey.names["object"], topic)
    if len(of_survey) > 1:
        examples = " and ".join(f"{outdir / topic} (with {name})" for name, topic in of_survey.items())
        raise LedgerError(
            f"{outdir} holds alerts of two surveys, such as {examples}: give one of these directories, or move those "
            "of one survey to a directory of their own"
        )


def _merge(topics: Sequence[tuple[str, Versions]]) -> pa.Schema:
    """Return the columns of the alerts of all topics: structs have the fields that they have anywhere."""
    season = topics[0][1]
    for topic, versions in topics[1:]:
        for schema in versions.schemas:
            try:
                season = season.plus(schema)
            except SchemaError as error:
                raise LedgerError(f"{topic}: its alerts do not fit those of {topics[0][0]}: {error.line}") from error
    return season.arrow


def _columns(topics: Sequence[tuple[str, pa.Schema]], season: pa.Schema) -> list[pa.Field]:
    """Return the columns that the datasets have, as some of them may hold less than their alerts, and directories."""
    found: dict[str, pa.DataType] = {}
    for topic, schema in topics:
        if TOPIC in schema.names:
            raise LedgerError(f"{topic}: its alerts have a column {TOPIC}, which is to tell topics apart")
        for field in schema:
            kind = season.field(field.name).type if pa.types.is_nested(field.type) else field.type
            if found.setdefault(field.name, kind) != kind:
                raise LedgerError(
                    f"{topic}: its column {field.name} is {kind}, and {found[field.name]} in {topics[0][0]}"
                )
    return [pa.field(name, kind) for name, kind in found.items()]
