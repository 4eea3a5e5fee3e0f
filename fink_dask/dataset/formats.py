"""The formats of data files, by the names that `--outformat` has for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fink_dask.dataset.avro_file import AvroFormat
from fink_dask.dataset.data_format import DataFormat
from fink_dask.dataset.parquet_file import ParquetFormat

#: Each of `fink_dask.config.OUTFORMATS`.
FORMATS: Mapping[str, DataFormat] = {"parquet": ParquetFormat(), "avro": AvroFormat()}


def format_of(path: Path) -> DataFormat:
    """Tell by its name which format a file has.

    Raises
    ------
    ValueError
        If it has none.
    """
    for each in FORMATS.values():
        if path.suffix == each.suffix:
            return each
    raise ValueError(f"no data file has a name like {path.name[-40:]!r}")
