"""A page or metrics that fail cost a transfer a warning, and nothing else."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from fink_dask.cluster.choice import ClusterChoice
from fink_dask.dashboard import plugin, reporter
from fink_dask.dashboard.reporter import Reports
from fink_dask.progress.events import Event, Note
from fink_dask.progress.tally import Progress
from fink_dask.running.run import run_transfer
from fink_dask.settings import KafkaSettings, TransferSettings
from tests.alerts.made_up import AlertKind
from tests.harness.cli import run_cli, transfer_arguments
from tests.harness.dask import running_scheduler
from tests.harness.oracle import assert_exactly_once, fill_topic
from tests.harness.producer import produce

pytestmark = pytest.mark.browser

LIGHT = AlertKind.ZTF_LIGHT


def fails(*_: Any, **__: Any) -> None:
    raise ValueError("what nobody expected\nin two lines")


async def fails_later(*_: Any, **__: Any) -> None:
    fails()


async def hangs(*_: Any, **__: Any) -> None:
    await asyncio.sleep(3600)


@pytest.mark.parametrize(
    ("owner", "name", "broken", "words"),
    [
        (plugin.TransferBoardPlugin, "start", fails_later, "metrics"),
        (plugin.TransferBoardPlugin, "take", fails_later, "metrics"),
        (plugin, "add_page", fails, "no page"),
        (Reports, "make", fails, "metrics"),
    ],
    ids=["registered", "reported", "page", "report"],
)
def test_what_fails_is_said_in_one_line_and_the_transfer_is_complete(
    kafka: Any,
    topic_name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    broken: Callable[..., Any],
    words: str,
) -> None:
    monkeypatch.setattr(owner, name, broken)
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 2000, partitions=4)
    events = transfer(kafka, topic_name, tmp_path / "alerts")
    (warning,) = [event for event in events if isinstance(event, Note) and event.warning]
    assert words in warning.text
    assert "ValueError" in warning.text
    assert "\n" not in warning.text
    assert "continues" in warning.text
    assert_exactly_once(tmp_path / "alerts", oracle.values)


@pytest.mark.parametrize("name", ["start", "take"])
def test_a_scheduler_that_does_not_answer_holds_nothing_up(
    kafka: Any, topic_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(plugin.TransferBoardPlugin, name, hangs)
    monkeypatch.setattr(reporter, "_END_S", 0.2)
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 500, partitions=2)
    events = transfer(kafka, topic_name, tmp_path / "alerts")
    assert [event for event in events if isinstance(event, Note) and event.warning] == []
    assert_exactly_once(tmp_path / "alerts", oracle.values)


def transfer(kafka: Any, topic: str, outdir: Path) -> list[Event]:
    """Transfer a topic in this process."""
    events: list[Event] = []
    settings = TransferSettings(topic, outdir, KafkaSettings(kafka.bootstrap_servers), nconsumers=2)
    outcome = run_transfer(settings, Progress(events.append), ClusterChoice(dashboard_address="127.0.0.1:0"))
    assert outcome.summary.state == "complete"
    return events


@pytest.mark.sample
def test_a_port_that_is_taken_moves_the_page_to_another_one(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 500, partitions=2)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        arguments = transfer_arguments(kafka, topic_name, tmp_path / "alerts")
        result = run_cli(*arguments, "--dashboard-address", f"127.0.0.1:{port}")
    assert result.returncode == 0, result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Dask dashboard: ")]
    assert line.endswith("/fink")
    assert str(port) not in line
    assert "warning" not in result.stderr
    assert_exactly_once(tmp_path / "alerts", oracle.values)


def test_a_scheduler_that_serves_no_dashboard_is_one_warning(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 500, partitions=2)
    with running_scheduler(options=("--no-dashboard",)) as (address, _):
        result = run_cli(*transfer_arguments(kafka, topic_name, tmp_path / "alerts", "--scheduler", address))
    assert result.returncode == 0, result.stderr
    (warning,) = [line for line in result.stderr.splitlines() if "warning" in line]
    assert "no page /fink" in warning
    assert_exactly_once(tmp_path / "alerts", oracle.values)


def test_a_transfer_of_which_a_range_failed_is_not_said_to_be_all_committed(
    kafka: Any, topic_name: str, tmp_path: Path
) -> None:
    fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 100, partitions=1)
    produce(kafka.bootstrap_servers, topic_name, [b"no alert"])
    arguments = transfer_arguments(kafka, topic_name, tmp_path / "alerts", "--on-bad-record", "fail")
    with running_scheduler() as (address, _), Client(address) as client:
        result = run_cli(*arguments, "--scheduler", address)
        assert result.returncode == 1, result.stderr
        (report,) = client.run_on_scheduler(
            lambda dask_scheduler: [each.report for each in dask_scheduler.extensions["fink_dask"].transfers.values()]
        )
    assert report.state == "failed"
    assert "decoded" in report.words


def test_a_scheduler_without_bokeh_and_prometheus_is_one_warning(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    python = environment_without(tmp_path / "without", {"bokeh", "prometheus_client"})
    oracle = fill_topic(kafka.bootstrap_servers, topic_name, LIGHT, 500, partitions=2)
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with running_scheduler(python, env=clean) as (address, _):
        result = run_cli(*transfer_arguments(kafka, topic_name, tmp_path / "alerts", "--scheduler", address))
    assert result.returncode == 0, result.stderr
    (warning,) = [line for line in result.stderr.splitlines() if "warning" in line]
    assert "/metrics" in warning
    assert "prometheus_client" in warning
    assert_exactly_once(tmp_path / "alerts", oracle.values)


def environment_without(folder: Path, packages: set[str]) -> str:
    """Make an environment that has what this one has, less some packages; returns its Python."""
    venv.create(folder, with_pip=False)
    site = next((folder / "lib").glob("python*/site-packages"))
    for entry in (Path(sys.prefix) / "lib" / site.parent.name / "site-packages").iterdir():
        if not any(entry.name.startswith(package) for package in packages):
            (site / entry.name).symlink_to(entry)
    return str(folder / "bin" / "python")
