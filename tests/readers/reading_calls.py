"""The calls that Fink's documentation and tutorials make on transferred data, written anew: what each of them finds.

Run with the Python of an environment that has the readers. The standard input says in JSON which calls, and where the
data are; the standard output is a digest for each call, in JSON.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: What fink-dask adds to each alert.
ADDED = ("kafka_partition", "kafka_offset")


def plain(value: Any) -> Any:
    """Make values of all readers comparable: arrays are lists, entries of maps pairs, dates and bytes text."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        if set(value) == {"key", "value"}:
            return [plain(value["key"]), plain(value["value"])]
        return {str(name): plain(each) for name, each in sorted(value.items()) if name not in ADDED}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, float) and value != value:
        return None
    return value if isinstance(value, int | float | str | bool | None) else str(value)


def digest(rows: list[Any]) -> dict[str, Any]:
    """Sum rows up, whatever their order."""
    texts = sorted(json.dumps(plain(row), sort_keys=True) for row in rows)
    return {"rows": len(texts), "sha256": hashlib.sha256("\n".join(texts).encode()).hexdigest(), "first": texts[:1]}


def pandas_directory(asked: dict[str, str]) -> list[Any]:
    """Read the directory, as the manuals of transfer and cross-match do."""
    import pandas as pd

    return pd.read_parquet(asked["parquet"]).astype(object).to_dict("records")


def pandas_with_schema(asked: dict[str, str]) -> list[Any]:
    """Read the directory with the schema that was dumped."""
    import pandas as pd
    import pyarrow.parquet as pq

    frame = pd.read_parquet(asked["parquet"], schema=pq.read_schema(asked["schema"]))
    return [list(frame.columns), *frame.astype(object).to_dict("records")]


def pyarrow_with_schema(asked: dict[str, str]) -> list[Any]:
    """Read a table with the schema that was dumped: every value, and every type but for what may be null."""
    import pyarrow.parquet as pq

    table = pq.read_table(asked["parquet"], schema=pq.read_schema(asked["schema"]))
    types = (str(field).replace(" not null", "").replace(" ('entries')", "") for field in table.schema)
    return [*types, *table.to_pylist()]


def each_file(asked: dict[str, str]) -> list[Any]:
    """Read file by file, with identifiers as text."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    found = []
    for path in Path(asked["parquet"]).rglob("*.parquet"):
        table = pq.ParquetFile(path).read()
        frame = table.to_pandas(integer_object_nulls=True)
        struct = next((each for each in ("diaObject", "candidate") if each in table.column_names), None)
        if struct is not None:
            field = "diaObjectId" if struct == "diaObject" else "pid"
            frame["id"] = pc.cast(pc.struct_field(table[struct], field), pa.string()).to_pandas()
        found += frame.astype(object).to_dict("records")
    return found


def light_curves(asked: dict[str, str]) -> list[Any]:
    """Put the history of each alert together, and its own measurement."""
    import pandas as pd
    from fink_client.visualisation import extract_history

    found = []
    for _, alert in pd.read_parquet(asked["parquet"]).iterrows():
        now, before = ("diaSource", "prvDiaSources") if "diaSource" in alert else ("candidate", "prv_candidates")
        fields = ("midpointMjdTai", "psfFlux", "band") if now == "diaSource" else ("jd", "magpsf", "fid")
        history = [] if alert[before] is None else list(alert[before])
        found.append([[*extract_history(history, field), alert[now][field]] for field in fields])
    return found


def cutouts(asked: dict[str, str]) -> list[Any]:
    """Unpack the cutouts of each alert."""
    import pandas as pd
    from fink_client.visualisation import readstamp

    found = []
    for _, alert in pd.read_parquet(asked["parquet"]).iterrows():
        stamp = alert["cutoutScience"]
        is_ztf = isinstance(stamp, dict)
        image = readstamp(stamp["stampData"] if is_ztf else stamp, gzipped=is_ztf)
        found.append([image.shape, float(image[image == image].sum())])
    return found


def alert_reader(asked: dict[str, str]) -> list[Any]:
    """Read the Avro files of a directory with the client's own reader."""
    from fink_client.avro_utils import AlertReader

    reader = AlertReader(asked["avro"])
    return [len(reader.to_list(size=1)), sorted(reader.to_pandas().columns), *reader.to_list()]


def polars_parquet(asked: dict[str, str]) -> list[Any]:
    """Read the directory with polars."""
    import polars as pl

    return pl.read_parquet(asked["parquet"] + "/").to_dicts()


def nested(asked: dict[str, str]) -> list[Any]:
    """Nest the history of each alert with nested-pandas."""
    import nested_pandas as npd

    frame = npd.read_parquet(asked["parquet"], columns=[asked["id"], asked["history"]])
    return [str(frame[asked["history"]].dtype).count(","), *frame[asked["id"]].tolist()]


CALLS: dict[str, Callable[[dict[str, str]], list[Any]]] = {
    call.__name__: call
    for call in (
        *(pandas_directory, pandas_with_schema, pyarrow_with_schema, each_file, light_curves, cutouts),
        *(alert_reader, polars_parquet, nested),
    )
}

if __name__ == "__main__":
    wanted = json.load(sys.stdin)
    json.dump({name: digest(CALLS[name](wanted["where"])) for name in wanted["calls"]}, sys.stdout)
