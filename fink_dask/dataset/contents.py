"""What a file of a dataset says of itself, whatever its format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from fink_dask.avro.container import read_header
from fink_dask.dataset.container import SUFFIX, read_offsets
from fink_dask.dataset.writer import KAFKA_FIELDS

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
    with pq.ParquetFile(path) as parquet:
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
    table = pq.read_table(path, columns=[field.name for field in KAFKA_FIELDS], partitioning=None)
    partitions, found = (table[field.name].to_numpy() for field in KAFKA_FIELDS)
    return partitions, found
