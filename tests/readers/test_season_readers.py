"""A season of many nights and several schemas is opened, compacted, shown, exported and added to, with every alert."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import duckdb
import pandas as pd
import polars as pl
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import fink_dask
from tests.alerts.made_up import AlertKind, avro_schema, encoder, made_up_alerts
from tests.harness.cli import run_cli, transfer_arguments
from tests.harness.producer import produce, publish_schema
from tests.harness.topics import create_topic, remove_topics
from tests.harness.versions import with_more

pytestmark = [pytest.mark.readers, pytest.mark.usefixtures("shared_dask")]

SCHEMAS = 5


class Nights:
    """Makes topics of light alerts, each with one of five schemas, of which each has a column more."""

    def __init__(self, kafka: Any, count: int) -> None:
        self._kafka = kafka
        self.stem = f"ftransfer_ztf_2026-11-{uuid.uuid4().int % 10**8:08d}"
        alerts = list(made_up_alerts(AlertKind.ZTF_LIGHT, count))
        self._schemas = [avro_schema(AlertKind.ZTF_LIGHT)]
        for number in range(1, SCHEMAS):
            self._schemas.append(with_more(self._schemas[-1], number))
        more = {f"more_{number}": number for number in range(1, SCHEMAS)}
        self._values = [[write(alert | more) for alert in alerts] for write in map(encoder, self._schemas)]
        self.topics: list[str] = []

    def add(self) -> str:
        name, which = f"{self.stem}_{len(self.topics):02d}", len(self.topics) % SCHEMAS
        create_topic(self._kafka.bootstrap_servers, name, 2)
        publish_schema(self._kafka.bootstrap_servers, name, json.dumps(self._schemas[which]))
        produce(self._kafka.bootstrap_servers, name, self._values[which], partitions=2)
        self.topics.append(name)
        return name

    def delete(self) -> None:
        remove_topics(self._kafka.bootstrap_servers, *self.topics)


@pytest.fixture(params=[(30, 10_000)], ids=["thirty topics"])
def nights(kafka: Any, request: pytest.FixtureRequest) -> Iterator[tuple[Nights, int, int]]:
    topics, count = request.param
    made = Nights(kafka, count)
    for _ in range(topics):
        made.add()
    yield made, topics, count
    made.delete()


def test_a_season_of_thirty_topics_is_one_dataset(
    nights: tuple[Nights, int, int], kafka: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, topics, count = nights
    outdir, compacted, took = tmp_path / "nights", tmp_path / "compacted", {}

    def timed(what: str, do: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        found = do()
        took[what] = time.perf_counter() - began
        return found

    def command(*arguments: object) -> Any:
        done = run_cli(*map(str, arguments), timeout_s=250)
        assert done.returncode == 0, done.stderr or done.stdout
        return done

    timed("transfer", lambda: command(*transfer_arguments(kafka, f"{made.stem}_*", outdir, "-partitionby", "time")))
    total = topics * count
    columns = ["objectId", "candid", "magpsf"]
    readers: dict[str, Callable[[], int]] = {
        "fink_dask": lambda: fink_dask.open_dataset(outdir).to_table(columns=[*columns, "topic"]).num_rows,
        "pandas": lambda: len(pd.read_parquet(outdir, columns=columns)),
        "Dask": lambda: len(dd.read_parquet(str(outdir), columns=columns).compute(scheduler="threads")),
        "pyarrow": lambda: ds.dataset(outdir, partitioning="hive").to_table(columns=columns).num_rows,
        "polars": lambda: (
            pl.scan_parquet(outdir, missing_columns="insert", extra_columns="ignore").select(columns).collect().height
        ),
        "DuckDB": lambda: len(
            duckdb.sql(f"SELECT objectId, candid, magpsf FROM read_parquet('{outdir}/**/*.parquet')").fetchall()
        ),
    }
    for reader, read in readers.items():
        assert timed(reader, read) == total, reader
    whole = fink_dask.open_dataset(outdir)
    assert {f"more_{number}" for number in range(1, SCHEMAS)} | {"topic"} <= set(whole.schema.names)
    # All topics hold the same alerts.
    assert timed("unique", lambda: fink_dask.open_dataset(outdir, unique=True).count_rows()) == count
    timed("compact", lambda: command("compact", outdir, compacted))
    timed("verify", lambda: command("verify", compacted))
    assert fink_dask.open_dataset(compacted).count_rows() == total
    timed("report", lambda: command("report", outdir, "-o", tmp_path / "report.html"))
    assert f'id="alerts"><b>{total:,}</b>' in (tmp_path / "report.html").read_text()
    timed("export to Parquet", lambda: command("export", outdir, tmp_path / "all.parquet"))
    assert pq.read_metadata(tmp_path / "all.parquet").num_rows == total
    name = whole.head(1, columns=["objectId"])["objectId"][0].as_py()
    assert timed("light curve", lambda: fink_dask.light_curve(outdir, name)).num_rows
    one_more = made.add()
    timed("one more topic", lambda: command(*transfer_arguments(kafka, one_more, outdir)))
    assert fink_dask.open_dataset(outdir).count_rows() == total + count
    with capsys.disabled():
        print("", *(f"{what:>20} {seconds:7.2f} s" for what, seconds in took.items()), sep="\n")
