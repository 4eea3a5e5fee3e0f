"""What is wrong is found before a transfer finds it, and each finding says what to type."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from fink_dask.doctor.machine import check_place
from tests.alerts.made_up import AlertKind
from tests.harness.cli import PROGRAM, environment, run_cli, transfer_arguments
from tests.harness.kafka_settings import free_ports
from tests.harness.oracle import fill_topic
from tests.harness.secure import PASSWORD, USER, SecureKafka
from tests.harness.topics import client_config, create_topic

MACHINE = ["versions", "compiler", "cores", "memory"]
DAY_MS = 86_400_000
#: For topics that take any timestamp, as those of older brokers do.
ANY_TIME = {"message.timestamp.after.max.ms": str(2**62)}


@pytest.fixture(scope="module")
def alerts(kafka: Any, topic: str) -> str:
    fill_topic(kafka.bootstrap_servers, topic, AlertKind.ZTF_LIGHT, 100, partitions=2)
    return topic


def doctor(
    *arguments: str, code: int = 0, home: Path | None = None, impatient: bool = False, **env: str
) -> dict[str, dict[str, Any]]:
    """Run the command; returns what it found, by the name of what it looked at."""
    result = run_cli("doctor", *arguments, "--json", env={"HOME": str(home or "/nowhere"), **env}, impatient=impatient)
    assert result.returncode == code, result.stdout + result.stderr
    assert PASSWORD not in result.stdout + result.stderr
    said = json.loads(result.stdout)
    assert said["failed"] == bool(code)
    for check in said["checks"]:
        assert check["found"].isprintable()
        assert bool(check["advice"]) == (check["state"] != "ok"), check
    return {check["name"]: check for check in said["checks"]}


def states(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: check["state"] for name, check in found.items() if check["state"] != "ok"}


def test_where_nothing_is_wrong_every_line_is_ok_and_nothing_is_left_behind(
    kafka: Any, alerts: str, tmp_path: Path
) -> None:
    arguments = [alerts, "--outdir", str(tmp_path / "out"), "--bootstrap-servers", kafka.bootstrap_servers]
    found = doctor(*arguments)
    assert list(found) == [*MACHINE, "credentials", "broker", "topic", "clock", "line", "storage", "disk"]
    assert states(found) == {}
    assert "100 alerts" in found["topic"]["found"]
    assert found["line"]["round_trip_s"] > 0
    assert "line_bytes_per_s" in found["line"]
    assert found["disk"]["seconds"] > 0
    assert found["disk"]["bound_by"] in {None, "cores", "line"}
    assert "librdkafka" in found["versions"]["found"]
    assert list(tmp_path.iterdir()) == []
    shown = run_cli("doctor", *arguments)
    assert shown.returncode == 0
    assert [line.split()[:2] for line in shown.stdout.splitlines()] == [["ok", name] for name in found]


def test_a_dataset_that_is_begun_is_looked_at_as_it_is(kafka: Any, alerts: str, tmp_path: Path) -> None:
    options = ["--partitionby", "time", "--columns", "candid,jd", "--limit", "30"]
    ended = run_cli(*transfer_arguments(kafka, alerts, tmp_path / "out", *options))
    assert ended.returncode == 0, ended.stderr
    found = doctor(alerts, "--outdir", str(tmp_path / "out"), "--bootstrap-servers", kafka.bootstrap_servers)
    assert states(found) == {}
    assert "wire_bytes" in found["disk"]


def test_a_broker_that_is_not_there_fails_and_all_else_is_looked_at(tmp_path: Path) -> None:
    nowhere = f"127.0.0.1:{free_ports(1)[0]}"
    found = doctor("--outdir", str(tmp_path / "out"), "--servers", nowhere, code=1, impatient=True)
    assert list(found) == [*MACHINE, "credentials", "broker", "storage", "disk"]
    assert states(found) == {"broker": "fail"}
    assert nowhere in found["broker"]["found"]


def test_without_servers_it_says_how_to_register(tmp_path: Path) -> None:
    found = doctor("--survey", "lsst", code=1)
    assert states(found) == {"credentials": "warn", "broker": "fail"}
    assert found["broker"]["advice"] == "fink-dask register --survey lsst"


@pytest.mark.parametrize("text", ["username: ada\npassword: p\n", "maxtimeout: 10\n"])
def test_a_credentials_file_without_the_servers_that_are_missing_is_not_ok(tmp_path: Path, text: str) -> None:
    (tmp_path / ".finkclient").mkdir()
    file = tmp_path / ".finkclient" / "ztf_credentials.yml"
    file.write_text(text)
    file.chmod(0o600)
    found = doctor("--survey", "ztf", home=tmp_path, code=1)
    assert states(found) == {"credentials": "warn", "broker": "fail"}
    assert found["credentials"]["found"].startswith(str(file))
    assert "servers" in found["credentials"]["found"]
    assert found["credentials"]["advice"] == "fink-dask register --survey ztf --bootstrap-servers HOST:PORT"


def test_who_is_registered_for_both_surveys_is_asked_which_and_not_told_to_register(tmp_path: Path) -> None:
    (tmp_path / ".finkclient").mkdir()
    for survey in ("ztf", "lsst"):
        (tmp_path / ".finkclient" / f"{survey}_credentials.yml").write_text(f"servers: {survey}.invalid:1\n")
    found = doctor(home=tmp_path, code=1)
    assert states(found) == {"credentials": "warn", "broker": "fail"}
    assert found["credentials"]["advice"] == found["broker"]["advice"]
    listed = run_cli("topics", env={"HOME": str(tmp_path)})
    assert listed.returncode == 2
    for advice in (found["broker"]["advice"], listed.stderr):
        assert all(words in advice for words in ("--survey ztf", "--survey lsst"))
        assert "register" not in advice


def test_the_password_is_tried_and_a_wrong_one_fails(secure: SecureKafka) -> None:
    arguments = [
        "--servers",
        secure.broker.address("SASL"),
        "--security-protocol",
        "SASL_PLAINTEXT",
        "--username",
        USER,
    ]
    found = doctor(*arguments, FINK_DASK_PASSWORD=PASSWORD)
    assert USER in found["broker"]["found"]
    wrong = doctor(*arguments, code=1, FINK_DASK_PASSWORD="wrong")
    assert "credentials" in wrong["broker"]["found"]
    assert all(option in wrong["broker"]["advice"] for option in ("--username", "--password-file"))
    unasked = doctor("--servers", secure.broker.address("SASL"), code=1)
    assert "--security-protocol" in unasked["broker"]["advice"]


@pytest.mark.parametrize(
    ("text", "mode", "state", "advice"),
    [
        (f"servers: {{}}\npassword: {PASSWORD}\n", 0o600, "ok", ""),
        (f"servers: {{}}\npassword: {PASSWORD}\n", 0o644, "warn", "chmod 600 "),
        ("servers: {}\n", 0o644, "ok", ""),
        (f"password: {PASSWORD}\n[", 0o600, "fail", "fink-dask register --survey ztf"),
    ],
)
def test_a_credentials_file_is_found_and_its_faults_are_said(
    kafka: Any, tmp_path: Path, text: str, mode: int, state: str, advice: str
) -> None:
    (tmp_path / ".finkclient").mkdir()
    file = tmp_path / ".finkclient" / "ztf_credentials.yml"
    file.write_text(text.replace("{}", kafka.bootstrap_servers))
    file.chmod(mode)
    found = doctor("--survey", "ztf", home=tmp_path, code=int(state == "fail"))["credentials"]
    assert found["state"] == state
    assert advice in found["advice"]
    assert str(file) in found["found"]


def test_a_topic_that_is_none_or_goes_soon_is_said(kafka: Any, topic_name: str, tmp_path: Path) -> None:
    servers = ["--bootstrap-servers", kafka.bootstrap_servers]
    missing = doctor(topic_name, "--outdir", str(tmp_path / "out"), *servers, code=1)
    assert states(missing) == {"topic": "fail"}
    assert topic_name in missing["disk"]["found"]
    create_topic(kafka.bootstrap_servers, topic_name, 1, {"retention.ms": str(2 * DAY_MS)})
    assert states(doctor(topic_name, *servers)) == {"topic": "warn"}, "it is empty"
    writer = Producer(client_config(kafka.bootstrap_servers))
    writer.produce(topic_name, b"x", timestamp=int(time.time() * 1000) - int(1.5 * DAY_MS))
    writer.flush(30)
    going = doctor(topic_name, *servers)
    assert states(going) == {"topic": "warn"}
    assert all(amount in going["topic"]["found"] for amount in ("1 alert", "11 h"))
    assert "transfer" in going["topic"]["advice"]


def test_a_clock_behind_kafkas_is_said(kafka: Any, topic_name: str) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, 3, ANY_TIME)
    writer = Producer(client_config(kafka.bootstrap_servers))
    now_ms = int(time.time() * 1000)
    # One of them lies far ahead, and says nothing of how slow the clock is.
    for partition, ahead_ms in enumerate((700_000, 700_000, 75 * 365 * DAY_MS)):
        writer.produce(topic_name, b"x", partition=partition, timestamp=now_ms + ahead_ms)
    writer.flush(30)
    found = doctor(topic_name, "--bootstrap-servers", kafka.bootstrap_servers)
    assert states(found) == {"clock": "warn"}
    assert re.search(r"\b3 of .*\b6\d\d s\b", found["clock"]["found"])


def test_one_wrong_timestamp_is_said_and_no_reason_to_doubt_the_clock(kafka: Any, alerts: str, topic_name: str) -> None:
    create_topic(kafka.bootstrap_servers, topic_name, 1, ANY_TIME)
    writer = Producer(client_config(kafka.bootstrap_servers))
    writer.produce(topic_name, b"x", timestamp=int(time.time() * 1000) + 75 * 365 * DAY_MS)
    writer.flush(30)
    for topic in (topic_name, alerts):
        found = doctor(topic, "--bootstrap-servers", kafka.bootstrap_servers)
        assert states(found) == {}
        assert topic_name in found["clock"]["found"]
        assert "timestamp" in found["clock"]["found"]


def test_amounts_are_in_the_units_of_a_transfer(kafka: Any, alerts: str, tmp_path: Path) -> None:
    found = doctor(alerts, "--outdir", str(tmp_path / "out"), "--bootstrap-servers", kafka.bootstrap_servers)
    for name in ("memory", "disk"):
        assert not re.search(r"\d [KMGT]iB", found[name]["found"])
        assert re.search(r"\d [kMGT]B ", found[name]["found"])


def test_a_library_that_does_not_load_is_said_and_the_rest_is_looked_at(
    kafka: Any, alerts: str, tmp_path: Path
) -> None:
    (tmp_path / "numba").mkdir()
    (tmp_path / "numba" / "__init__.py").write_text('raise ImportError("Numba needs NumPy 2.2 or less")')
    arguments = [alerts, "--outdir", str(tmp_path / "out"), "--bootstrap-servers", kafka.bootstrap_servers]
    found = doctor(*arguments, code=1, PYTHONPATH=str(tmp_path))
    assert states(found) == {"compiler": "fail"}
    assert "Numba needs NumPy 2.2 or less" in found["compiler"]["found"]
    assert found["compiler"]["advice"].startswith("pip install")
    assert list(found)[-2:] == ["storage", "disk"]


@pytest.mark.parametrize("outdir", ["/proc/out", "file/out"])
def test_a_place_that_can_not_hold_a_dataset_fails(kafka: Any, tmp_path: Path, outdir: str) -> None:
    (tmp_path / "file").touch()
    found = doctor("--outdir", str(tmp_path / outdir), "--bootstrap-servers", kafka.bootstrap_servers, code=1)
    assert states(found) == {"storage": "fail"}


def test_a_file_system_without_hard_links_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, os.strerror(1))

    monkeypatch.setattr(os, "link", refuse)
    (found,) = check_place(tmp_path / "out")
    assert found.state == "fail"
    assert "links" in found.found
    assert list(tmp_path.iterdir()) == []


def test_a_file_servers_clock_that_differs_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 100)
    storage, clock = check_place(tmp_path / "out")
    assert (storage.state, clock.state) == ("ok", "warn")
    assert "100 s" in clock.found


def test_a_disk_that_is_too_small_for_the_topic_fails(kafka: Any, alerts: str, tmp_path: Path) -> None:
    script = 'disk=$1; shift; mount -t tmpfs -o size=24k none "$disk" && exec "$@"'
    arguments = [alerts, "--outdir", str(tmp_path / "out"), "--bootstrap-servers", kafka.bootstrap_servers, "--json"]
    ended = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", str(tmp_path), *PROGRAM, "doctor", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment({"HOME": "/nowhere"}),
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    failed = {check["name"]: check for check in json.loads(ended.stdout)["checks"] if check["state"] == "fail"}
    assert list(failed) == ["disk"]
    assert "wire_bytes" in failed["disk"]
    assert "--limit" in failed["disk"]["advice"]


def test_a_store_is_tried_with_what_commits_need_of_it(store_url: str, kafka: Any, alerts: str) -> None:
    servers = ["--bootstrap-servers", kafka.bootstrap_servers]
    found = doctor(alerts, "--outdir", store_url, *servers, home=Path.home())
    assert states(found) == {}
    assert "replacing" in found["storage"]["found"]


@pytest.mark.parametrize("arguments", [["a b"], ["fink_ai_1"], ["--outdir", "http://x"]])
def test_what_can_be_none_is_a_usage_error_in_one_line(arguments: list[str]) -> None:
    result = run_cli("doctor", *arguments)
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
