"""A topic on a real Kafka becomes a dataset: every alert once, every value equal, in every reader."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from tests.alerts.made_up import AlertKind
from tests.harness.cli import run_cli, transfer_arguments
from tests.harness.oracle import (
    Oracle,
    assert_exactly_once,
    assert_values_equal,
    fill_topic,
    places,
    shared_schema,
)
from tests.harness.topics import remove_topics

REPLACED = ("year", "month", "day")


@dataclass(frozen=True)
class Case:
    """A kind of topic, and the field that holds its ids."""

    kind: AlertKind
    topic: str
    count: int
    id_column: str
    every: int


CASES = [
    Case(AlertKind.ZTF_LIGHT, "ftransfer_ztf_2026-11-01_6000", 6_000, "candid", 7),
    Case(AlertKind.ZTF_FULL, "ftransfer_ztf_2026-11-01_1240", 1_240, "candid", 1),
    Case(AlertKind.LSST_FULL, "ftransfer_lsst_2026-11-01_350", 350, "diaSourceId", 1),
]


@dataclass(frozen=True)
class Transferred:
    """A dataset and what it should hold."""

    case: Case
    outdir: Path
    oracle: Oracle
    summary: dict[str, Any]
    seen_while_running: list[int]


@pytest.fixture(
    scope="module",
    params=[CASES[0], *(pytest.param(case, marks=pytest.mark.commands) for case in CASES[1:])],
    ids=[case.kind.value for case in CASES],
)
def transferred(request: pytest.FixtureRequest, kafka: Any, tmp_path_factory: pytest.TempPathFactory) -> Transferred:
    """Transfer a topic by the command line, and read the directory all the while."""
    case: Case = replace(request.param, topic=f"{request.param.topic}_{uuid.uuid4().hex[:8]}")
    oracle = fill_topic(kafka.bootstrap_servers, case.topic, case.kind, case.count)
    outdir = tmp_path_factory.mktemp("out") / "alerts"
    arguments = transfer_arguments(kafka, case.topic, outdir, "-partitionby", "time", "--json")
    process = subprocess.Popen(
        [sys.executable, "-m", "fink_dask", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    seen: list[int] = []
    reader = threading.Thread(target=_read_until_done, args=(process, outdir, oracle, seen))
    reader.start()
    out, err = process.communicate(timeout=300)
    reader.join()
    assert process.returncode == 0, err
    yield Transferred(case, outdir, oracle, json.loads(out), seen)
    remove_topics(kafka.bootstrap_servers, case.topic)


def _read_until_done(process: subprocess.Popen[str], outdir: Path, oracle: Oracle, seen: list[int]) -> None:
    while process.poll() is None:
        found = places(outdir) if outdir.exists() else {}
        if any(count != 1 or place not in oracle.values for place, count in found.items()):
            seen.append(-1)
            return
        seen.append(sum(found.values()))


def test_every_alert_is_there_exactly_once(transferred: Transferred) -> None:
    assert_exactly_once(transferred.outdir, transferred.oracle.values)
    assert transferred.summary["alerts"] == transferred.summary["run_alerts"] == transferred.case.count
    assert transferred.summary["raw_bytes"] == sum(map(len, transferred.oracle.values.values()))


def test_a_reader_never_meets_a_torn_or_uncommitted_file_while_the_transfer_runs(transferred: Transferred) -> None:
    seen = transferred.seen_while_running
    assert -1 not in seen
    assert seen == sorted(seen)
    assert seen, "nobody looked while it ran"


def test_every_value_is_what_fastavro_reads(transferred: Transferred) -> None:
    table = ds.dataset(transferred.outdir, partitioning="hive").to_table()
    assert_values_equal(table, transferred.oracle, REPLACED, transferred.case.every)


def test_64_bit_ids_survive_pyarrow_pandas_and_polars(transferred: Transferred) -> None:
    column = transferred.case.id_column
    expected = sorted(transferred.oracle.alert(place)[column] for place in transferred.oracle.values)
    assert min(expected) > 2**53
    arrow = ds.dataset(transferred.outdir, partitioning="hive").to_table(columns=[column])[column]
    pandas = pd.read_parquet(transferred.outdir, dtype_backend="pyarrow")
    polars = pl.read_parquet(transferred.outdir / "**/*.parquet", hive_partitioning=True)
    assert sorted(arrow.to_pylist()) == expected
    assert sorted(pandas[column].tolist()) == expected
    assert sorted(polars[column].to_list()) == expected
    assert len(pandas) == polars.height == transferred.case.count


def test_pandas_and_polars_read_the_same_nested_values(transferred: Transferred) -> None:
    pandas = pd.read_parquet(transferred.outdir, dtype_backend="pyarrow")
    assert_values_equal(pa.Table.from_pandas(pandas), transferred.oracle, REPLACED, transferred.case.every * 10)
    polars = pl.read_parquet(transferred.outdir / "**/*.parquet", hive_partitioning=True)
    first = polars.row(0, named=True)
    place = (first["kafka_partition"], first["kafka_offset"])
    history = {"prv_candidates", "prvDiaSources"} & set(polars.columns)
    for name in history:
        assert len(first[name] or []) == len(transferred.oracle.alert(place)[name] or [])


def test_all_files_have_one_identical_schema(transferred: Transferred) -> None:
    schemas = [shared_schema(path) for path in transferred.outdir.rglob("*.parquet")]
    assert len(schemas) > 10
    assert all(schema.equals(schemas[0], check_metadata=True) for schema in schemas)
    assert not {"year", "month", "day"} & set(schemas[0].names)


def test_directories_are_the_utc_days_with_leading_zeros(transferred: Transferred) -> None:
    days = {str(path.parent.relative_to(transferred.outdir)) for path in transferred.outdir.rglob("*.parquet")}
    assert days == {"year=2026/month=02/day=24", "year=2026/month=02/day=25", "year=2026/month=02/day=26"}


def test_verify_and_status_agree_with_the_summary(transferred: Transferred) -> None:
    for command in ("verify", "status"):
        result = run_cli(command, str(transferred.outdir), "--json")
        assert result.returncode == 0
        found = json.loads(result.stdout)
        for name in ("topic", "state", "alerts", "filtered", "quarantined", "lost", "raw_bytes", "written_bytes"):
            assert found[name] == transferred.summary[name]


def test_a_second_run_changes_nothing_and_says_so(transferred: Transferred, kafka: Any) -> None:
    before = {path: path.stat().st_mtime_ns for path in transferred.outdir.rglob("*")}
    result = run_cli(*transfer_arguments(kafka, transferred.case.topic, transferred.outdir, "-partitionby", "time"))
    assert result.returncode == 0
    assert "nothing new" in result.stderr
    assert {path: path.stat().st_mtime_ns for path in transferred.outdir.rglob("*")} == before
