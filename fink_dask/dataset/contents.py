"""What a file of a dataset says of itself, whatever its format."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from fink_dask.avro.container import read_header, read_records
from fink_dask.avro.schema import AvroSchema
from fink_dask.dataset.container import SUFFIX, read_offsets
from fink_dask.dataset.location import parquet_source
from fink_dask.dataset.writer import KAFKA_FIELDS
from fink_dask.errors import LedgerError

Offsets = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Contents:
    """What a file says of itself.

    Parameters
    ----------
    rows : int
        Its alerts.
    footer : dict of str to str
        Where they come from; see `Origin.footer`.
    """

    rows: int
    footer: dict[str, str]


def read_contents(path: Path) -> Contents:
    """Read what a file says of itself.

    Raises
    ------
    OSError, ValueError, pyarrow.ArrowException
        If it can't be read.
    """
    if path.suffix == SUFFIX:
        said, rows = read_header(path)
        return Contents(rows, said)
    with pq.ParquetFile(parquet_source(path)) as parquet:
        metadata = parquet.metadata
    found = metadata.metadata or {}
    return Contents(
        metadata.num_rows, {key.decode(errors="replace"): text.decode(errors="replace") for key, text in found.items()}
    )


def read_places(path: Path) -> tuple[npt.NDArray[np.int32], Offsets]:
    """Read partition and offset of each alert of a file.

    Raises
    ------
    OSError, KeyError, ValueError, pyarrow.ArrowException
        If it can't be read.
    """
    if path.suffix == SUFFIX:
        partition, offsets = read_offsets(path)
        return np.full(len(offsets), partition, np.int32), offsets
    table = pq.read_table(parquet_source(path), columns=[field.name for field in KAFKA_FIELDS], partitioning=None)
    partitions, found = (table[field.name].to_numpy() for field in KAFKA_FIELDS)
    return partitions, found


def read_alert(path: Path, number: int, schema: AvroSchema) -> dict[str, Any] | bytes:
    """Read one alert of a file: its values, or its bytes where the file is Avro's.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    number : int
        Which one, from 0.
    schema : AvroSchema
        The schema of the records of Avro's files.

    Raises
    ------
    LedgerError
        If the file has fewer.
    """
    if path.suffix == SUFFIX:
        for record in islice(read_records(path, schema), number, None):
            return record
    else:
        with pq.ParquetFile(parquet_source(path)) as parquet:
            for group in range(parquet.num_row_groups):  # no more of them than the one that holds it
                rows = parquet.metadata.row_group(group).num_rows
                if number < rows:
                    found: dict[str, Any] = parquet.read_row_group(group).slice(number, 1).to_pylist()[0]
                    return found
                number -= rows
    raise LedgerError(f"{path} has fewer rows than it had a moment ago")
