"""What a dataset has lost is fetched again from Kafka, and nothing else: whatever was deleted, damaged or edited."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow.dataset as ds
import pytest

from fink_dask.cluster.choice import ClusterChoice
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.records import Marker
from fink_dask.progress.events import Doing, Event, TransferStarted
from fink_dask.progress.tally import Progress
from fink_dask.settings import KafkaSettings
from fink_dask.verifying.files import verify_dataset
from fink_dask.verifying.repair import run_repair
from tests.alerts.made_up import AlertKind, avro_schema, encoded_alerts
from tests.harness.cli import PROGRAM, environment, run_cli, transfer_arguments
from tests.harness.ledgers import copy_of
from tests.harness.oracle import Oracle, assert_exactly_once, assert_values_equal, fill_topic, note, wait_for
from tests.harness.producer import produce, produce_transaction, publish_schema
from tests.harness.topics import create_topic, delete_records_before, remove_topics

pytestmark = pytest.mark.usefixtures("shared_dask")

COUNT = 600


@pytest.fixture(scope="module")
def oracle(kafka: Any, topic: str) -> Oracle:
    """Publish alerts of three nights, and some records that can't be decoded."""
    oracle = fill_topic(kafka.bootstrap_servers, topic, AlertKind.ZTF_LIGHT, COUNT, partitions=3)
    poison = [b"poison %d" % number for number in range(9)]
    note(oracle, produce(kafka.bootstrap_servers, topic, poison), poison)
    return oracle


@pytest.fixture(scope="module")
def whole(kafka: Any, topic: str, oracle: Oracle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    outdir = tmp_path_factory.mktemp("whole") / "alerts"
    result = run_cli(*transfer_arguments(kafka, topic, outdir, "-partitionby", "time"))
    assert result.returncode == 3, result.stderr
    return outdir


@pytest.fixture
def ledger(whole: Path, tmp_path: Path) -> Ledger:
    return copy_of(whole, tmp_path / "alerts")


def repair(kafka: Any, ledger: Ledger, *more: str) -> subprocess.CompletedProcess[str]:
    servers = ("--bootstrap-servers", kafka.bootstrap_servers, "--dashboard-address", "127.0.0.1:0")
    return run_cli("repair", str(ledger.outdir), *servers, *more)


def first(ledger: Ledger) -> Marker:
    return ledger.markers(ledger.plans())[0]


def _files(ledger: Ledger) -> list[Path]:
    return sorted(ledger.outdir.rglob("*.parquet"))


def _delete_one(ledger: Ledger) -> None:
    _files(ledger)[0].unlink()


def _delete_a_night(ledger: Ledger) -> None:
    shutil.rmtree(_files(ledger)[0].parent)


def _delete_all(ledger: Ledger) -> None:
    shutil.rmtree(ledger.outdir)


def _truncate(ledger: Ledger) -> None:
    path = _files(ledger)[1]
    path.write_bytes(path.read_bytes()[:-100])


def _flip(ledger: Ledger) -> None:
    path = _files(ledger)[2]
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def _swap(ledger: Ledger) -> None:
    one, other = _files(ledger)[:2]
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)


def _delete_quarantine(ledger: Ledger) -> None:
    shutil.rmtree(ledger.path / "quarantine")


def _tear_marker(ledger: Ledger) -> None:
    path = ledger.marker_path(first(ledger).range)
    path.write_bytes(path.read_bytes()[:-50])


def _edit_marker(ledger: Ledger) -> None:
    path = ledger.marker_path(first(ledger).range)
    document = json.loads(path.read_bytes())
    document["marker"]["rows"] += 1
    path.write_text(json.dumps(document))


def _edit_marker_and_delete(ledger: Ledger) -> None:
    (ledger.outdir / first(ledger).files[0].path).unlink()
    _edit_marker(ledger)


def _all_at_once(ledger: Ledger) -> None:
    for damage in (_flip, _truncate, _edit_marker, _delete_quarantine):
        damage(ledger)


DAMAGES = [
    _delete_one,
    _delete_a_night,
    _delete_all,
    _truncate,
    _flip,
    _swap,
    _delete_quarantine,
    _tear_marker,
    _edit_marker_and_delete,
    _all_at_once,
]


def assert_whole(ledger: Ledger, oracle: Oracle) -> None:
    found = verify_dataset(ledger)
    assert found.problems == ()
    summary = found.summary
    assert (summary.alerts, summary.quarantined, summary.lost) == (COUNT, 9, 0)
    alerts = {place for place, value in oracle.values.items() if not value.startswith(b"poison")}
    assert_exactly_once(ledger.outdir, alerts)
    table = ds.dataset(ledger.outdir, partitioning="hive").to_table()
    assert_values_equal(table, oracle, ("year", "month", "day"), every=7)
    assert len(list((ledger.path / "quarantine").iterdir())) == 3
    assert not ledger.staged()


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
def test_what_is_missing_or_damaged_is_fetched_again(
    kafka: Any, ledger: Ledger, oracle: Oracle, damage: Callable[[Ledger], None]
) -> None:
    before = {path: path.stat().st_ino for path in _files(ledger)}
    damage(ledger)
    assert verify_dataset(ledger).problems != ()
    result = repair(kafka, ledger)
    assert result.returncode == 3, result.stdout + result.stderr  # there is a quarantine
    assert re.search(r"repaired .*\d", result.stdout)
    assert_whole(ledger, oracle)
    if damage in {_delete_one, _truncate, _flip, _edit_marker_and_delete}:
        kept = [path for path, inode in before.items() if path.exists() and path.stat().st_ino == inode]
        assert len(kept) >= len(before) - 1, "what was whole is left alone"


def test_a_marker_whose_files_are_all_there_is_written_anew_without_kafka(ledger: Ledger, oracle: Oracle) -> None:
    _edit_marker(ledger)
    result = run_cli("repair", str(ledger.outdir), "--bootstrap-servers", "127.0.0.1:1")
    assert result.returncode == 3, result.stdout + result.stderr
    assert re.search(r"\b1 range\b.*\b0 offsets", result.stdout)
    assert_whole(ledger, oracle)


def test_a_whole_dataset_is_left_alone(kafka: Any, ledger: Ledger, oracle: Oracle) -> None:
    before = {path: path.stat().st_mtime_ns for path in [*_files(ledger), *ledger.markers_path.iterdir()]}
    result = repair(kafka, ledger)
    assert "nothing" in result.stdout
    assert {path: path.stat().st_mtime_ns for path in [*_files(ledger), *ledger.markers_path.iterdir()]} == before
    assert_whole(ledger, oracle)


@pytest.mark.commands
def test_a_repair_that_fails_says_so_to_a_script_too(topic: str, ledger: Ledger) -> None:
    _files(ledger)[0].unlink()
    result = run_cli("repair", str(ledger.outdir), "--bootstrap-servers", "127.0.0.1:1", "--json")
    found = json.loads(result.stdout)
    assert (found["topic"], found["state"]) == (topic, "failed")
    assert result.stderr.endswith(f"fink-dask: error: {found['error']}\n")
    assert result.returncode == 1


def test_a_second_copy_of_a_file_is_named_and_not_removed(kafka: Any, ledger: Ledger) -> None:
    copy = _files(ledger)[0].with_name("copy.parquet")
    shutil.copy(_files(ledger)[0], copy)
    result = repair(kafka, ledger)
    assert result.returncode == 1
    assert str(copy) in result.stdout
    assert copy.exists()


@pytest.mark.kills
@pytest.mark.parametrize("later_s", [pytest.param(0, marks=pytest.mark.sample), 0.05, 0.1, 0.2])
def test_a_repair_that_is_killed_is_completed_by_the_next_one(
    kafka: Any, ledger: Ledger, oracle: Oracle, later_s: float
) -> None:
    _delete_a_night(ledger)
    _flip(ledger)
    servers = ("--bootstrap-servers", kafka.bootstrap_servers, "--dashboard-address", "127.0.0.1:0")
    process = psutil.Popen(
        [*PROGRAM, "repair", str(ledger.outdir), *servers],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    wait_for(lambda: bool(ledger.staged()) or process.poll() is not None, "a range that is read again")
    time.sleep(later_s)
    everyone = [process, *process.children(recursive=True)]
    for each in everyone:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    psutil.wait_procs(everyone, timeout=60)
    assert process.wait() == -signal.SIGKILL, "it was over before"
    wait_for(lambda: repair(kafka, ledger).returncode == 3, "the repair")
    assert_whole(ledger, oracle)


def test_what_kafka_no_longer_has_is_not_made_worse(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 300, partitions=2)
    ledger = Ledger(tmp_path / "alerts")
    assert run_cli(*transfer_arguments(kafka, topic_name, ledger.outdir, "-partitionby", "time")).returncode == 0
    marker = first(ledger)
    damaged = ledger.outdir / marker.files[0].path
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-8] + b"\0\0\0\0PAR1")
    delete_records_before(kafka.bootstrap_servers, topic_name, marker.range.partition, marker.range.end - 5)
    result = repair(kafka, ledger)
    assert result.returncode == 1
    assert "--on-loss continue" in result.stdout
    assert damaged.exists()

    # Told to, it fetches what is there, and declares the rest lost.
    result = repair(kafka, ledger, "--on-loss", "continue")
    assert result.returncode == 3, result.stdout + result.stderr
    found = verify_dataset(ledger)
    assert found.problems == ()
    assert 0 < found.summary.lost == 300 - found.summary.alerts
    kept = [
        place
        for place in oracle.values
        if not any(s <= place[1] < e for s, e in found.completeness.lost.get(place[0], []))
    ]
    assert_exactly_once(ledger.outdir, kept)
    assert first(ledger).lost_at is not None


def test_another_topic_of_the_same_name_is_no_source(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 100, partitions=1)
    ledger = Ledger(tmp_path / "alerts")
    assert run_cli(*transfer_arguments(kafka, topic_name, ledger.outdir)).returncode == 0
    _delete_one(ledger)
    remove_topics(kafka.bootstrap_servers, topic_name)
    result = repair(kafka, ledger)
    assert result.returncode == 1
    assert (topic_name in result.stderr, "deleted" in result.stderr) == (True, False)
    fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 100, partitions=1)
    result = repair(kafka, ledger)
    assert result.returncode == 1
    assert "deleted" in result.stderr
    assert _files(ledger) == []


@pytest.fixture
def expired(kafka: Any, topic_name: str, tmp_path: Path) -> tuple[Ledger, Oracle]:
    """Transfer a topic that Kafka has removed everything of since."""
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 300, partitions=2)
    ledger = Ledger(tmp_path / "alerts")
    assert run_cli(*transfer_arguments(kafka, topic_name, ledger.outdir, "-partitionby", "time")).returncode == 0
    for offset_range in ledger.plans()[0].ranges:
        delete_records_before(kafka.bootstrap_servers, topic_name, offset_range.partition, offset_range.end)
    return ledger, oracle


def _cut_marker(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


@pytest.mark.parametrize("damage", [_cut_marker, Path.unlink])
@pytest.mark.parametrize("on_loss", ["fail", "continue"])
def test_files_without_a_marker_are_kept_where_kafka_has_nothing_better(
    kafka: Any, expired: tuple[Ledger, Oracle], damage: Callable[[Path], None], on_loss: str
) -> None:
    ledger, oracle = expired
    damage(ledger.marker_path(first(ledger).range))
    verified = run_cli("verify", str(ledger.outdir))
    assert verified.returncode == 1
    assert "fink-dask repair" in verified.stdout
    assert not any(str(path) in verified.stdout for path in _files(ledger)), "each file is of a range"
    topic = ledger.plans()[0].identity.topic
    refused = run_cli(*transfer_arguments(kafka, topic, ledger.outdir, "-partitionby", "time"))
    assert refused.returncode == 1, refused.stderr
    result = repair(kafka, ledger, "--on-loss", on_loss)
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"\b0 offsets", result.stdout)
    assert verify_dataset(ledger).problems == ()
    assert_exactly_once(ledger.outdir, oracle.values)


def test_the_last_revision_of_a_marker_may_be_gone(kafka: Any, ledger: Ledger, oracle: Oracle) -> None:
    _delete_one(ledger)
    assert repair(kafka, ledger).returncode == 3
    (marker,) = ledger.markers_path.glob("*.1.json")
    marker.unlink()
    result = repair(kafka, ledger)
    assert result.returncode == 3, result.stdout + result.stderr
    assert not any(str(path) in result.stdout for path in _files(ledger)), "each file is of a range"
    assert_whole(ledger, oracle)


def test_a_directory_in_a_files_place_is_left_alone(kafka: Any, ledger: Ledger) -> None:
    path = _files(ledger)[0]
    path.unlink()
    path.mkdir()
    (path / "mine").touch()
    result = repair(kafka, ledger)
    assert result.returncode == 1
    assert str(path / "mine") in result.stdout
    shutil.rmtree(path)
    assert repair(kafka, ledger).returncode == 3
    assert verify_dataset(ledger).problems == ()


@pytest.mark.commands
def test_a_directory_of_the_dataset_may_be_on_another_disk(ledger: Ledger, tmp_path: Path) -> None:
    day = _files(ledger)[0].parent
    shutil.move(day, tmp_path / "elsewhere")
    day.symlink_to(tmp_path / "elsewhere")
    assert verify_dataset(ledger).problems == ()
    (tmp_path / "elsewhere" / "copy.parquet").touch()
    assert verify_dataset(ledger).foreign == (day / "copy.parquet",)


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"{}")], ids=["gone", "changed"])
def test_the_ledgers_schema_is_checked_and_fetched_again(
    kafka: Any, ledger: Ledger, oracle: Oracle, damage: Callable[[Path], None]
) -> None:
    (schema,) = ledger.path.glob("schema-*.avsc")
    damage(schema)
    verified = run_cli("verify", str(ledger.outdir))
    assert verified.returncode == 1
    assert str(schema) in verified.stdout
    assert "fink-dask repair" in verified.stdout
    assert repair(kafka, ledger).returncode == 3
    assert_whole(ledger, oracle)


def test_what_the_files_say_stands_also_where_kafka_does_not_answer(ledger: Ledger) -> None:
    nowhere = ("--bootstrap-servers", "127.0.0.1:1")
    result = run_cli("verify", str(ledger.outdir), "--against-kafka", *nowhere, impatient=True)
    assert result.returncode == 1
    assert "exactly once" in result.stdout
    assert "127.0.0.1:1" in result.stderr


@pytest.mark.commands
def test_a_sample_counts_records_and_not_holes(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    address = kafka.bootstrap_servers
    create_topic(address, topic_name, 1)
    publish_schema(address, topic_name, json.dumps(avro_schema(AlertKind.ZTF_LIGHT)))
    values = list(encoded_alerts(AlertKind.ZTF_LIGHT, 95))
    produce_transaction(address, topic_name, values, commit=False)
    produce(address, topic_name, values[:5])
    outdir = tmp_path / "alerts"
    assert run_cli(*transfer_arguments(kafka, topic_name, outdir)).returncode == 0
    result = run_cli("verify", str(outdir), "--sample", "500", "--bootstrap-servers", address, "--json")
    assert result.returncode == 0, result.stdout
    compared = json.loads(result.stdout)["kafka"]
    assert (compared["equal"], compared["incomparable"]) == (5, 0)
    assert compared["holes"] > 90


@pytest.mark.commands
def test_what_a_repair_waits_for_is_said_before_anything_comes(kafka: Any, ledger: Ledger) -> None:
    _delete_one(ledger)
    events: list[Event] = []
    settings = KafkaSettings(kafka.bootstrap_servers)
    progress, chosen = Progress(events.append), ClusterChoice(dashboard_address="127.0.0.1:0")
    assert run_repair(ledger, settings, lambda: progress, lambda _: None, "fail", chosen).ranges == 1
    started = next(number for number, event in enumerate(events) if isinstance(event, TransferStarted))
    assert [isinstance(event, Doing) for event in events[:started]] == [True, True]
