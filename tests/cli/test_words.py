"""What is refused is called by its own name, and JSON is there on every way out."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from fink_dask.cli.command import FinkCommand, FinkOption
from fink_dask.cli.main import cli
from fink_dask.errors import variable
from tests.harness.cli import run_cli

TOPIC = ("--topic", "ftransfer_ztf_2026-11-22_1", "--outdir", "out")


@pytest.mark.parametrize(
    ("servers", "words"),
    [
        ("http://kafka.example:9092", "page"),
        ("https://kafka.example", "page"),
        ("kafka.example:106634", "65535"),
        ("kafka.example:0", "65535"),
        ("kafka.example:41092x", "HOST:PORT"),
        ("a:1,b c:2", "'b c:2'"),
        ("a:1;b:2", "HOST:PORT"),
    ],
)
def test_servers_that_are_none_are_refused_with_the_one_that_is_wrong(servers: str, words: str, tmp_path: Path) -> None:
    done = run_cli("transfer", *TOPIC, "--servers", servers, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert "--bootstrap-servers" in done.stderr


def _typed_options() -> list[tuple[str, str]]:
    found = []
    for name, command in cli.commands.items():
        assert isinstance(command, FinkCommand)
        found += [(name, each.given_name) for each in command.params if isinstance(each, FinkOption) and each.is_typed]
    return found


@pytest.mark.parametrize(("command", "option"), _typed_options())
def test_a_variable_of_an_option_that_must_be_typed_is_refused_and_never_ignored(
    command: str, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = cli.commands[command]
    assert isinstance(checked, FinkCommand)
    ctx = click.Context(checked)
    for value in ("0", "", "false"):
        monkeypatch.setenv(variable(option), value)
        checked._check_variables(ctx)
    monkeypatch.setenv(variable(option), "1")
    with pytest.raises(click.UsageError, match=f"{variable(option)} .* --{option.replace('_', '-')}"):
        checked._check_variables(ctx)
    # What is typed counts: FINK_DASK_WHERE is there for transfers, and an export has its own.
    (name,) = [each.name for each in checked.params if getattr(each, "given_name", "") == option]
    ctx.set_parameter_source(str(name), click.core.ParameterSource.COMMANDLINE)
    checked._check_variables(ctx)


def test_every_option_has_a_variable_or_must_be_typed() -> None:
    for command in cli.commands.values():
        for each in command.params:
            if isinstance(each, FinkOption):
                assert (each.envvar is None) == each.is_typed


def test_a_variable_of_a_repeatable_option_has_a_value_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINK_DASK_JOB_EXTRA", "-C fast\n--qos high")
    monkeypatch.setenv("FINK_DASK_CLUSTER_OPTION", 'scheduler_options={"port": 8786}')
    monkeypatch.setenv("FINK_DASK_TOPIC", "a b")
    found = {}
    for each in cli.commands["transfer"].params:
        if each.name in {"job_extra", "options", "topics"}:
            context = click.Context(cli.commands["transfer"])
            found[each.name] = each.value_from_envvar(context)
    assert list(found["job_extra"]) == ["-C fast", "--qos high"]
    assert list(found["options"]) == ['scheduler_options={"port": 8786}']
    assert list(found["topics"]) == ["a", "b"]


FAILURES = [
    ("transfer", *TOPIC, "--json"),
    ("transfer", *TOPIC, "--json", "--servers", "http://x"),
    ("transfer", *TOPIC, "--json", "--servers", "127.0.0.1:1", "--reconnect-timeout", "1s"),
    ("transfer", *TOPIC, "--json", "--batchsize", "0"),
    ("transfer", *TOPIC, "--json", "--no-such-option"),
    ("transfer", "--json"),
    ("status", "nowhere", "--json"),
    ("verify", "nowhere", "--json"),
    ("repair", "nowhere", "--json"),
    ("quarantine", "nowhere", "--json"),
    ("compact", "nowhere", "there", "--json"),
    ("compact", "nowhere", "there", "--unique", "candid", "--json"),
    ("lightcurve", "nowhere", "ZTF18aa", "--json"),
    ("cutouts", "nowhere", "--object", "ZTF18aa", "-o", "there", "--json"),
    ("export", "nowhere", "there.csv", "--json"),
    ("export-hats", "nowhere", "there", "--json"),
    ("season", "nowhere", "--json"),
    ("hand-over", "nowhere", "--json"),
    ("read", "nowhere", "--json"),
    ("report", "nowhere", "--json"),
    ("topics", "--json", "--servers", "127.0.0.1"),
    ("peek", "x", "--json", "--servers", "a:0"),
    ("schema", "x", "--format", "json", "--servers", "a:0"),
]


@pytest.mark.parametrize("typed", FAILURES, ids=" ".join)
def test_a_failure_is_one_object_with_state_error_and_command(typed: tuple[str, ...], tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path)}
    done = run_cli(*typed, cwd=tmp_path, env=env, impatient=True)
    assert done.returncode in {1, 2}
    found = json.loads(done.stdout)
    assert found["state"] == "failed"
    assert found["command"] == typed[0]
    assert found["error"] in done.stderr.replace("\n", " ")


def test_json_of_a_file_or_a_variable_is_json_too(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("json = true\n")
    typed = ("transfer", *TOPIC, "--servers", "http://x")
    for more, env in ((("--config", "settings.toml"), {}), ((), {"FINK_DASK_JSON": "1"})):
        done = run_cli(*typed, *more, cwd=tmp_path, env=env)
        assert json.loads(done.stdout)["state"] == "failed"
    assert run_cli(*typed, cwd=tmp_path).stdout == ""
