"""What can't be done is said in one line, at once, with a status that a script sees, and nothing is created."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fink_dask.kafka.offsets import OffsetRange
from tests.alerts.made_up import AlertKind
from tests.harness.cli import PROGRAM, environment, run_cli, transfer_arguments
from tests.harness.kafka_settings import free_ports
from tests.harness.ledgers import make_ledger, make_plan
from tests.harness.oracle import fill_topic
from tests.harness.topics import create_topic, topic_names


@pytest.fixture(scope="module")
def light_topic(kafka: Any, topic: str) -> str:
    fill_topic(kafka.bootstrap_servers, topic, AlertKind.ZTF_LIGHT, 20, partitions=2)
    return topic


def refused(arguments: list[str], code: int, words: str, cwd: Path, **options: Any) -> str:
    """Run a command that must fail; return the one line it says."""
    before = sorted(path for path in cwd.rglob("*"))
    result = run_cli(*arguments, cwd=cwd, **options)
    assert result.returncode == code, (result.returncode, result.stderr)
    # On a slow machine it says now and then what it does.
    lines = [line for line in result.stderr.splitlines() if line.startswith("fink-dask")]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("fink-dask: error: ")
    assert words in lines[0]
    assert result.stdout == ""
    assert sorted(path for path in cwd.rglob("*")) == before, "something was created"
    return lines[0]


def test_a_wrong_topic_is_one_line_and_is_never_created(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    refused(transfer_arguments(kafka, topic_name, tmp_path / "out"), 1, topic_name, tmp_path)
    assert topic_name not in topic_names(kafka.bootstrap_servers)


def test_a_wrong_topic_is_not_created_even_where_the_broker_creates_topics_on_demand(
    private_kafka: Callable[..., Any], topic_name: str, tmp_path: Path
) -> None:
    broker = private_kafka({"auto.create.topics.enable": "true"})
    refused(transfer_arguments(broker, topic_name, tmp_path / "out"), 1, topic_name, tmp_path)
    assert not {name for name in topic_names(broker.bootstrap_servers) if name.startswith("ftransfer")}


@pytest.mark.commands
@pytest.mark.parametrize(
    "typed",
    [
        pytest.param(("export", "alerts", "PLACE.csv"), marks=pytest.mark.sample),
        ("export", "alerts", "PLACE.parquet"),
        ("lightcurve", "alerts", "ZTF18aa", "--csv", "PLACE.csv"),
        ("lightcurve", "alerts", "ZTF18aa", "--plot", "PLACE.html"),
        ("cutouts", "alerts", "--object", "ZTF18aa", "-o", "PLACE"),
        ("report", "alerts", "-o", "PLACE.html"),
    ],
)
def test_a_file_goes_neither_into_a_dataset_nor_where_only_others_have_places(
    typed: tuple[str, ...], tmp_path: Path
) -> None:
    plan = make_plan([OffsetRange(0, 0, 10)])
    make_ledger(tmp_path / "alerts", plan)
    make_ledger(tmp_path / "other", plan)
    for place, code, words in (
        ("alerts/x", 2, "inside"),
        ("alerts.fink/x", 2, "inside"),
        ("alerts/../other/x", 2, "inside"),
        (r"C:\x", 2, "Windows"),
        ("s3://bucket/x", 2, "URL"),
    ):
        refused([word.replace("PLACE", place) for word in typed], code, words, tmp_path)


def test_a_working_directory_that_is_gone_is_named_by_every_command(tmp_path: Path) -> None:
    script = 'mkdir gone && cd gone && rmdir ../gone && exec "$@"'
    for typed in (("status", "/tmp"), ("topics", "--json")):
        command = ["sh", "-c", script, "sh", *PROGRAM, *typed]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment(), check=False)
        assert done.returncode == 2
        assert done.stderr.startswith("fink-dask: error: ")
        assert "directory" in done.stderr


@pytest.mark.parametrize("closed", [">&-", "<&- >&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_is_no_failure_and_nothing_is_printed_into_a_file(closed: str, tmp_path: Path) -> None:
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", *PROGRAM, "example", "light-curve", "-o", "curve.ipynb"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment(), check=False)
    assert (done.returncode, done.stderr) == (0, "")
    json.loads((tmp_path / "curve.ipynb").read_text())


def test_a_malformed_file_of_dasks_configuration_is_one_line(kafka: Any, light_topic: str, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "dask.yaml").write_text("distributed: [1,\n  worker: {")
    refused(
        transfer_arguments(kafka, light_topic, tmp_path / "out"),
        2,
        "dask.yaml",
        tmp_path,
        env={"DASK_CONFIG": str(tmp_path / "config")},
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_no_broker_is_one_line_within_seconds(tmp_path: Path, topic_name: str, host: str) -> None:
    class Nowhere:
        bootstrap_servers = f"{host}:{free_ports(1)[0]}"

    # One of them waits as long as a user does.
    options = {"impatient": host != "127.0.0.1"}
    arguments = transfer_arguments(Nowhere, topic_name, tmp_path / "out")
    refused(arguments, 1, Nowhere.bootstrap_servers, tmp_path, **options)


def test_the_port_of_a_controller_is_one_line_that_says_to_look_at_the_port(kafka: Any, tmp_path: Path) -> None:
    server = f"127.0.0.1:{kafka.node.controller_port}"
    said = refused(["topics", "--bootstrap-servers", server], 1, server, tmp_path)
    assert "port" in said.partition(server)[2]


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["-batchsize", "0"], 2, "'--batchsize'"),
        (["-batchsize", "many"], 2, "integer"),
        (["-nconsumers", "0"], 2, "-1"),
        (["-nconsumers", "-2"], 2, "-1"),
        (["-limit", "0"], 2, "limit"),
        (["-outdir", ""], 2, "directory"),
        (["-outformat", "orc"], 2, "'parquet', 'avro'"),
        (["-partitionby", "nothing"], 2, "column"),
        (["-partitionby", "time,time"], 2, "once"),
        (["-partitionby", "time,"], 2, "commas"),
        (["-partitionby", "mangrove"], 2, " map"),
        (["-survey", "sdss"], 2, "'ztf', 'lsst'"),
        (["-survey", "lsst", "-partitionby", "time"], 2, "diaSource.midpointMjdTai"),
        (["--schema", "no-such-file.json"], 2, "--schema"),
        (["--config", "no-such-file.toml"], 2, "no-such-file.toml"),
        (["--no-such-option"], 2, "--no-such-option"),
        (["-partition", "time"], 2, "-partitionby"),
        (["--batch_size=5"], 2, "--batchsize"),
        (["-vq"], 2, "-vq"),
        (["-newest"], 2, "fink-dask peek"),
        (["surplus"], 2, "surplus"),
    ],
)
def test_a_wrong_option_is_a_usage_error_in_one_line(
    kafka: Any, light_topic: str, tmp_path: Path, options: list[str], code: int, words: str
) -> None:
    refused(transfer_arguments(kafka, light_topic, tmp_path / "out", *options), code, words, tmp_path)


@pytest.mark.parametrize("arguments", [["--tpoic", "a"], ["a", "b"]])
def test_who_does_not_know_how_a_command_takes_its_arguments_is_told(tmp_path: Path, arguments: list[str]) -> None:
    refused(["doctor", *arguments], 2, "fink-dask doctor [OPTIONS] [TOPIC]", tmp_path)


@pytest.mark.parametrize(
    ("topic", "words"),
    [
        ("fink_ai_pre_something", "FinkAI"),
        ("../../etc/passwd", "../../etc/passwd"),
        ("x" * 300, "249"),
        ("a\nb", r"a\nb"),
    ],
)
def test_a_topic_that_holds_no_alerts_is_refused_by_name(kafka: Any, tmp_path: Path, topic: str, words: str) -> None:
    refused(transfer_arguments(kafka, topic, tmp_path / "out"), 2, words, tmp_path)


def test_an_outdir_that_is_a_file_is_left_alone(kafka: Any, light_topic: str, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    refused(transfer_arguments(kafka, light_topic, tmp_path / "out"), 1, " file", tmp_path)
    assert (tmp_path / "out").read_text() == "mine"


def test_a_name_that_no_file_system_takes_is_one_line(kafka: Any, light_topic: str, tmp_path: Path) -> None:
    arguments = transfer_arguments(kafka, light_topic, tmp_path / ("x" * 300))
    refused(arguments, 1, "File name too long", tmp_path)


def test_an_outdir_with_somebody_elses_files_is_left_alone(kafka: Any, light_topic: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    refused(transfer_arguments(kafka, light_topic, tmp_path / "out"), 1, "ledger", tmp_path)


@pytest.mark.parametrize("command", ["transfer", "status", "verify", "report", "read"])
def test_a_dataset_that_was_moved_without_its_ledger_says_where_that_belongs(
    command: str, kafka: Any, light_topic: str, tmp_path: Path
) -> None:
    moved = tmp_path / "moved" / "day=24"
    moved.mkdir(parents=True)
    (moved / "part-f9dbcf5f-0-0-6057-3411c911.parquet").touch()
    arguments = [command, str(moved.parent)]
    if command == "transfer":
        arguments = transfer_arguments(kafka, light_topic, moved.parent)
    refused(arguments, 1, "moved.fink", tmp_path)


def test_the_working_directory_can_be_the_dataset(kafka: Any, light_topic: str, tmp_path: Path) -> None:
    (tmp_path / "alerts").mkdir()
    done = run_cli(*transfer_arguments(kafka, light_topic, Path()), cwd=tmp_path / "alerts")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "alerts.fink").is_dir()
    shown = run_cli("export", ".", "../alerts.csv", cwd=tmp_path / "alerts")
    assert shown.returncode == 0, shown.stderr


@pytest.mark.parametrize(
    "command", ["transfer", "status", "verify", "report", "read", "lightcurve", "export", "repair"]
)
def test_what_an_unset_variable_and_a_slash_are_is_no_dataset(
    command: str, kafka: Any, light_topic: str, tmp_path: Path
) -> None:
    arguments = [command, "/", *(["all.csv"] if command == "export" else [])]
    if command == "transfer":
        arguments = transfer_arguments(kafka, light_topic, Path("/"))
    refused(arguments, 2, "ledger", tmp_path)


def test_an_outdir_below_a_file_is_one_line(kafka: Any, light_topic: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    refused(transfer_arguments(kafka, light_topic, tmp_path / "file" / "out"), 1, f"{tmp_path / 'file'} ", tmp_path)


def test_a_topic_without_a_schema_says_what_to_do(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    from tests.harness.producer import produce

    create_topic(kafka.bootstrap_servers, topic_name, 1)
    produce(kafka.bootstrap_servers, topic_name, [b"x"])
    refused(transfer_arguments(kafka, topic_name, tmp_path / "out"), 1, "--schema FILE", tmp_path)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ("not json", "schema"),
        ('{"type": "record", "name": "a", "fields": [{"name": "x", "type": ["int", "int"]}]}', "x"),
        ("[" * 5000, "schema"),
    ],
)
def test_a_hostile_schema_file_is_refused_in_words(
    kafka: Any, light_topic: str, tmp_path: Path, schema: str, words: str
) -> None:
    (tmp_path / "schema.json").write_text(schema)
    arguments = transfer_arguments(kafka, light_topic, tmp_path / "out", "--schema", "schema.json")
    refused(arguments, 1, words, tmp_path)


def test_without_any_servers_the_user_learns_where_to_put_them(tmp_path: Path) -> None:
    said = refused(
        ["transfer", "-topic", "ftransfer_ztf_2026-11-01_1", "-outdir", "out"],
        2,
        "--bootstrap-servers",
        tmp_path,
        env={"HOME": str(tmp_path)},
    )
    assert "FINK_DASK_BOOTSTRAP_SERVERS" in said
    assert "fink-dask register" in said
    assert "ztf_credentials.yml" in said


@pytest.mark.parametrize("command", ["verify", "status"])
def test_a_directory_without_a_ledger_is_one_line(tmp_path: Path, command: str) -> None:
    refused([command, str(tmp_path / "nothing")], 1, str(tmp_path / "nothing"), tmp_path)


def test_a_transfer_that_is_refused_still_gives_a_script_its_json(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    import json

    result = run_cli(*transfer_arguments(kafka, topic_name, tmp_path / "out", "--json"))
    assert result.returncode == 1
    assert json.loads(result.stdout)["state"] == "failed"
    assert topic_name in result.stderr
