"""Several topics in a directory are read as one dataset, with every value of each."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest

import fink_dask
from fink_dask.errors import LedgerError
from tests.harness.cli import run_cli, transfer_arguments
from tests.harness.topics import create_topic, delete_topic
from tests.harness.versions import OTHER, V1, V2, V3, Livestream, Schema, assert_rows, record

pytestmark = pytest.mark.usefixtures("shared_dask")


@dataclass(frozen=True)
class Season:
    """Topics, and the directory that they were transferred to."""

    outdir: Path
    streams: dict[str, Livestream]


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
        (OTHER, "do not fit"),
        (
            record("alert", objectId="string", topic="string", candidate=record("candidate", jd="double")),
            "a column topic",
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


def test_columns_that_only_some_topics_were_asked_for_are_null_in_the_others(topics: Topics, tmp_path: Path) -> None:
    topics.add(V1)
    topics.transfer(tmp_path / "season", "--columns", "objectId,candidate.jd")
    second = topics.add(V2)
    done = run_cli(*transfer_arguments(topics._kafka, second, tmp_path / "season" / second))
    assert done.returncode == 0, done.stderr
    table = fink_dask.open_dataset(tmp_path / "season").to_table()
    rows = table.filter(pc.equal(table["topic"], second))
    assert_rows(rows.drop_columns(["topic"]), topics.streams[second], topics.streams[second].sent)
    narrow = table.filter(pc.not_equal(table["topic"], second)).to_pylist()
    assert [row["candid"] for row in narrow] == [None] * 8
    assert all(row["candidate"]["jd"] and row["candidate"]["drb"] is None for row in narrow)
