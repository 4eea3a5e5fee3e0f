"""Avro files hold each record as it was in Kafka, exactly once, and can be proved, repaired and gone on with."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest

from fink_dask.avro.container import read_header, read_records
from fink_dask.avro.schema import AvroSchema, parse_schema
from fink_dask.dataset.formats import format_of
from fink_dask.ledger.ledger import Ledger
from tests.alerts.made_up import AlertKind
from tests.harness.cli import remarks, run_cli, transfer_arguments
from tests.harness.oracle import Oracle, add_alerts, fill_topic
from tests.harness.producer import produce
from tests.harness.running import Running
from tests.harness.topics import create_topic
from tests.harness.versions import V1, V2, Livestream

pytestmark = [pytest.mark.commands, pytest.mark.usefixtures("shared_dask")]

COUNT = 1500


def _schema(oracle: Oracle) -> AvroSchema:
    return parse_schema(json.dumps(oracle.schema))


def _assert_as_in_kafka(outdir: Path, oracle: Oracle) -> None:
    """Hold every record of every file against what was published, byte by byte, and read them with fastavro."""
    found: dict[tuple[int, int], bytes] = {}
    for path in outdir.rglob("*.avro"):
        partitions, offsets = format_of(path).read_places(path)
        records = list(read_records(path, _schema(oracle)))
        assert len(records) == len(offsets)
        for *place, record in zip(partitions.tolist(), offsets.tolist(), records, strict=True):
            assert (place[0], place[1]) not in found
            found[place[0], place[1]] = record
        with path.open("rb") as file:
            assert sum(1 for _ in fastavro.reader(file)) == len(records)
    assert found == oracle.values


def _transfer(kafka: Any, topic: str, outdir: Path, *more: str, cwd: Path | None = None) -> Any:
    return run_cli(*transfer_arguments(kafka, topic, outdir, "-outformat", "avro", *more), cwd=cwd)


@pytest.fixture(scope="module")
def oracle(kafka: Any, topic: str) -> Oracle:
    return fill_topic(kafka.bootstrap_servers, topic, AlertKind.ZTF_LIGHT, COUNT, partitions=3)


@pytest.mark.parametrize("partitionby", ["time", "finkclass,time", "none"])
def test_every_record_is_there_once_as_it_was(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path, partitionby: str
) -> None:
    outdir = tmp_path / "alerts"
    result = _transfer(kafka, topic, outdir, "-partitionby", partitionby, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["alerts"] == COUNT
    _assert_as_in_kafka(outdir, oracle)
    verified = run_cli("verify", str(outdir), "--sample", "40", "--bootstrap-servers", kafka.bootstrap_servers)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "40 records read again" in verified.stdout
    assert "nothing new" in _transfer(kafka, topic, outdir, "-partitionby", partitionby).stderr


def test_records_lie_in_the_directories_of_their_keys(kafka: Any, topic: str, oracle: Oracle, tmp_path: Path) -> None:
    assert _transfer(kafka, topic, tmp_path / "avro", "-partitionby", "finkclass").returncode == 0
    result = run_cli(*transfer_arguments(kafka, topic, tmp_path / "parquet", "-partitionby", "finkclass"))
    assert result.returncode == 0
    avro, parquet = (
        {
            (path.parent.name, partition, offset)
            for path in outdir.rglob("part-*")
            for partition, offset in zip(*map(np.ndarray.tolist, format_of(path).read_places(path)), strict=True)
        }
        for outdir in (tmp_path / "avro", tmp_path / "parquet")
    )
    assert avro == parquet


def test_a_condition_keeps_the_records_that_it_is_true_of(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path
) -> None:
    outdir = tmp_path / "alerts"
    result = _transfer(kafka, topic, outdir, "-partitionby", "time", "--where", "magpsf < 18", "--json")
    assert result.returncode == 0, result.stderr
    kept = {place: value for place, value in oracle.values.items() if oracle.alert(place)["magpsf"] < 18}
    assert 0 < json.loads(result.stdout)["alerts"] == len(kept) < COUNT
    _assert_as_in_kafka(outdir, Oracle(oracle.schema, kept))
    verified = run_cli("verify", str(outdir), "--sample", "100", "--bootstrap-servers", kafka.bootstrap_servers)
    assert verified.returncode == 0, verified.stdout + verified.stderr


@pytest.mark.kills
def test_after_a_kill_the_same_command_goes_on(kafka: Any, topic: str, oracle: Oracle, tmp_path: Path) -> None:
    running = Running(kafka, topic, tmp_path / "alerts", "-outformat", "avro")
    running.wait_until_committed(1)
    running.kill()
    result = _transfer(kafka, topic, tmp_path / "alerts", "-partitionby", "time")
    assert result.returncode == 0, result.stderr
    _assert_as_in_kafka(tmp_path / "alerts", oracle)


def test_what_was_damaged_is_told_and_repaired(kafka: Any, topic: str, oracle: Oracle, tmp_path: Path) -> None:
    outdir = tmp_path / "alerts"
    assert _transfer(kafka, topic, outdir, "-partitionby", "time").returncode == 0
    files = sorted(outdir.rglob("*.avro"))
    source = random.Random(3)
    content = bytearray(files[0].read_bytes())
    content[source.randrange(len(content))] ^= 1
    files[0].write_bytes(content)
    files[1].unlink()
    os.truncate(files[2], 5000)
    verified = run_cli("verify", str(outdir))
    assert verified.returncode == 1
    assert "Traceback" not in verified.stderr
    assert all(path.name in verified.stdout for path in files[:3])
    repaired = run_cli("repair", str(outdir), "--bootstrap-servers", kafka.bootstrap_servers)
    assert repaired.returncode == 0, repaired.stdout + repaired.stderr
    _assert_as_in_kafka(outdir, oracle)
    assert run_cli("verify", str(outdir)).returncode == 0


def test_a_range_without_its_marker_is_rebuilt_from_what_its_files_say(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path
) -> None:
    outdir = tmp_path / "alerts"
    assert _transfer(kafka, topic, outdir).returncode == 0
    marker = min(Ledger(outdir).markers_path.iterdir())
    marker.write_text("{}")
    assert run_cli("verify", str(outdir)).returncode == 1
    assert run_cli("repair", str(outdir), "--bootstrap-servers", kafka.bootstrap_servers).returncode == 0
    _assert_as_in_kafka(outdir, oracle)


def test_what_can_not_be_decoded_is_quarantined_and_what_comes_later_is_added(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.LSST_FULL, 20, partitions=1)
    produce(kafka.bootstrap_servers, topic_name, [b"no alert"])
    outdir = tmp_path / "alerts"
    result = _transfer(kafka, topic_name, outdir, "-partitionby", "time", "--survey", "lsst")
    assert result.returncode == 3, result.stderr
    _assert_as_in_kafka(outdir, oracle)
    add_alerts(kafka.bootstrap_servers, topic_name, oracle, AlertKind.LSST_FULL, 10, seed=2)
    result = _transfer(kafka, topic_name, outdir, "-partitionby", "time", "--survey", "lsst")
    assert result.returncode == 3, result.stderr
    _assert_as_in_kafka(outdir, oracle)
    assert run_cli("verify", str(outdir)).returncode == 3


@pytest.mark.commands
def test_what_needs_parquet_says_so(kafka: Any, topic: str, oracle: Oracle, tmp_path: Path) -> None:
    outdir = tmp_path / "alerts"
    assert _transfer(kafka, topic, outdir, "--limit", "50").returncode == 0
    for command in (
        ["compact", str(outdir), str(tmp_path / "compacted")],
        ["export-hats", str(outdir), str(tmp_path / "catalog")],
    ):
        refused = run_cli(*command)
        assert refused.returncode == 1
        (line,) = remarks(refused.stderr)
        assert "needs Parquet" in line
    other = run_cli(*transfer_arguments(kafka, topic, outdir, "--outformat", "parquet"))
    assert other.returncode == 2
    assert "--outformat avro" in other.stderr
    columns = _transfer(kafka, topic, tmp_path / "more", "--columns", "objectId")
    assert columns.returncode == 2
    assert "--outformat avro" in columns.stderr
    said, records = read_header(next(outdir.rglob("*.avro")))
    assert (said["fink_dask.topic"], said["avro.codec"]) == (topic, "null")
    assert records > 0


def test_several_schemas_in_the_keys_are_refused(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, 1)
    Livestream(kafka.bootstrap_servers, topic_name).add([V1, V2] * 100)
    result = _transfer(kafka, topic_name, tmp_path / "alerts")
    assert result.returncode == 1
    assert "2 schemas" in result.stderr
    assert "Traceback" not in result.stderr
    dumped = _transfer(kafka, topic_name, tmp_path / "alerts", "--dump-schemas", cwd=tmp_path)
    assert dumped.returncode == 1
    assert "2 schemas" in dumped.stderr
    schema = tmp_path / f"avro_schema_{topic_name}_2.json"
    chosen = _transfer(kafka, topic_name, tmp_path / "alerts", "--schema", str(schema), "--json")
    assert chosen.returncode == 3, chosen.stderr
    summary = json.loads(chosen.stdout)
    assert (summary["alerts"], summary["quarantined"]) == (100, 100)


def test_records_of_a_schema_that_comes_to_light_in_mid_range_are_quarantined(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, 1)
    stream = Livestream(kafka.bootstrap_servers, topic_name)
    stream.add([V1] * 200 + [V2] * 20 + [V1] * 200)
    result = _transfer(kafka, topic_name, tmp_path / "alerts", "--json")
    assert result.returncode == 3, result.stderr
    summary = json.loads(result.stdout)
    assert (summary["alerts"], summary["quarantined"]) == (400, 20)
    assert run_cli("verify", str(tmp_path / "alerts")).returncode == 3
    assert _transfer(kafka, topic_name, tmp_path / "alerts").returncode == 3
    stream.add([V1] * 50 + [V2] * 10)  # where a sample sees it
    more = _transfer(kafka, topic_name, tmp_path / "alerts", "--json")
    assert more.returncode == 3, more.stderr
    assert "quarantine" in more.stderr
    summary = json.loads(more.stdout)
    assert (summary["alerts"], summary["quarantined"]) == (450, 30)
