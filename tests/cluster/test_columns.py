"""A dataset of a few columns: nothing else is in it, its values are right, and it is the same dataset later on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from tests.alerts.made_up import AlertKind
from tests.harness.cli import run_cli, transfer_arguments
from tests.harness.oracle import Oracle, add_alerts, assert_exactly_once, fill_topic, same, shared_schema
from tests.harness.producer import produce

pytestmark = [pytest.mark.commands, pytest.mark.usefixtures("shared_dask")]

#: Neither the time nor the filter that the directories come from.
COLUMNS = "candidate.magpsf,candid,candidate.isdiffpos"
PARTITIONBY = ("-partitionby", "time,candidate.fid")
#: The same ones as the ledger has them.
SORTED = "candid,candidate.isdiffpos,candidate.magpsf"
CUTOUTS = {"cutoutScience", "cutoutTemplate", "cutoutDifference"}


@dataclass
class Few:
    """A topic of which a part is bad, what its producer knows, and how to transfer it."""

    kafka: Any
    topic: str
    oracle: Oracle
    outdir: Path
    scheduler: str

    def run(self, outdir: Path, *more: str) -> Any:
        arguments = transfer_arguments(self.kafka, self.topic, outdir, *PARTITIONBY, "--scheduler", self.scheduler)
        return run_cli(*arguments, *more)


@pytest.fixture(scope="module")
def few(kafka: Any, topic: str, dask_scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> Few:
    """Transfer a few columns of whole alerts, some of which are damaged where nobody asks for them."""
    oracle = fill_topic(kafka.bootstrap_servers, topic, AlertKind.ZTF_FULL, 100, partitions=2)
    good = list(oracle.values.values())
    # The cutouts are at the end: these records are sound as far as any column of COLUMNS goes.
    produce(kafka.bootstrap_servers, topic, [good[0][:-1], good[1] + b"x", None, b"\xff" * 9, good[2][:-5000]])
    made = Few(kafka, topic, oracle, tmp_path_factory.mktemp("few") / "out", dask_scheduler)
    result = made.run(made.outdir, "--columns", COLUMNS)
    assert result.returncode == 3, result.stderr
    return made


def quarantined(outdir: Path) -> dict[tuple[int, int], str]:
    """Find the reason of each record that is no row."""
    rows = [row for path in Path(f"{outdir}.fink", "quarantine").iterdir() for row in pq.read_table(path).to_pylist()]
    return {(row["kafka_partition"], row["kafka_offset"]): row["reason"] for row in rows}


@pytest.mark.sample
def test_the_files_hold_the_columns_that_were_asked_for_and_nothing_else(few: Few) -> None:
    schemas = {str(shared_schema(path)) for path in few.outdir.rglob("*.parquet")}
    (path, *_) = few.outdir.rglob("*.parquet")
    schema = pq.read_schema(path)
    assert len(schemas) == 1
    assert schema.names == ["candid", "candidate", "kafka_partition", "kafka_offset"]
    assert {field.name for field in schema.field("candidate").type} == {"magpsf", "isdiffpos"}
    assert not CUTOUTS & {column.split(".")[0] for column in pq.read_metadata(path).schema.names}


def test_each_value_is_what_was_published_and_in_the_directory_of_its_alert(few: Few) -> None:
    assert_exactly_once(few.outdir, few.oracle.values)
    table = ds.dataset(few.outdir, partitioning="hive").to_table()
    for row in table.to_pylist():
        alert = few.oracle.alert((row["kafka_partition"], row["kafka_offset"]))
        assert row["candid"] == alert["candid"]
        assert row["candidate_fid"] == alert["candidate"]["fid"]
        assert row["day"] == 24 + int(alert["candidate"]["jd"] + 0.5) - 2461096
        assert same(row["candidate"], {name: alert["candidate"][name] for name in ("magpsf", "isdiffpos")})


def test_which_records_are_quarantined_does_not_depend_on_the_columns(few: Few, tmp_path: Path) -> None:
    result = few.run(tmp_path / "all")
    assert result.returncode == 3, result.stderr
    assert quarantined(tmp_path / "all") == quarantined(few.outdir)
    assert len(quarantined(few.outdir)) == 5
    (path, *_) = (tmp_path / "all").rglob("*.parquet")
    assert set(pq.read_schema(path).names) >= CUTOUTS


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ("candid,nothing", "--columns: "),
        ("objctId,candid", "objectId"),
        ("candidate.nothing", "'candidate.nothing'"),
        ("candidate.magpsf.x", "'candidate.magpsf.x'"),
        ("prv_candidates.jd", "prv_candidates.jd"),
        ("kafka_offset", "'kafka_offset'"),
        ("candid,,jd", "commas"),
        ("", "commas"),
    ],
)
def test_a_column_that_there_is_not_is_one_line_and_leaves_nothing(
    few: Few, tmp_path: Path, columns: str, words: str
) -> None:
    result = few.run(tmp_path / "out", f"--columns={columns}")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert words in line
    assert not list(tmp_path.iterdir())


def test_a_dataset_of_some_columns_is_not_continued_with_others(few: Few) -> None:
    result = few.run(few.outdir, "--columns", "candid")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert f"--columns {SORTED}, not candid" in line


@pytest.mark.parametrize("given", [("-columns", "candid,jd,candid"), ()], ids=["given", "not given"])
def test_a_dataset_of_all_columns_is_not_continued_with_some_and_one_of_some_goes_on(
    few: Few, topic_name: str, tmp_path: Path, given: tuple[str, ...]
) -> None:
    oracle = fill_topic(few.kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 50, partitions=1)
    light = Few(few.kafka, topic_name, oracle, tmp_path / "out", few.scheduler)

    def run(outdir: Path, *columns: str) -> Any:
        arguments = transfer_arguments(light.kafka, topic_name, outdir, "--scheduler", light.scheduler, *columns)
        return run_cli(*arguments)

    assert run(tmp_path / "all").returncode == 0
    refused = run(tmp_path / "all", "--columns", "candid")
    assert refused.returncode == 2
    assert "--columns all, not candid" in refused.stderr
    assert run(tmp_path / "some", "--columns", "jd,candid").returncode == 0
    add_alerts(light.kafka.bootstrap_servers, topic_name, oracle, AlertKind.ZTF_LIGHT, 30, seed=7, first_id=900)
    again = run(tmp_path / "some", *given)
    assert again.returncode == 0, again.stderr
    assert_exactly_once(tmp_path / "some", oracle.values)
    assert {str(pq.read_schema(path).remove_metadata()) for path in (tmp_path / "some").rglob("*.parquet")} == {
        "jd: double\ncandid: int64\nkafka_partition: int32 not null\nkafka_offset: int64 not null"
    }
