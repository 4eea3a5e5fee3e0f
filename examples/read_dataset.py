"""Look into a dataset that fink-dask has written: counts, one night, one object's light curve.

Run it as ``python read_dataset.py DIRECTORY``. It reads topics of ZTF or LSST alerts, light or full, whatever they are
partitioned by. Besides pyarrow, which comes with fink-dask, it needs pandas and polars.
"""

# ruff: noqa: T201 - an example speaks to its user

from __future__ import annotations

import sys
from pathlib import Path

try:
    import numpy as np
    import pandas as pd
    import polars as pl
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset as ds
except ImportError as error:
    sys.exit(f"{error}: pip install pandas polars pyarrow")

# What the surveys call an object, and time, filter and brightness of a measurement. In full packets these are fields of
# a struct, and there is a list of earlier measurements. Light packets have them as columns, LSST's another brightness.
OBJECT = {"ztf": "objectId", "lsst": "diaObjectId"}
RECORD = {"ztf": "candidate", "lsst": "diaSource"}
HISTORY = {"ztf": "prv_candidates", "lsst": "prvDiaSources"}
MEASURED = {"ztf": ("jd", "fid", "magpsf"), "lsst": ("midpointMjdTai", "band", "psfFlux")}
LIGHT_MEASURED = MEASURED | {"lsst": ("midpointMjdTai", "band", "scienceFlux")}


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
    """Take the object with the longest light curve, and return its name and a table of measurements."""
    alerts = ds.dataset(directory, partitioning="hive")
    survey = "ztf" if OBJECT["ztf"] in alerts.schema.names else "lsst"
    if HISTORY[survey] in alerts.schema.names:
        return longest_history(alerts, survey)
    names = LIGHT_MEASURED[survey]
    found = alerts.to_table(columns=[OBJECT[survey], *names])
    counts = found[OBJECT[survey]].value_counts().to_pylist()
    # LSST says 0 of what moves in the solar system.
    name = max((each for each in counts if each["values"]), key=lambda each: each["counts"])["values"]
    return name, found.filter(pc.field(OBJECT[survey]) == name).select(names).sort_by(names[0])


def longest_history(alerts: ds.Dataset, survey: str) -> tuple[object, pa.Table]:
    """Unfold the list of earlier measurements that has most of them; upper limits have no brightness."""
    names, column = MEASURED[survey], HISTORY[survey]
    place = [OBJECT[survey]] if survey == "ztf" else [RECORD[survey], OBJECT[survey]]
    found = alerts.to_table(columns={"object": pc.field(*place), "history": pc.field(column)})
    detections = np.concatenate([count_detections(chunk, names[2]) for chunk in found["history"].chunks])
    longest = int(detections.argmax())
    # One value of a list<struct> is an array of structs, and a field of that is a column: nothing is copied.
    measurements = found["history"][longest].values
    curve = pa.table({name: measurements.field(name) for name in names})
    return found["object"][longest].as_py(), curve.filter(pc.field(names[2]).is_valid()).sort_by(names[0])


def count_detections(histories: pa.ListArray, brightness: str) -> np.ndarray:
    """Count the entries of each list that have a brightness."""
    is_detection = pc.list_flatten(histories).field(brightness).is_valid()
    return np.bincount(pc.list_parent_indices(histories).filter(is_detection), minlength=len(histories))


def main() -> None:
    """Print what a reader of a dataset looks at first."""
    if len(sys.argv) != 2:
        sys.exit("usage: python read_dataset.py DIRECTORY")
    directory = Path(sys.argv[1])
    try:
        columns = ds.dataset(directory, partitioning="hive").schema.names
    except OSError as error:
        sys.exit(f"no dataset there: {error}")
    if not columns:
        sys.exit(f"no alerts in {directory}")
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
