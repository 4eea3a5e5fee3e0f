"""Find the alerts that a producer has sent more than once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fink_dask.avro.schema import field_type
from fink_dask.dataset.data_format import KAFKA_FIELDS
from fink_dask.errors import SettingsError

Places = npt.NDArray[np.int64]


class Duplicates:
    """The rows that are left out: all of an identifier but the first one, by partition and offset.

    Parameters
    ----------
    offsets : dict of int to numpy.ndarray of int64
        Their offsets in each partition, in order.
    """

    def __init__(self, offsets: dict[int, Places] | None = None) -> None:
        self._offsets = offsets or {}

    def __len__(self) -> int:
        return sum(map(len, self._offsets.values()))

    def is_kept(self, partitions: npt.NDArray[np.int32], offsets: Places) -> npt.NDArray[np.bool_]:
        """Tell of each row whether it stays."""
        kept = np.ones(len(offsets), np.bool_)
        for partition, dropped in self._offsets.items():
            mine = partitions == partition
            if mine.any():
                kept[mine] = ~np.isin(offsets[mine], dropped)
        return kept


def check_identifier(schema: pa.Schema, name: str) -> None:
    """Refuse a column that can't tell alerts apart.

    Raises
    ------
    SettingsError
        If the files have no such column or field, or it is neither an integer nor a string.
    """
    kind = field_type(schema, name)
    if kind is None:
        raise SettingsError(f"--unique {name[:80]}: the files of this dataset have no such column")
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind)):
        raise SettingsError(f"--unique {name[:80]}: integers and strings tell alerts apart, not {str(kind)[:80]}")


def find_duplicates(paths: Sequence[Path], name: str, kind: pa.DataType) -> Duplicates:
    """Find the rows of files whose identifier an earlier row has; those without an identifier are all kept.

    Holds identifier, partition and offset of all rows, and an order of them: about 90 bytes an alert, more for text.

    Parameters
    ----------
    paths : sequence of pathlib.Path
        All files of a dataset.
    name : str
        Column, or dotted field of a struct; a file without it has alerts without an identifier.
    kind : pyarrow.DataType
        Type of the column in the new dataset.
    """
    tables = []
    for path in paths:
        wanted = dict.fromkeys([name, *(field.name for field in KAFKA_FIELDS)])
        with pq.ParquetFile(path) as parquet:
            if field_type(parquet.schema_arrow, name) is None:
                continue
            table = parquet.read(columns=list(wanted))
        column, *fields = name.split(".")
        identifiers = table[column]
        for field in fields:
            identifiers = pc.struct_field(identifiers, field)
        identifiers = identifiers.cast(kind)
        columns = [identifiers, *(table[field.name] for field in KAFKA_FIELDS)]
        tables.append(pa.table(columns, names=["id", "partition", "offset"]))
    if not tables:
        return Duplicates()
    rows = pa.concat_tables(tables)
    rows = rows.filter(pc.is_valid(rows["id"]))
    rows = rows.sort_by([(column, "ascending") for column in rows.column_names]).combine_chunks()
    identifiers = rows["id"]
    repeated = np.zeros(len(rows), np.bool_)
    if len(rows):
        repeated[1:] = pc.equal(identifiers[1:], identifiers[:-1]).to_numpy()
    partitions = rows["partition"].to_numpy()[repeated]
    offsets = rows["offset"].to_numpy()[repeated]
    return Duplicates(
        {int(partition): np.sort(offsets[partitions == partition]) for partition in np.unique(partitions)}
    )
