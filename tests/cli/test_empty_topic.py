"""A topic that is empty makes no dataset, and every command on what is not there says so, in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.harness.cli import run_cli, transfer_arguments
from tests.harness.topics import create_topic

pytestmark = pytest.mark.usefixtures("shared_dask")


@pytest.fixture(scope="module")
def empty(kafka: Any, topic: str) -> str:
    create_topic(kafka.bootstrap_servers, topic, 2)
    return topic


def test_a_transfer_of_an_empty_topic_is_complete_and_says_that_it_has_written_nothing(
    kafka: Any, empty: str, tmp_path: Path
) -> None:
    result = run_cli(*transfer_arguments(kafka, empty, tmp_path / "alerts"))
    assert result.returncode == 0, result.stderr
    assert all(word in result.stderr for word in (empty, "empty"))
    result = run_cli(*transfer_arguments(kafka, empty, tmp_path / "alerts", "--json"))
    assert json.loads(result.stdout)["alerts"] == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("is_there", [False, True], ids=["no directory", "an empty one"])
@pytest.mark.parametrize(
    "command", ["verify", "status", "report", "quarantine", "repair", "compact", "export-hats", "read"]
)
def test_commands_on_what_was_not_written_say_why_it_may_be(
    command: str, is_there: bool, kafka: Any, tmp_path: Path
) -> None:
    if is_there:
        (tmp_path / "alerts").mkdir()
    more = {
        "compact": ["new"],
        "export-hats": ["new"],
        "repair": ["--bootstrap-servers", kafka.bootstrap_servers],
    }.get(command, [])
    result = run_cli(command, "alerts", *more, cwd=tmp_path)
    assert result.returncode == 1
    assert "empty" in result.stderr
    assert "write" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "report.html").exists()


def test_a_look_into_an_empty_topic_says_that_there_is_nothing_now(kafka: Any, empty: str) -> None:
    result = run_cli("peek", empty, "--bootstrap-servers", kafka.bootstrap_servers)
    assert result.returncode == 1
    assert f"{empty}: " in result.stderr


def test_what_fink_dask_did_not_write_is_still_called_that(tmp_path: Path) -> None:
    (tmp_path / "alerts").mkdir()
    (tmp_path / "alerts" / "mine.parquet").touch()
    result = run_cli("verify", "alerts", cwd=tmp_path)
    assert result.returncode == 1
    assert "write" in result.stderr
