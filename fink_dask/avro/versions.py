"""Several writer schemas whose records make one dataset."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from fink_dask.avro.evolution import check_bounds, merge_types
from fink_dask.avro.lazy import lazy_property
from fink_dask.avro.operations import BATCH_CELLS
from fink_dask.avro.resolve import MAX_CELLS
from fink_dask.avro.schema import AvroSchema
from fink_dask.avro.types import AvroType
from fink_dask.errors import SchemaError

#: The most schemas of a dataset: a producer has one, and changes it now and then.
MAX_VERSIONS = 16


@dataclass(frozen=True)
class Versions:
    """The writer schemas of a dataset, in the order in which it took them in; they fit each other.

    Parameters
    ----------
    schemas : tuple of AvroSchema
        At least one; `plus` makes more of one.
    """

    schemas: tuple[AvroSchema, ...]

    @property
    def first(self) -> AvroSchema:
        """The schema with which the dataset began."""
        return self.schemas[0]

    @lazy_property
    def record(self) -> AvroType:
        """The record with the fields of all schemas: those of the first one, then what each later one adds."""
        return self._steps[-1]

    @lazy_property
    def arrow(self) -> pa.Schema:
        """The columns of `record`."""
        return pa.schema(self.record.arrow_fields)

    @property
    def max_records(self) -> int:
        """The most records to decode at once; see `AvroSchema.max_records`."""
        return BATCH_CELLS // (self.record.cells + MAX_CELLS)

    def plus(self, schema: AvroSchema) -> Versions:
        """Add a schema.

        What it says of a schema that does not fit stays the same when others are taken in meanwhile: it is about the
        first of `schemas` with which it does not fit.

        Raises
        ------
        SchemaError
            If it does not fit, with the reason, or there are too many.
        """
        if schema in self.schemas:
            return self
        for count, record in enumerate(self._steps, 1):
            merged = merge_types(record, schema.parsed)
            check_bounds(merged, tuple(one.parsed for one in (*self.schemas[:count], schema)))
        if len(self.schemas) >= MAX_VERSIONS:
            raise SchemaError(f"this dataset has {MAX_VERSIONS} schemas already")
        return Versions((*self.schemas, schema))

    @lazy_property
    def _steps(self) -> tuple[AvroType, ...]:
        steps = [self.first.parsed]
        for schema in self.schemas[1:]:
            steps.append(merge_types(steps[-1], schema.parsed))
        return tuple(steps)
