"""What `fink-dask read` prints is run as it stands: for each kind of alerts, and however it is partitioned."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import fink_dask
from fink_dask.report.reading import READERS
from tests.alerts.made_up import AlertKind
from tests.harness.cli import Shared, environment, run_cli, transfer_arguments
from tests.harness.object_store import ObjectStore
from tests.harness.oracle import Oracle, fill_topic
from tests.harness.topics import create_topic, name_topic, remove_topics
from tests.harness.versions import V1, V2, Livestream

pytestmark = [pytest.mark.readers, pytest.mark.usefixtures("shared_dask")]

#: Readers that need no light curves.
FLAT = tuple(name for name in READERS if name != "nested-pandas")
#: Runs each program with names of its own, in one process as libraries take long to load, and says what it found: all
#: the tables that it has made, as pandas', and whatever it has printed.
RUNNER = """
import contextlib, io, json, sys

import pandas as pd
import pyarrow as pa

pd.set_option("display.max_rows", None)


def rows(found):
    if isinstance(found, pa.Table):
        return found.num_rows
    is_frame = isinstance(found, pd.DataFrame) or type(found).__module__.startswith(("polars", "dask"))
    return len(found) if is_frame else None


said = {}
for name, program in json.load(sys.stdin).items():
    known, printed = {"__name__": "__main__"}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(program, name, "exec"), known)
    tables = [known[each] for each in ("frame", "table", "alerts") if each in known]
    said[name] = [printed.getvalue(), next((n for n in map(rows, tables) if n is not None), None)]
json.dump(said, sys.stdout)
"""


@dataclass(frozen=True)
class Topic:
    """A topic, and what its producer knows."""

    name: str
    kind: AlertKind
    oracle: Oracle

    @property
    def alerts(self) -> list[dict[str, Any]]:
        return [self.oracle.alert(place) for place in self.oracle.values]


class Topics(dict[AlertKind, Topic]):
    """The topic of each kind, made when it is first asked for."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._bootstrap_servers = bootstrap_servers

    def __missing__(self, kind: AlertKind) -> Topic:
        name = name_topic(kind)
        self[kind] = Topic(name, kind, fill_topic(self._bootstrap_servers, name, kind, 60, partitions=2))
        return self[kind]


@pytest.fixture(scope="module")
def topics(kafka: Any) -> Iterator[Topics]:
    made = Topics(kafka.bootstrap_servers)
    yield made
    remove_topics(kafka.bootstrap_servers, *(topic.name for topic in made.values()))


def transferred(kafka: Any, topic: Topic, place: Path | str, *options: str) -> None:
    result = run_cli(*transfer_arguments(kafka, topic.name, place, *options))
    assert result.returncode == 0, result.stderr


def programs(place: str, directory: Path, readers: tuple[str, ...] = READERS) -> dict[str, str]:
    found = {}
    for name in readers:
        result = run_cli("read", place, "--with", name, cwd=directory)
        assert result.returncode == 0, result.stderr
        found[name] = result.stdout
    return found


def run(programs: dict[str, str], directory: Path, env: dict[str, str] | None = None) -> dict[str, tuple[str, int]]:
    ended = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps(programs),
        capture_output=True,
        text=True,
        cwd=directory,
        env=environment({"POLARS_FMT_MAX_ROWS": "-1", **(env or {})}),
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return {name: (words, rows) for name, (words, rows) in json.loads(ended.stdout).items()}


def check(found: dict[str, tuple[str, int]], counts: Counter[Any], alerts: int) -> None:
    """Compare what each program has read with what was published: DuckDB alone keeps no table."""
    for name, (words, rows) in found.items():
        if name == "nested-pandas":
            assert "lightcurve" in words
            continue
        assert rows == alerts or name == "DuckDB", name
        numbers = set(words.replace("|", " ").replace("│", " ").replace(",", " ").split())
        assert {str(count) for count in counts.values()} <= numbers or name in {"fink_dask", "pyarrow"}, name


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=pytest.mark.sample) if kind is AlertKind.LSST_FULL else kind for kind in AlertKind],
    ids=lambda kind: kind.value,
)
def test_the_lines_for_each_reader_read_the_dataset_that_they_were_printed_for(
    kind: AlertKind, topics: Topics, kafka: Any, tmp_path: Path
) -> None:
    topic = topics[kind]
    transferred(kafka, topic, tmp_path / "alerts", "-partitionby", "time")
    found = run(programs("alerts", tmp_path), tmp_path)
    assert found.keys() == set(READERS)
    check(found, Counter(alert["timestamp"][:10] for alert in topic.alerts), 60)
    # An identifier with all its digits, and the light curve of one object.
    ids = {str(alert.get("diaSourceId") or alert.get("candid")) for alert in topic.alerts}
    assert any(number in found["fink_dask"][0] for number in ids)


def test_the_lines_for_all_readers_together_are_one_program(topics: Topics, kafka: Any, tmp_path: Path) -> None:
    transferred(kafka, topics[AlertKind.LSST_FULL], tmp_path / "alerts", "-partitionby", "time")
    everything = run_cli("read", "alerts", cwd=tmp_path).stdout
    assert [name for name in READERS if f"# {name}" in everything] == list(READERS)
    assert run({"all": everything}, tmp_path)["all"][0].count("\n") > 50


@pytest.mark.parametrize("partitionby", ["finkclass", "is_transient,finkclass", "none", "fid"])
def test_the_lines_are_true_for_partition_columns_that_may_be_null_and_for_none(
    partitionby: str, topics: Topics, kafka: Any, tmp_path: Path
) -> None:
    topic = topics[AlertKind.ZTF_LIGHT]
    transferred(kafka, topic, tmp_path / "alerts", "-partitionby", partitionby)
    keys = ["finkclass"] if partitionby == "none" else partitionby.split(",")
    check(
        run(programs("alerts", tmp_path), tmp_path),
        Counter(tuple(alert[key] for key in keys) for alert in topic.alerts), 60,
    )  # fmt: skip


def test_the_lines_name_only_columns_that_were_kept_and_places_with_odd_names(
    topics: Topics, kafka: Any, tmp_path: Path
) -> None:
    topic = topics[AlertKind.ZTF_FULL]
    place = 'night [1] "bright" é'
    transferred(kafka, topic, tmp_path / place, "--columns", "candidate.magpsf,publisher")
    found = run(programs(place, tmp_path, FLAT), tmp_path)
    check(found, Counter(), 60)
    assert "magpsf" in found["polars"][0]
    refused = run_cli("read", place, "--with", "nested-pandas", cwd=tmp_path)
    assert refused.returncode == 2
    assert "light curves" in refused.stderr


def test_files_of_several_schemas_are_read_by_lines_that_know_the_columns_of_all(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, 2)
    stream = Livestream(kafka.bootstrap_servers, topic_name)
    stream.add([V1] * 20 + [V2] * 20, partitions=2)
    result = run_cli(*transfer_arguments(kafka, topic_name, tmp_path / "alerts"))
    assert result.returncode == 0, result.stderr
    stream.add([V2] * 20)
    result = run_cli(*transfer_arguments(kafka, topic_name, tmp_path / "alerts"))
    assert result.returncode == 0, result.stderr
    check(run(programs("alerts", tmp_path, FLAT), tmp_path), Counter(), len(stream.sent))


def test_the_datasets_of_several_topics_are_read_as_one(
    topics: Topics, kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 20, partitions=2)
    one = topics[AlertKind.ZTF_LIGHT]
    transferred(kafka, one, tmp_path / "season", "-topic", topic_name, "-partitionby", "time")
    check(run(programs("season", tmp_path), tmp_path), Counter({one.name: 60, topic_name: 20}), 80)


def test_avro_files_have_the_lines_that_read_those(topics: Topics, kafka: Any, tmp_path: Path) -> None:
    topic = topics[AlertKind.LSST_LIGHT]
    transferred(kafka, topic, tmp_path / "packets", "-outformat", "avro")
    words, _ = run({"avro": run_cli("read", "packets", cwd=tmp_path).stdout}, tmp_path)["avro"]
    assert "diaSourceId" in words


def test_an_object_store_is_read_by_the_lines_for_it(
    topics: Topics,
    kafka: Any,
    object_store: ObjectStore,
    store_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Shared, "settings", {})  # the workers that others share have no credentials
    topic = topics[AlertKind.ZTF_FULL]
    transferred(kafka, topic, store_url, "-partitionby", "finkclass")
    found = run(programs(store_url, tmp_path), tmp_path, object_store.environment)
    check(found, Counter(alert["finkclass"] for alert in topic.alerts), 60)


def test_an_unknown_reader_and_a_dataset_without_alerts_are_refused_in_a_line(
    topics: Topics, kafka: Any, tmp_path: Path
) -> None:
    topic = topics[AlertKind.ZTF_LIGHT]
    transferred(kafka, topic, tmp_path / "none", "--where", "magpsf < 0")
    for words in (["read", "none"], ["read", "none", "--with", "excel"]):
        refused = run_cli(*words, cwd=tmp_path)
        assert refused.returncode in {1, 2}
        assert len(refused.stderr.strip().splitlines()) == 1
    assert fink_dask.open_dataset(tmp_path / "none").count_rows() == 0
