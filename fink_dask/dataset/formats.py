"""The formats of data files, by their names for `--outformat`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fink_dask.dataset.avro_file import AvroFormat
from fink_dask.dataset.data_format import DataFormat
from fink_dask.dataset.parquet_file import ParquetFormat

#: Each of `fink_dask.config.OUTFORMATS`.
FORMATS: Mapping[str, DataFormat] = {"parquet": ParquetFormat(), "avro": AvroFormat()}


def format_of(path: Path) -> DataFormat:
    """Tell the format of a file by its name.

    Raises
    ------
    ValueError
        If it has none.
    """
    for each in FORMATS.values():
        if path.suffix == each.suffix:
            return each
    raise ValueError(f"{path.name[-40:]!r} is not the name of a data file")
