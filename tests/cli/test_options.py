"""Options as Fink's users know them, and where a setting comes from."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pyarrow.parquet as pq
import pytest

from fink_dask.cli.command import FinkCommand
from fink_dask.cli.main import COMMANDS, cli
from fink_dask.errors import SettingsError
from fink_dask.settings import GROUPS, KafkaSettings
from tests.alerts.made_up import AlertKind, avro_schema
from tests.harness.cli import PROGRAM, environment, run_cli
from tests.harness.oracle import Oracle, assert_exactly_once, fill_topic
from tests.harness.topics import name_topic, remove_topics

#: Named here, because settings are spelled with it; another one in each session.
TOPIC = name_topic()


@pytest.fixture(scope="module")
def alerts(kafka: Any) -> Iterator[Oracle]:
    yield fill_topic(kafka.bootstrap_servers, TOPIC, AlertKind.ZTF_LIGHT, 60, partitions=3)
    remove_topics(kafka.bootstrap_servers, TOPIC)


def planned(*options: str, cwd: Path, env: dict[str, str] | None = None) -> dict[str, Any]:
    """Run a dry run; what it plans tells which settings were used."""
    result = run_cli("transfer", *options, "--dry-run", "--json", cwd=cwd, env=env)
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_the_published_command_works_letter_for_letter(kafka: Any, alerts: Any, tmp_path: Path) -> None:
    command = f"transfer -topic {TOPIC} -outdir D -partitionby time -nconsumers 5 -batchsize 1000"
    env = {"FINK_DASK_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "FINK_DASK_DASHBOARD_ADDRESS": "127.0.0.1:0"}
    result = run_cli(*command.split(), cwd=tmp_path, env=env)
    assert result.returncode == 0, result.stderr
    assert_exactly_once(tmp_path / "D", alerts.values)
    assert "complete" in result.stdout
    assert "http://127.0.0.1:" in result.stderr


@pytest.mark.commands
def test_one_dash_two_dashes_dashes_and_underscores_are_the_same(kafka: Any, alerts: Any, tmp_path: Path) -> None:
    servers = kafka.bootstrap_servers
    spellings = [
        ["-topic", TOPIC, "-outdir", "o", "-bootstrap-servers", servers, "-limit", "7", "-nconsumers", "-1"],
        ["--topic", TOPIC, "--outdir", "o", "--bootstrap_servers", servers, "--limit=7", "--nconsumers=-1"],
        ["--topic", TOPIC, "--outdir=o", "--servers", servers, "-limit=7", "-survey", "ztf", "-dump_schemas"],
        ["--topic", TOPIC, "--outdir=o", "--servers", servers, "--limit", "7", "--restart_from_beginning", "--verbose"],
    ]
    assert [planned(*options, cwd=tmp_path)["offsets"] for options in spellings] == [7, 7, 7, 7]
    assert not list(tmp_path.iterdir()), "a dry run wrote something"


def test_topic_and_outdir_can_be_typed_beside_the_options(kafka: Any, alerts: Any, tmp_path: Path) -> None:
    rest = ["--servers", kafka.bootstrap_servers, "-limit", "7"]
    spellings = [
        [TOPIC, "o", *rest],
        [*rest, TOPIC, "o", "-nconsumers", "-1"],
        [TOPIC, *rest, "-outdir", "o"],
        ["-topic", TOPIC, *rest, "o"],
    ]
    assert [planned(*options, cwd=tmp_path)["offsets"] for options in spellings] == [7] * 4
    plain = run_cli("transfer", *rest, "--dry-run", "--json", "--", TOPIC, "o", cwd=tmp_path)
    assert json.loads(plain.stdout)["offsets"] == 7
    job = ("--cluster", "slurm", "--cores", "2", "--memory", "4GB", "--dry-run")
    script = run_cli("submit", TOPIC, "o", *rest, *job, cwd=tmp_path).stdout
    assert f"--topic {TOPIC} --outdir o" in script.replace("'", "")
    env = {"FINK_DASK_TOPIC": "another", "FINK_DASK_OUTDIR": "elsewhere"}
    assert planned(TOPIC, "o", *rest, cwd=tmp_path, env=env)["topic"] == TOPIC
    missing = run_cli("transfer", TOPIC, *rest, cwd=tmp_path)
    assert (missing.returncode, "--outdir" in missing.stderr) == (2, True)


@pytest.mark.parametrize("command", ["peek", "schema", "doctor"])
@pytest.mark.parametrize("spelling", [[], ["--topic"], ["-topic"], ["--topic="]], ids=str)
def test_a_topic_that_is_an_argument_may_be_an_option(
    kafka: Any, alerts: Any, tmp_path: Path, command: str, spelling: list[str]
) -> None:
    typed = [f"{spelling[0]}{TOPIC}"] if spelling == ["--topic="] else [*spelling, TOPIC]
    result = run_cli(command, *typed, "--servers", kafka.bootstrap_servers, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert TOPIC in result.stdout or "partition 0" in result.stdout


def test_arguments_that_are_typed_as_options_take_their_own_places(tmp_path: Path) -> None:
    for typed in (["--newdir", "b", "--outdir", "a"], ["a", "-newdir=b"], ["b", "--outdir", "a"]):
        result = run_cli("compact", *typed, cwd=tmp_path)
        assert (result.returncode, str(tmp_path / "a") in result.stderr) == (1, True), result.stderr
    for typed, words in ((["--newdir", "b"], "OUTDIR"), (["--outdir"], "'--outdir'")):
        result = run_cli("compact", *typed, cwd=tmp_path)
        assert (result.returncode, words in result.stderr) == (2, True), result.stderr


def test_every_command_takes_what_people_type() -> None:
    assert [name for name, command in cli.commands.items() if not isinstance(command, FinkCommand)] == []


def test_the_list_of_commands_which_loads_none_of_them_says_what_they_say_of_themselves() -> None:
    assert {name: command.name for name, command in cli.commands.items()} == {name: name for name in COMMANDS}
    context = click.Context(cli, info_name="fink-dask", terminal_width=100)
    listed = cli.get_help(context).partition("Commands:")[2]
    for name, command in cli.commands.items():
        assert not command.hidden
        assert re.search(rf"^  {name} +{re.escape(command.get_short_help_str())}$", listed, re.MULTILINE), name
    offered = {item.value: item.help for item in cli.shell_complete(context, "")}
    assert offered == {name: command.get_short_help_str() for name, command in cli.commands.items()}


def test_help_and_version_may_have_one_dash(tmp_path: Path) -> None:
    for command in ((), *((name,) for name in cli.commands)):
        assert run_cli(*command, "-help", cwd=tmp_path).stdout == run_cli(*command, "--help", cwd=tmp_path).stdout
    assert run_cli("-version", cwd=tmp_path).stdout == run_cli("--version", cwd=tmp_path).stdout
    before = run_cli("-topic", "T", "-outdir", "o", cwd=tmp_path)
    assert all(words in before.stderr for words in ("-topic", "fink-dask transfer"))


def test_a_flag_goes_before_the_environment_before_the_file_before_the_default(
    kafka: Any, alerts: Any, tmp_path: Path
) -> None:
    (tmp_path / "settings.toml").write_text(
        f'topic = "{TOPIC}"\nbootstrap-servers = "{kafka.bootstrap_servers}"\nlimit = 5\nbatch-size = 1\n'.replace(
            "batch-size", "batchsize"
        )
    )
    base = ["-outdir", "o", "--config", "settings.toml"]
    assert planned(*base, cwd=tmp_path)["offsets"] == 5
    assert planned(*base, cwd=tmp_path, env={"FINK_DASK_LIMIT": "6"})["offsets"] == 6
    assert planned(*base, "--limit", "7", cwd=tmp_path, env={"FINK_DASK_LIMIT": "6"})["offsets"] == 7


@pytest.mark.parametrize(
    ("typed", "env", "file", "seconds", "rate"),
    [
        ((), {}, "", 300, None),
        (("--reconnect-timeout", "10m", "--limit-rate", "40Mbit/s"), {}, "", 600, 5_000_000),
        ((), {"FINK_DASK_RECONNECT_TIMEOUT": "90", "FINK_DASK_LIMIT_RATE": "500k"}, "", 90, 500_000),
        ((), {}, 'reconnect-timeout = "2h"\nlimit_rate = 5000000\n', 7200, 5_000_000),
    ],
    ids=["none", "typed", "environment", "file"],
)
def test_any_transfer_is_told_how_long_to_wait_and_how_fast_to_read(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    typed: tuple[str, ...],
    env: dict[str, str],
    file: str,
    seconds: float,
    rate: int | None,
) -> None:
    found: list[KafkaSettings] = []

    def look(settings: Any, *_: Any, **__: Any) -> Any:
        found.append(settings.kafka)
        raise SettingsError("seen")

    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("fink_dask.planning.preview.preview", look)
    (tmp_path / "settings.toml").write_text(file)
    base = ["transfer", "--topic", TOPIC, "--outdir", str(tmp_path / "o"), "--servers", "127.0.0.1:1", "--dry-run"]
    with pytest.raises(SettingsError, match="seen"):
        cli.main([*base, "--config", str(tmp_path / "settings.toml"), *typed], standalone_mode=False)
    assert [(each.reconnect_timeout_s, each.limit_rate) for each in found] == [(seconds, rate)]


@pytest.mark.parametrize("command", ["transfer", "submit", "repair", "verify", "peek"])
@pytest.mark.parametrize("mistake", [("--limit-rate", "fast"), ("--limit-rate", "5"), ("--reconnect-timeout", "soon")])
def test_what_is_no_rate_or_no_time_is_refused_in_a_line(
    tmp_path: Path, command: str, mistake: tuple[str, str]
) -> None:
    place = ["--topic", TOPIC, "--outdir", "o"] if command in {"transfer", "submit"} else ["o"]
    result = run_cli(command, *place, *mistake, "--servers", "127.0.0.1:1", cwd=tmp_path)
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert mistake[0] in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.commands
def test_topics_come_from_a_file_or_the_environment_too(kafka: Any, alerts: Any, tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    base = ["transfer", "-outdir", "o", "--servers", kafka.bootstrap_servers, "--dry-run", "--json"]
    two = f"{TOPIC[:-1]}? {TOPIC}"
    for content, env in (
        (f"topic = {two.split()}", {}),
        (f'topic = "{TOPIC[:-1]}[{TOPIC[-1]}]"', {}),
        ("", {"FINK_DASK_TOPIC": two}),
    ):
        settings.write_text(content)
        result = run_cli(*base, "--config", "settings.toml", cwd=tmp_path, env=env)
        assert result.returncode == 0, result.stderr
        assert [(each["topic"], each["offsets"]) for each in json.loads(result.stdout)["topics"]] == [(TOPIC, 60)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("nconsumer = 3\n", "'nconsumer' nconsumers"),
        ("sampel = 3\n", "'sampel' sample"),
        ('limit_rate = "fast"\n', "limit_rate 'fast'"),
        ('partitionby = ["a"]\n', "partitionby single"),
        ('topic = ["a", 1]\n', "topic list"),
        ("restart = true\n", "restart typed"),
        ("topic = \n", "TOML"),
        ('limit = "many"\n', "limit number"),
    ],
)
def test_a_settings_file_with_a_mistake_is_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "settings.toml").write_text(content)
    options = ["--config", "settings.toml", "-topic", TOPIC, "-outdir", "o", "--servers", "127.0.0.1:1"]
    result = run_cli("transfer", *options, cwd=tmp_path)
    assert result.returncode == 2
    assert all(word in result.stderr for word in ("settings.toml", *words.split())), result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_commands_share_a_settings_file(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text('topic = "t"\noutdir = "o"\nlimit = 5\non-loss = "continue"\nsample = 7\n')
    for command in ("verify", "repair"):
        result = run_cli(command, "nothing", "--config", "settings.toml", cwd=tmp_path)
        assert (result.returncode, "ledger" in result.stderr) == (1, True), result.stderr


def test_an_error_names_a_variable_of_the_environment_as_it_is_there(tmp_path: Path) -> None:
    command = ["transfer", "-topic", "ftransfer_ztf_2026-11-01_1", "-outdir", "o", "--servers", "127.0.0.1:1"]
    result = run_cli(*command, cwd=tmp_path, env={"FINK_DASK_LIMIT_RATE": "fast"})
    assert result.returncode == 2
    assert "FINK_DASK_LIMIT_RATE 'fast'" in result.stderr


def test_help_has_the_options_of_a_transfer_in_groups_in_their_order(tmp_path: Path) -> None:
    for command in ("transfer", "submit"):
        text = run_cli(command, "--help", cwd=tmp_path).stdout
        places = [text.index(f"\n{group}:\n") for group in GROUPS]
        assert places == sorted(places)


@pytest.mark.parametrize("name", ["ztf_credentials.yml", pytest.param("credentials.yml", marks=pytest.mark.commands)])
def test_servers_come_from_the_credentials_that_todays_client_has_written(
    kafka: Any, alerts: Any, tmp_path: Path, name: str
) -> None:
    (tmp_path / ".finkclient").mkdir()
    (tmp_path / ".finkclient" / name).write_text(
        f"username: someone\npassword: null\ngroup_id: g\nservers: {kafka.bootstrap_servers}\nmaxtimeout: 10\n"
    )
    found = planned("-topic", TOPIC, "-outdir", "o", cwd=tmp_path, env={"HOME": str(tmp_path)})
    assert found["offsets"] == 60


def test_options_of_todays_client_that_decide_nothing_here_are_taken_with_a_word(
    kafka: Any, alerts: Any, tmp_path: Path
) -> None:
    options = ["-topic", TOPIC, "-outdir", "o", "--servers", kafka.bootstrap_servers, "--dry-run"]
    former = ["-outformat", "parquet", "-maxtimeout", "5", "-number_partitions", "10"]
    result = run_cli("transfer", *options, *former, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "--maxtimeout" in result.stderr
    assert "--number-partitions" in result.stderr


@pytest.mark.commands
def test_nothing_in_the_environment_can_restart_a_transfer(kafka: Any, alerts: Any, tmp_path: Path) -> None:
    options = ["-topic", TOPIC, "-outdir", "o", "--servers", kafka.bootstrap_servers]
    env = {"FINK_DASK_RESTART": "1", "FINK_DASK_YES": "1", "FINK_DASK_DASHBOARD_ADDRESS": "127.0.0.1:0"}
    result = run_cli("transfer", *options, "-limit", "5", cwd=tmp_path, env=env)
    assert result.returncode == 2
    assert "FINK_DASK_RESTART" in result.stderr
    assert not list(tmp_path.iterdir())


def test_dumped_schemas_are_those_of_the_topic(kafka: Any, alerts: Any, dask_scheduler: str, tmp_path: Path) -> None:
    options = ["-topic", TOPIC, "-outdir", "o", "--servers", kafka.bootstrap_servers, "--dump_schemas", "-limit", "1"]
    result = run_cli("transfer", *options, "--scheduler", dask_scheduler, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    avro = json.loads((tmp_path / f"avro_schema_{TOPIC}.json").read_text())
    assert [field["name"] for field in avro["fields"]] == [
        field["name"] for field in avro_schema(AlertKind.ZTF_LIGHT)["fields"]
    ]
    arrow = pq.read_schema(tmp_path / f"arrow_schema_{TOPIC}.metadata")
    (file,) = (tmp_path / "o").rglob("*.parquet")
    assert pq.read_schema(file).names == [*arrow.names, "kafka_partition", "kafka_offset"]


def test_help_names_each_option_once_and_ends_with_an_example(tmp_path: Path) -> None:
    for command in cli.commands:
        text = run_cli(command, "--help", cwd=tmp_path).stdout
        assert f"Example: fink-dask {command}" in " ".join(text.split())
        assert " -topic" not in text
        assert "Traceback" not in text


@pytest.mark.parametrize("name", ["", *cli.commands])
def test_an_example_can_be_copied_and_no_line_of_help_is_cut_on_a_terminal_of_80_columns(name: str) -> None:
    command = cli.commands[name] if name else cli
    shown = command.get_help(click.Context(command, info_name=f"fink-dask {name}".strip(), terminal_width=80))
    assert "..." not in shown.partition("Commands:")[2]
    assert max(map(len, shown.splitlines())) <= 80
    first, *_ = shown.partition("Example: ")[2].replace("\\\n", "").split(", ")
    assert shlex.split(first)[0] == "fink-dask"
    assert "\n" not in first.strip(), "a line that is not gone on with"


def test_output_that_is_no_terminal_has_no_colours_and_no_bar(
    kafka: Any, alerts: Any, dask_scheduler: str, tmp_path: Path
) -> None:
    options = ["-topic", TOPIC, "-outdir", "o", "--servers", kafka.bootstrap_servers]
    result = run_cli("transfer", *options, "--scheduler", dask_scheduler, cwd=tmp_path)
    assert result.returncode == 0
    assert "\x1b" not in result.stdout + result.stderr


def on_a_terminal(options: list[str], cwd: Path, **env: str) -> str:
    """Run a transfer on a terminal; return what it has written there."""
    leader, follower = os.openpty()
    process = subprocess.Popen(
        [*PROGRAM, "transfer", *options, "--dashboard-address", "127.0.0.1:0"],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        cwd=cwd,
        env=environment(env),
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            chunk = os.read(leader, 4096)
        except OSError:
            break
        if not chunk:
            break
        shown += chunk
    os.close(leader)
    assert process.wait(timeout=300) == 0
    return shown.decode()


@pytest.mark.parametrize("compiles", [False, pytest.param(True, marks=pytest.mark.commands)])
def test_a_dumb_terminal_gets_no_colours_and_no_movements_of_the_cursor(
    kafka: Any, alerts: Any, tmp_path: Path, compiles: bool
) -> None:
    options = ["-topic", TOPIC, "-outdir", "o", "--servers", kafka.bootstrap_servers]
    env = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")} if compiles else {}
    text = on_a_terminal(options, tmp_path, TERM="dumb", **env)
    assert "complete" in text
    assert "\x1b" not in text


def test_a_terminal_shows_a_bar_with_alerts_and_speed_and_is_left_clean(
    kafka: Any, alerts: Any, tmp_path: Path
) -> None:
    options = ["-topic", TOPIC, "-outdir", "o", "--servers", kafka.bootstrap_servers]
    text = on_a_terminal(options, tmp_path, TERM="xterm-256color", COLUMNS="160")
    assert "alerts/s" in text
    assert "received" in text
    assert "alerts committed" in text
    assert "━" in text
    assert "\x1b[?25h" in text, "the cursor was not given back"
    assert "complete" in text


def test_a_value_that_was_not_typed_is_named_by_the_variable_or_the_file_that_it_is_from(tmp_path: Path) -> None:
    typed = ("transfer", "-topic", TOPIC, "-outdir", "o", "--servers", "127.0.0.1:1")
    found = run_cli(*typed, cwd=tmp_path, env={"FINK_DASK_ON_LOSS": "maybe"})
    assert found.returncode == 2
    assert all(name in found.stderr for name in ("--on-loss", "FINK_DASK_ON_LOSS"))
    (tmp_path / "settings.toml").write_text('on-loss = "maybe"')
    found = run_cli(*typed, "--config", "settings.toml", cwd=tmp_path)
    assert found.returncode == 2
    assert all(option in found.stderr for option in ("--on-loss", "--config"))
    found = run_cli(*typed, "--config", "settings.toml", "--on-loss", "maybe", cwd=tmp_path)
    assert "--on-loss" in found.stderr
    assert "--config" not in found.stderr
