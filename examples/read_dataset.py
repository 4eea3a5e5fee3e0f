"""Look into a dataset that fink-dask has written: counts, one night, one object's light curve.

Run it as ``python read_dataset.py DIRECTORY``. It reads topics of ZTF or LSST alerts, light or full, whatever they are
partitioned by. Besides pyarrow, which comes with fink-dask, it needs pandas and polars.
"""

# ruff: noqa: T201 - an example speaks to its user

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

# Light curves stay nested: one list of measurements an alert. Which column, and what time, filter and brightness of a
# measurement are called, depends on the survey.
HISTORIES = {"prv_candidates": ("jd", "fid", "magpsf"), "prvDiaSources": ("midpointMjdTai", "band", "psfFlux")}


def count_nights(directory: Path) -> pd.DataFrame:
    """Count the alerts of each UTC day with pandas; only the columns that are needed are read."""
    # Read through pyarrow, partition columns stay plain integers and strings, also where a key is null.
    days = ds.dataset(directory, partitioning="hive").to_table(columns=["year", "month", "day"])
    return days.to_pandas().groupby(["year", "month", "day"], dropna=False).size().rename("alerts").reset_index()


def count_classes(directory: Path, day: int) -> pl.DataFrame:
    """Count one day's alerts of each class with polars; the other days' files are not opened."""
    alerts = pl.scan_parquet(directory / "**/*.parquet", hive_partitioning=True)
    return alerts.filter(pl.col("day") == day).group_by("finkclass").len("alerts").sort("alerts").collect()


def light_curve(directory: Path) -> tuple[object, pa.Table]:
    """Take the object with the longest history, and unfold that into a table of measurements."""
    alerts = ds.dataset(directory, partitioning="hive")
    column = next(name for name in HISTORIES if name in alerts.schema.names)
    # ZTF names an object in a column, LSST too in light packets, and in full ones in a field of a struct.
    place = ["objectId"] if column == "prv_candidates" else ["diaObjectId"]
    name = pc.field(*(place if place[0] in alerts.schema.names else ["diaSource", *place]))
    found = alerts.to_table(columns={"object": name, "history": pc.field(column)})
    longest = int(pc.list_value_length(found["history"]).fill_null(0).to_numpy().argmax())
    # One value of a list<struct> is an array of structs, and a field of that is a column: nothing is copied.
    measurements = found["history"][longest].values
    curve = pa.table({name: measurements.field(name) for name in HISTORIES[column]})
    return found["object"][longest].as_py(), curve.sort_by(HISTORIES[column][0])


def main() -> None:
    """Print what a reader of a dataset looks at first."""
    if len(sys.argv) != 2:
        sys.exit("usage: python read_dataset.py DIRECTORY")
    directory = Path(sys.argv[1])
    columns = ds.dataset(directory, partitioning="hive").schema.names
    if "day" in columns:
        nights = count_nights(directory)
        print(nights.to_string(index=False))
        if "finkclass" in columns:
            print(count_classes(directory, int(nights["day"].dropna().iloc[0])))
    name, curve = light_curve(directory)
    print(f"light curve of {name}:")
    print(curve.to_pandas())


if __name__ == "__main__":
    main()
