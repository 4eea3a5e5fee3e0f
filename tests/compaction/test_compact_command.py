"""A compaction of a real dataset, as a user runs it: killed, stopped, run again; then gone on with, and checked."""

from __future__ import annotations

import json
import signal
import subprocess
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from fink_dask.ledger.ledger import Ledger
from tests.alerts.made_up import AlertKind, encoded_alerts
from tests.harness.cli import PROGRAM, environment, remarks, run_cli, transfer_arguments
from tests.harness.ledgers import hashes_of
from tests.harness.oracle import (
    Oracle,
    add_alerts,
    assert_exactly_once,
    assert_values_equal,
    make_topic,
    note,
    wait_for,
)
from tests.harness.producer import produce

pytestmark = [pytest.mark.commands, pytest.mark.usefixtures("shared_dask")]

RUNS, COUNT, TWICE = 4, 150, 40
POISON = (b"poison", b"more of it")


@pytest.fixture(scope="module")
def oracle(kafka: Any, topic: str) -> Oracle:
    return Oracle(make_topic(kafka.bootstrap_servers, topic, AlertKind.ZTF_LIGHT, 3), {})


@pytest.fixture(scope="module")
def many(kafka: Any, topic: str, oracle: Oracle, tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """Transfer a topic that grows, again and again; some alerts come twice, and some can't be decoded."""
    outdir = tmp_path_factory.mktemp("many") / "alerts"
    address = kafka.bootstrap_servers
    for run in range(RUNS):
        add_alerts(address, topic, oracle, AlertKind.ZTF_LIGHT, COUNT, first_id=run * COUNT)
        if run == 1:
            again = [*list(encoded_alerts(AlertKind.ZTF_LIGHT, TWICE)), *POISON]
            note(oracle, produce(address, topic, again), again)
        result = run_cli(*transfer_arguments(kafka, topic, outdir, "-partitionby", "time"))
        assert result.returncode == (0 if run == 0 else 3), result.stderr
    return Ledger(outdir)


def _compact(many: Ledger, target: Ledger, *more: str) -> subprocess.CompletedProcess[str]:
    return run_cli("compact", str(many.outdir), str(target.outdir), *more)


def _verify(ledger: Ledger, *more: str) -> dict[str, Any]:
    result = run_cli("verify", str(ledger.outdir), "--json", *more)
    found: dict[str, Any] = json.loads(result.stdout)
    assert (result.returncode, found["problems"]) == (3, []), result.stderr
    return found


@pytest.mark.kills
def test_a_compaction_that_is_killed_again_and_again_has_every_alert_once_and_the_old_dataset_is_as_it_was(
    kafka: Any, topic: str, many: Ledger, oracle: Oracle, tmp_path: Path
) -> None:
    target, before = Ledger(tmp_path / "few"), hashes_of(many)
    command = [*PROGRAM, "compact", str(many.outdir), str(target.outdir), "--file-size", "30kB"]
    for kills in count():
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        done = len(list(target.staging_path.glob("*/group-*.json")))

        def is_further(done: int = done, process: subprocess.Popen[bytes] = process) -> bool:
            return process.poll() is not None or len(list(target.staging_path.glob("*/group-*.json"))) > done

        wait_for(is_further, "a group that is complete")
        assert target.exists() or not target.outdir.exists(), "a reader sees all of it, or nothing"
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT if kills == 1 else signal.SIGKILL)
        _, errors = process.communicate()
        if process.returncode == 3:
            break
        assert process.returncode == (130 if kills == 1 else -signal.SIGKILL), errors
        assert kills != 1 or b"run the same command again" in errors
    assert kills > 3
    assert hashes_of(many) == before
    assert_exactly_once(target.outdir, _alerts(oracle))
    table = ds.dataset(target.outdir, partitioning="hive").to_table()
    assert_values_equal(table, oracle, ("year", "month", "day"), every=5)
    assert _verify(target)["alerts"] == _verify(many)["alerts"]
    servers = ("--bootstrap-servers", kafka.bootstrap_servers, "--against-kafka", "--sample", "300")
    assert _verify(target, *servers)["kafka"]["equal"] == 300
    result = run_cli(*transfer_arguments(kafka, topic, target.outdir, "-partitionby", "time"))
    assert "nothing new" in result.stderr


@pytest.mark.sample
def test_few_files_are_left_and_the_duplicates_are_gone(
    kafka: Any, topic: str, many: Ledger, oracle: Oracle, tmp_path: Path
) -> None:
    target = Ledger(tmp_path / "few")
    result = _compact(many, target, "--unique", "candid", "--compression", "snappy", "--json")
    found = json.loads(result.stdout)
    codecs = {pq.read_metadata(path).row_group(0).column(0).compression for path in target.outdir.rglob("*.parquet")}
    assert codecs == {"SNAPPY"}
    keys = {path.parent for path in many.outdir.rglob("*.parquet")}
    assert (result.returncode, found["files"], found["duplicates"]) == (3, len(keys), TWICE)
    assert found["files_before"] == len(list(many.outdir.rglob("*.parquet"))) > 2 * len(keys)
    table = ds.dataset(target.outdir, partitioning="hive").to_table()
    assert sorted(table["candid"].to_pylist()) == sorted(set(_candids(many)))
    found = _verify(target, "--bootstrap-servers", kafka.bootstrap_servers, "--sample", "10000")
    assert found["kafka"]["incomparable"] >= TWICE
    assert found["alerts"] + found["duplicates"] + found["quarantined"] == len(oracle.values)
    words = _compact(many, target, "--unique", "candid", "--compression", "snappy").stdout
    assert "already compacted" in words
    assert f"{TWICE} duplicates left out" in words


def test_a_compaction_that_fails_says_so_to_a_script_too(many: Ledger, tmp_path: Path) -> None:
    for source, target in ((many, many), (Ledger(tmp_path / "none"), Ledger(tmp_path / "few"))):
        result = _compact(source, target, "--json")
        found = json.loads(result.stdout)
        assert (found["command"], found["state"]) == ("compact", "failed")
        assert remarks(result.stderr) == [f"fink-dask: error: {found['error']}"]
        assert result.returncode in {1, 2}


def test_a_topic_goes_on_into_a_compacted_dataset(
    kafka: Any, topic: str, many: Ledger, oracle: Oracle, tmp_path: Path
) -> None:
    target = Ledger(tmp_path / "few")
    assert _compact(many, target).returncode == 3
    more = Oracle(oracle.schema, dict(oracle.values))
    add_alerts(kafka.bootstrap_servers, topic, more, AlertKind.ZTF_LIGHT, COUNT, first_id=10**6)
    assert run_cli(*transfer_arguments(kafka, topic, target.outdir, "-partitionby", "time")).returncode == 3
    assert_exactly_once(target.outdir, _alerts(more))
    _verify(target)
    again = Ledger(tmp_path / "fewer")
    assert _compact(target, again).returncode == 3
    assert_exactly_once(again.outdir, _alerts(more))
    _verify(again)


def test_damage_to_a_compacted_file_is_found_and_the_way_out_is_said(many: Ledger, kafka: Any, tmp_path: Path) -> None:
    target = Ledger(tmp_path / "few")
    _compact(many, target)
    path = next(target.outdir.rglob("*.parquet"))
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    result = run_cli("verify", str(target.outdir))
    assert result.returncode == 1
    assert result.stdout.count(str(path)) == 1
    servers = ("--bootstrap-servers", kafka.bootstrap_servers, "--dashboard-address", "127.0.0.1:0")
    result = run_cli("repair", str(target.outdir), *servers)
    assert result.returncode == 1
    assert f"fink-dask compact {many.outdir} OTHERDIR" in result.stdout
    assert path.read_bytes() == content[:-10], "better than none"


def _candids(ledger: Ledger) -> list[int]:
    candids: list[int] = ds.dataset(ledger.outdir, partitioning="hive").to_table()["candid"].to_pylist()
    return candids


def _alerts(oracle: Oracle) -> set[tuple[int, int]]:
    return {place for place, value in oracle.values.items() if value not in POISON}
