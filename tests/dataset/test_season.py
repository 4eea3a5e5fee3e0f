"""Several topics in a directory are read as one dataset, with every value of each."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import fink_dask
from fink_dask.errors import LedgerError
from fink_dask.ledger.ledger import Ledger
from tests.harness.cli import run_cli, transfer_arguments
from tests.harness.topics import create_topic, delete_topic
from tests.harness.versions import OTHER, V1, V2, V3, Livestream, Schema, assert_rows, decode, record

pytestmark = pytest.mark.usefixtures("shared_dask")


#: By which the first of several is told.
PLACE = ("topic", "kafka_partition", "kafka_offset")


@dataclass(frozen=True)
class Season:
    """Topics, and the directory that they were transferred to."""

    outdir: Path
    streams: dict[str, Livestream]

    def candids(self) -> list[int]:
        """List the identifiers of all alerts, those that several topics hold several times."""
        sent = (each for stream in self.streams.values() for each in stream.sent.values())
        return sorted(decode(schema, value)["candid"] for schema, value in sent)


class Topics:
    """Makes topics, transfers them into a directory, and deletes them."""

    def __init__(self, kafka: Any) -> None:
        self._kafka = kafka
        self.stem = f"ftransfer_ztf_2026-11-{uuid.uuid4().int % 10**8:08d}"
        self.streams: dict[str, Livestream] = {}

    def add(self, *schemas: Schema) -> str:
        name = f"{self.stem}_{len(self.streams)}"
        create_topic(self._kafka.bootstrap_servers, name, 2)
        self.streams[name] = stream = Livestream(self._kafka.bootstrap_servers, name)
        stream.add([schema for schema in schemas for _ in range(8)], partitions=2)
        return name

    def transfer(self, outdir: Path, *options: str) -> Season:
        done = run_cli(*transfer_arguments(self._kafka, f"{self.stem}_*", outdir, *options))
        assert done.returncode == 0, done.stderr
        return Season(outdir, self.streams)

    def delete(self) -> None:
        for name in self.streams:
            delete_topic(self._kafka.bootstrap_servers, name, missing_ok=True)


@pytest.fixture
def topics(kafka: Any) -> Iterator[Topics]:
    made = Topics(kafka)
    yield made
    made.delete()


@pytest.fixture(scope="module")
def season(kafka: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Season]:
    """Three topics of three schemas, of which the later ones hold alerts of the earlier ones again."""
    made = Topics(kafka)
    for schemas in ((V1,), (V2, V1), (V3,)):
        made.add(*schemas)
    yield made.transfer(tmp_path_factory.mktemp("nights") / "season", "-partitionby", "time")
    made.delete()


@pytest.mark.parametrize("partitionby", ["time", "objectId"])
def test_all_alerts_of_all_topics_are_there_with_the_columns_of_all(
    topics: Topics, tmp_path: Path, partitionby: str
) -> None:
    for schemas in ((V1,), (V2, V1), (V3,)):
        topics.add(*schemas)
    season = topics.transfer(tmp_path / "season", "-partitionby", partitionby)
    alerts = fink_dask.open_dataset(season.outdir)
    table = alerts.to_table()
    assert set(table["topic"].unique().to_pylist()) == season.streams.keys()
    for topic, stream in season.streams.items():
        rows = table.filter(pc.equal(table["topic"], topic))
        directories = ["topic", *(("year", "month", "day") if partitionby == "time" else ())]
        assert_rows(rows.drop_columns(directories), stream, stream.sent)
    expected = sorted((topic, len(stream.sent)) for topic, stream in season.streams.items())
    with duckdb.connect() as connection:
        connection.register("alerts", alerts)
        found = connection.sql("SELECT topic, count(*) FROM alerts GROUP BY topic ORDER BY topic").fetchall()
    assert found == expected
    assert pl.scan_pyarrow_dataset(alerts).group_by("topic").len().sort("topic").collect().rows() == expected
    # A condition on the topic opens the files of no other.
    (first, count), *_ = expected
    read = [each.path for each in alerts.get_fragments(filter=ds.field("topic") == first)]
    assert read
    assert all(first in path for path in read)
    assert alerts.count_rows(filter=ds.field("topic") == first) == count


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (OTHER, "fit"),
        (
            record("alert", objectId="string", topic="string", candidate=record("candidate", jd="double")),
            "column topic",
        ),
    ],
)
def test_a_topic_that_does_not_go_with_the_others_is_named(
    topics: Topics, tmp_path: Path, schema: Schema, words: str
) -> None:
    topics.add(V1)
    other = topics.add(schema)
    season = topics.transfer(tmp_path / "season")
    with pytest.raises(LedgerError, match=words) as caught:
        fink_dask.open_dataset(season.outdir)
    assert other in str(caught.value)
    assert fink_dask.open_dataset(season.outdir / other).count_rows() == 8


def test_every_reader_opens_the_directory_itself(season: Season) -> None:
    # Columns that all topics have: what later schemas add is in files of theirs only.
    columns, place, expected = ["objectId", "candid", "year"], str(season.outdir), season.candids()
    hive = ds.partitioning(flavor="hive")
    found = {
        "pandas": pd.read_parquet(place, columns=columns, partitioning=hive)["candid"].tolist(),
        "Dask": dd.read_parquet(place, columns=columns).compute(scheduler="sync")["candid"].tolist(),
        "pyarrow": ds.dataset(place, partitioning="hive").to_table(columns=columns)["candid"].to_pylist(),
        "polars": pl.scan_parquet(place, extra_columns="ignore", missing_columns="insert")
        .select(columns)
        .collect()["candid"]
        .to_list(),
        "DuckDB": [
            candid
            for (candid,) in duckdb.sql(
                f"SELECT candid FROM read_parquet('{place}/**/*.parquet', union_by_name = true)"
            ).fetchall()
        ],
    }
    for reader, candids in found.items():
        assert sorted(candids) == expected, reader
    assert {path.suffix for path in season.outdir.rglob("*") if path.is_file()} == {".parquet"}


def test_an_alert_that_several_topics_hold_is_there_once_if_asked_for(season: Season, tmp_path: Path) -> None:
    every = fink_dask.open_dataset(season.outdir).to_table(columns=["candid", *PLACE]).to_pylist()
    once: dict[int, Any] = {}
    for row in sorted(every, key=lambda row: [row[name] for name in PLACE]):
        once.setdefault(row["candid"], row)
    unique = fink_dask.open_dataset(season.outdir, unique=True)
    assert len(once) < len(every)
    found = unique.to_table(columns=["candid", *PLACE]).to_pylist()
    assert sorted(found, key=lambda row: row["candid"]) == [once[candid] for candid in sorted(once)]
    assert unique.count_rows() == pl.scan_pyarrow_dataset(unique).collect().height == len(once)
    one = next(iter(season.streams))
    assert fink_dask.open_dataset(season.outdir / one, unique=True).count_rows() == len(season.streams[one].sent)
    exported = run_cli("export", str(season.outdir), str(tmp_path / "once.csv"), "--unique", "--json")
    assert json.loads(exported.stdout)["rows"] == len(once)
    for reader in ("pandas", "Dask"):
        lines = run_cli("read", str(season.outdir), "--unique", "--with", reader)
        known: dict[str, Any] = {}
        exec(lines.stdout, known)
        assert len(known["frame" if reader == "Dask" else "alerts"]) == len(once)


def test_a_season_is_compacted_topic_by_topic_proved_exported_and_shown_on_one_page(
    season: Season, tmp_path: Path
) -> None:
    compacted = tmp_path / "compacted"
    for again in (False, True):
        done = run_cli("compact", str(season.outdir), str(compacted), "--json")
        assert done.returncode == 0, done.stdout
        said = json.loads(done.stdout)
        assert [each["is_new"] for each in said["topics"]] == [not again] * 3
    assert [each["topic"] for each in said["topics"]] == sorted(season.streams)
    assert said["alerts"] == len(season.candids())
    table = fink_dask.open_dataset(compacted).to_table()
    for topic, stream in season.streams.items():
        rows = table.filter(pc.equal(table["topic"], topic))
        assert_rows(rows.drop_columns(["topic", "year", "month", "day"]), stream, stream.sent)
    assert run_cli("verify", str(compacted)).returncode == 0
    assert run_cli("status", str(compacted)).returncode == 0
    for refused, words in ((season.outdir, " own"), (season.outdir / "inside", "inside")):
        done = run_cli("compact", str(season.outdir), str(refused))
        assert done.returncode != 0
        assert words in done.stderr or words in done.stdout
    exported = run_cli("export", str(compacted), str(tmp_path / "all.parquet"))
    assert exported.returncode == 0, exported.stderr
    assert sorted(pq.read_table(tmp_path / "all.parquet")["topic"].unique().to_pylist()) == sorted(season.streams)
    done = run_cli("report", "compacted", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report.html").read_text()
    assert f'id="alerts"><b>{len(season.candids())}</b>' in page
    assert all(topic in page for topic in season.streams)


def test_a_dataset_among_others_is_no_place_for_what_is_made_of_it(season: Season) -> None:
    one = next(iter(season.streams))
    done = run_cli("compact", str(season.outdir / one), str(season.outdir / "again"))
    assert done.returncode == 2
    assert str(season.outdir / "again") in done.stderr
    assert not (season.outdir / "again").exists()


def test_columns_that_only_some_topics_were_asked_for_are_null_in_the_others(topics: Topics, tmp_path: Path) -> None:
    topics.add(V1)
    topics.transfer(tmp_path / "season", "--columns", "objectId,candidate.jd")
    second = topics.add(V2)
    done = run_cli(*transfer_arguments(topics._kafka, second, tmp_path / "season" / second))
    assert done.returncode == 0, done.stderr
    assert Ledger(tmp_path / "season" / second, is_of_season=True).exists()
    # A further one joins by the command for one topic, and is begun like the others only where these are alike.
    third = topics.add(V1)
    done = run_cli(*transfer_arguments(topics._kafka, third, tmp_path / "season", "-partitionby", "objectId", "--json"))
    assert done.returncode == 0, done.stderr
    assert [each["topic"] for each in json.loads(done.stdout)["topics"]] == [third]
    assert Ledger(tmp_path / "season" / third, is_of_season=True).begun_with().partitionby == ("objectId",)
    table = fink_dask.open_dataset(tmp_path / "season").to_table()
    rows = table.filter(pc.equal(table["topic"], second))
    assert_rows(rows.drop_columns(["topic"]), topics.streams[second], topics.streams[second].sent)
    narrow = table.filter(pc.invert(pc.is_in(table["topic"], pa.array([second, third])))).to_pylist()
    assert [row["candid"] for row in narrow] == [None] * 8
    assert all(row["candidate"]["jd"] and row["candidate"]["drb"] is None for row in narrow)
