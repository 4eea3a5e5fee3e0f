"""What is said before a run begins: how much, how long, and whether the disk holds it."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import fink_dask
from fink_dask.cli.main import cli
from fink_dask.errors import StorageError
from fink_dask.kafka.inspect import Sample
from fink_dask.kafka.line import OF_USE
from fink_dask.kafka.offsets import OffsetRange, Watermarks
from fink_dask.kafka.probe import UNKNOWN_LINE, LineSpeed
from fink_dask.ledger import outdir as outdir_module
from fink_dask.ledger.ledger import Ledger
from fink_dask.ledger.records import Plan
from fink_dask.ledger.summary import Arrival, Phase, Summary, write_arrival
from fink_dask.planning import forecast as forecast_module
from fink_dask.planning.forecast import Machine, forecast, has_room
from fink_dask.planning.preview import Outlook, lack_of_room
from fink_dask.progress.events import Forecast
from fink_dask.settings import KafkaSettings, TransferSettings
from fink_dask.show.display import forecast_words
from fink_dask.units import duration_words, parse_rate
from tests.alerts.made_up import AlertKind, avro_schema
from tests.harness.alerts_once import alerts_once
from tests.harness.cli import run_cli, transfer_arguments
from tests.harness.ledgers import IDENTITY
from tests.harness.oracle import Oracle, fill_topic, make_topic
from tests.harness.producer import produce, publish_schema
from tests.harness.topics import create_topic, delete_records_before

COUNT = 6000


@pytest.fixture(scope="module")
def oracle(kafka: Any, topic: str) -> Oracle:
    return fill_topic(kafka.bootstrap_servers, topic, AlertKind.ZTF_LIGHT, COUNT, partitions=3)


@pytest.fixture
def small_disk(monkeypatch: pytest.MonkeyPatch) -> int:
    """Have a file system that says that it has less room than the topic has bytes."""
    monkeypatch.setattr(forecast_module, "free_bytes", lambda _: 1_000_000)
    return 1_000_000


def _raw_bytes(oracle: Oracle) -> int:
    return sum(map(len, oracle.values.values()))


def test_a_transfer_says_beforehand_what_it_has_to_do(kafka: Any, topic: str, oracle: Oracle, tmp_path: Path) -> None:
    result = run_cli(*transfer_arguments(kafka, topic, tmp_path / "alerts"))
    assert result.returncode == 0, result.stderr
    said = re.search(r"6,000 .* ([\d.]+) MB .*\b\d+ s, .* free", result.stderr)
    assert said is not None, result.stderr
    assert float(said[1]) == pytest.approx(_raw_bytes(oracle) / 1e6, rel=0.2)


def test_a_dry_run_says_it_in_words_and_as_json(kafka: Any, topic: str, oracle: Oracle, tmp_path: Path) -> None:
    arguments = transfer_arguments(kafka, topic, tmp_path / "alerts", "--dry-run")
    words = run_cli(*arguments).stdout
    assert re.search(r"take .*\b\d+ s, ", words)
    assert re.search(r"line .*[\d.e+-]+ ms, (fast|.*bit/s)", words)
    assert re.search(r"write .*\b[\d.]+ MB, .* free", words)
    found = json.loads(run_cli(*arguments, "--json").stdout)["forecast"]
    assert found["alerts"] == COUNT
    assert found["raw_bytes"] == pytest.approx(_raw_bytes(oracle), rel=0.2)
    assert found["written_bytes"] < 0.9 * found["raw_bytes"]
    assert found["free_bytes"] > 0
    assert found["seconds"] > 0
    assert found["wire_bytes"] > found["raw_bytes"]
    assert found["round_trip_s"] > 0
    assert found["line_bytes_per_s"] > 1_000_000
    assert found["bound_by"] in {"cores", "line"}
    assert not (tmp_path / "alerts").exists()


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"columns": "objectId,candid"},
        {"where": "magpsf < 17"},
        pytest.param({"partitionby": "finkclass"}, marks=pytest.mark.commands),
        pytest.param({"outformat": "avro"}, marks=pytest.mark.commands),
    ],
    ids=lambda more: "-".join(more) or "all",
)
def test_a_sample_tells_how_much_is_written(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path, more: dict[str, str]
) -> None:
    place = (topic, tmp_path / "alerts", kafka.bootstrap_servers)
    estimated = fink_dask.plan(*place, **more).forecast
    assert estimated is not None
    done = fink_dask.transfer(*place, force=True, progress=False, dashboard_address="127.0.0.1:0", **more)
    assert 0.7 * done.summary.written_bytes < estimated.written_bytes < 1.4 * done.summary.written_bytes


def test_of_a_small_topic_of_full_packets_most_that_is_written_is_beside_the_rows(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.LSST_FULL, 12, partitions=4)
    place = (topic_name, tmp_path / "alerts", kafka.bootstrap_servers)
    estimated = fink_dask.plan(*place).forecast
    assert estimated is not None
    written = fink_dask.transfer(*place, progress=False, dashboard_address="127.0.0.1:0").summary.written_bytes
    assert 0.7 * written < estimated.written_bytes < 1.4 * written


def test_what_the_disk_can_not_hold_is_refused_and_leaves_nothing(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path, small_disk: int
) -> None:
    call = (topic, tmp_path / "alerts", kafka.bootstrap_servers)
    with pytest.raises(StorageError, match=r"MB .*\b1\.0 MB .*force=True") as caught:
        fink_dask.transfer(*call, progress=False, dashboard_address="127.0.0.1:0")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_dry_run_says_that_what_the_disk_can_not_hold_would_be_refused_also_of_several_topics(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path, small_disk: int, capsys: pytest.CaptureFixture[str]
) -> None:
    fill_topic(kafka.bootstrap_servers, f"{topic}_more", AlertKind.ZTF_LIGHT, 10, partitions=1)
    one = transfer_arguments(kafka, topic, tmp_path / "alerts", "--dry-run")
    for arguments in (one, [*one, "--topic", f"{topic}_more"]):
        assert cli.main(arguments, standalone_mode=False) == 1
        assert " 1.0 MB " in capsys.readouterr().out
        assert cli.main([*arguments, "--json"], standalone_mode=False) == 1
        said = json.loads(capsys.readouterr().out)
        assert (said["state"], " 1.0 MB " in said["error"]) == ("failed", True)
        assert cli.main([*arguments, "--force", "--json"], standalone_mode=False) == 0
        assert json.loads(capsys.readouterr().out)["error"] is None
    assert not list(tmp_path.iterdir())


def test_a_dry_run_refuses_topics_that_have_room_each_but_not_together_unless_it_could_not_look(
    tmp_path: Path, small_disk: int
) -> None:
    settings = TransferSettings("topic", tmp_path / "alerts", KafkaSettings("127.0.0.1:1"))
    found = Forecast(10, 700_000, 700_000, 1.0, small_disk)
    one = Outlook("one", 0, 0, 0, None, 10, 0, {}, forecast=found, line=LineSpeed(0.04, 1e6))
    unseen = replace(one, line=LineSpeed(0.04, slower_than=100_000))
    assert lack_of_room([one], settings) is None
    assert lack_of_room([one, one], settings) is not None
    assert lack_of_room([one, unseen], settings) is None


def test_a_condition_that_is_true_of_no_alert_needs_no_room(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path, small_disk: int
) -> None:
    call = (topic, tmp_path / "alerts", kafka.bootstrap_servers)
    done = fink_dask.transfer(*call, where="magpsf < 1", progress=False, dashboard_address="127.0.0.1:0")
    assert (done.summary.alerts, done.summary.filtered) == (0, len(oracle.values))


@pytest.mark.parametrize("begun", [False, True], ids=["new", "begun"])
def test_what_kafka_has_removed_already_is_no_part_of_it(
    kafka: Any, topic_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 4000, partitions=2)
    call = (topic_name, tmp_path / "alerts", kafka.bootstrap_servers)
    if begun:
        monkeypatch.setattr(forecast_module, "_TELLING_BYTES", 1000)
        fink_dask.transfer(*call, limit=200, progress=False, dashboard_address="127.0.0.1:0")
    for partition in range(2):
        delete_records_before(kafka.bootstrap_servers, topic_name, partition, 1600)
    left = {place: value for place, value in oracle.values.items() if place[1] >= 1600}
    found = fink_dask.plan(*call, columns=None if begun else "objectId,candid").forecast
    assert found is not None
    assert found.alerts == len(left)
    assert found.raw_bytes == pytest.approx(sum(map(len, left.values())), rel=0.2)
    # The longest range is what Kafka has removed, which no sample can be taken of.
    assert begun or found.written_bytes < 0.2 * found.raw_bytes


def test_records_that_are_quarantined_take_room(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    make_topic(kafka.bootstrap_servers, topic_name, AlertKind.ZTF_LIGHT, 1)
    produce(kafka.bootstrap_servers, topic_name, [b"no alert" * 100] * 500, partitions=1)
    found = fink_dask.plan(topic_name, tmp_path / "alerts", kafka.bootstrap_servers).forecast
    assert found is not None
    assert found.written_bytes == found.raw_bytes > 0


def test_topics_that_have_room_each_and_as_files_together_are_not_refused(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = fill_topic(kafka.bootstrap_servers, f"{topic}_other", AlertKind.ZTF_LIGHT, COUNT, partitions=3)
    free = int(1.3 * _raw_bytes(other))
    monkeypatch.setattr(forecast_module, "free_bytes", lambda _: free)
    arguments = transfer_arguments(kafka, topic, tmp_path / "alerts", "--topic", f"{topic}_other")
    assert cli.main(arguments, standalone_mode=False) == 0
    written = sum(path.stat().st_size for path in (tmp_path / "alerts").glob("*_*/*.parquet"))
    assert 0 < written < free < _raw_bytes(oracle) + _raw_bytes(other)
    monkeypatch.setattr(forecast_module, "free_bytes", lambda _: written // 3)
    arguments = transfer_arguments(kafka, topic, tmp_path / "more", "--topic", f"{topic}_other")
    with pytest.raises(StorageError, match=r"MB .*free"):
        cli.main(arguments, standalone_mode=False)


def test_what_is_there_already_tells_how_much_the_rest_is(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast_module, "_TELLING_BYTES", 1000)
    call = (topic, tmp_path / "alerts", kafka.bootstrap_servers)
    some = fink_dask.transfer(*call, limit=2000, progress=False, dashboard_address="127.0.0.1:0").summary
    rest = fink_dask.plan(*call).forecast
    assert rest is not None
    assert rest.alerts == COUNT - 2000
    assert rest.written_bytes / rest.raw_bytes == pytest.approx(some.written_bytes / some.raw_bytes, rel=0.01)


def test_a_resume_says_how_long_it_takes_at_the_rate_of_the_run_before_unless_that_kept_to_a_limit(
    kafka: Any, topic: str, oracle: Oracle, tmp_path: Path
) -> None:
    arguments = transfer_arguments(kafka, topic, tmp_path / "alerts")
    assert run_cli(*arguments, "--limit", "1000").returncode == 0
    # As that run may have been too short to tell, the note is the one of a run over a slow line.
    slow = Arrival(time.time(), Phase.RECEIVING, 1000, 10**6, 0, 10_000.0, None, None, 0.1, False, 300.0)
    write_arrival(Ledger(tmp_path / "alerts"), replace(slow, limit_rate=10_000))
    more = run_cli(*arguments, "--limit", "2000")
    assert "80 kbit/s" not in more.stderr, "what kept to a limit says nothing of the line"
    write_arrival(Ledger(tmp_path / "alerts"), replace(slow, at=time.time()))
    resumed = run_cli(*arguments)
    assert resumed.returncode == 0, resumed.stderr
    assert re.search(r"[\d.]+ min, .*\b80 kbit/s", resumed.stderr), resumed.stderr


ALERTS = 60_000
RAW = 66_000_000
#: What is known of line and limit; what the bytes on the line are to those of alerts; the words, and the seconds.
BOUNDS: list[tuple[LineSpeed, str | None, float, str, float]] = [
    (UNKNOWN_LINE, None, 1.02, "longer .*1.1 min .*8 Mbit/s", 2),
    (LineSpeed(0.001, 125e6), None, 1.02, "cores", 2),
    (LineSpeed(0.04, 1e6), None, 1.0, "line .*8 Mbit/s", 1.5 + 12 * 0.04 + 66),
    (LineSpeed(0.04, 1e6, True), None, 1.0, "less .*8 Mbit/s", 1.5 + 12 * 0.04 + 66),
    (LineSpeed(0.04, 1e6), None, 51.0, "line .*8 Mbit/s", 1.5 + 12 * 0.04 + 51 * 66),
    (LineSpeed(0.04, 1e6, expansion=4.0), None, 1.0, "line .*8 Mbit/s", 1.5 + 12 * 0.04 + 66 / 4),
    (LineSpeed(0.001, 125e6), "40Mbit/s", 1.0, "limit .*40 Mbit/s", 1.5 + 66 / 5 / OF_USE),
    (UNKNOWN_LINE, "40Mbit/s", 1.0, "limit .*40 Mbit/s", 1.5 + 66 / 5 / OF_USE),
    (LineSpeed(0.04, 1e6), "40Mbit/s", 1.0, "line .*8 Mbit/s", 1.5 + 12 * 0.04 + 66),
    (LineSpeed(bytes_per_s=1e6, is_of_before=True), None, 1.0, "8 Mbit/s.* last", 67.5),
    (LineSpeed(bytes_per_s=125e6, is_of_before=True), None, 1.0, "cores", 2),
    (LineSpeed(1.0), None, 1.0, "longer .*1.1 min .*8 Mbit/s", 14.5),
]


def _forecast(
    tmp_path: Path,
    estimated_bytes: int,
    line: LineSpeed = UNKNOWN_LINE,
    limit: str | None = None,
    wire: float = 1.0,
    loaded_s: float = 0.0,
) -> Forecast:
    """Forecast a topic of one partition that nobody has to be asked about."""
    limit_rate = None if limit is None else parse_rate("--limit-rate", limit)
    settings = TransferSettings("topic", tmp_path / "alerts", KafkaSettings("127.0.0.1:1", limit_rate=limit_rate))
    target: Any = SimpleNamespace(description=SimpleNamespace(watermarks={0: Watermarks(0, ALERTS)}))
    plan = Plan(1, IDENTITY, (OffsetRange(0, 0, ALERTS),), estimated_bytes)
    sample = Sample({0: 1000.0}, {0: 1000.0 * wire}, 0.1, 0)
    summary = Summary("topic", "interrupted")
    return forecast(settings, target, summary, [], plan, Machine(8, loaded_s), sample=sample, line=line)


def test_the_estimate_includes_a_start_that_takes_long_on_a_busy_machine(tmp_path: Path) -> None:
    quick, slow = (_forecast(tmp_path, RAW, loaded_s=loaded_s).seconds for loaded_s in (0.1, 2.0))
    assert quick is not None
    assert slow is not None
    assert slow - quick > 4


@pytest.mark.parametrize(("line", "limit", "wire", "words", "seconds"), BOUNDS)
def test_what_is_slowest_tells_how_long_it_takes(
    tmp_path: Path, line: LineSpeed, limit: str | None, wire: float, words: str, seconds: float
) -> None:
    found = _forecast(tmp_path, RAW, line, limit, wire)
    assert re.search(words, found.reason)
    assert found.seconds == pytest.approx(seconds, rel=0.3 if seconds < 3 else 0.05)
    assert found.wire_bytes == pytest.approx(RAW * wire / line.expansion)
    assert found.raw_bytes == RAW
    assert (found.line_bytes_per_s, found.round_trip_s) == (line.bytes_per_s, line.round_trip_s)
    told = "start" if seconds < 3 and found.bound_by is not None else words
    assert re.match(f"{duration_words(found.seconds or 0)}, .*{told}", found.took)
    assert re.search(rf"\b66\.0 MB .*{re.escape(found.took)}", forecast_words(found))


def test_a_start_that_takes_most_of_the_time_is_said_to(tmp_path: Path) -> None:
    found = _forecast(tmp_path, RAW, LineSpeed(0.001, 87e6, is_least=True), loaded_s=3.0)
    assert re.match("13 s, .*start", found.took)
    assert found.took in forecast_words(found)


def test_a_line_that_brought_nothing_in_time_is_said_to_be_slower(tmp_path: Path) -> None:
    found = _forecast(tmp_path, RAW, LineSpeed(0.04, slower_than=100_000))
    assert re.search("slower .*800 kbit/s", forecast_words(found))


def test_a_rate_does_not_hold_up_the_estimate_and_retention_that_ends_before_is_said(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, partitions=1, config={"retention.ms": "3600000"})
    publish_schema(kafka.bootstrap_servers, topic_name, json.dumps(avro_schema(AlertKind.ZTF_LIGHT)), copies=1)
    produce(kafka.bootstrap_servers, topic_name, alerts_once(AlertKind.ZTF_LIGHT, COUNT, 0, 0))
    found = fink_dask.plan(topic_name, tmp_path / "alerts", kafka.bootstrap_servers, limit_rate="1kB/s").forecast
    assert found is not None
    assert found.bound_by == "limit"
    assert 0 < (found.removal_s or 0) <= 3600
    assert "remove" in forecast_words(found)


def test_an_estimate_that_could_not_be_made_refuses_no_disk(tmp_path: Path, small_disk: int) -> None:
    found = _forecast(tmp_path, 0, LineSpeed(0.04, 1e6))
    assert (found.raw_bytes, found.written_bytes, found.seconds, found.bound_by) == (None, None, None, None)
    assert has_room([found])
    assert not has_room([found, replace(found, written_bytes=small_disk + 1)])
    assert "not known" in forecast_words(found)


def test_the_room_is_that_of_the_nearest_directory_that_is_there(tmp_path: Path) -> None:
    assert outdir_module.free_bytes(tmp_path / "not" / "there") is not None
    assert outdir_module.free_bytes(Path("not-there")) is not None
