"""Credentials are written as today's client reads them, whole or not at all, for their owner alone, and never shown."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml

from fink_dask.errors import SettingsError
from fink_dask.kafka.credentials import Registration, read_credentials, write_credentials
from tests.harness.cli import PROGRAM, environment, run_cli
from tests.harness.kafka_settings import free_ports
from tests.harness.oracle import wait_for
from tests.harness.secure import PASSWORD, USER, SecureKafka

ADA = ["--survey", "ztf", "--username", USER, "--group-id", "ada-1", "--servers", "kafka.example.org:9092"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / ".finkclient" / "ztf_credentials.yml"


def register(file: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    result = run_cli("register", *arguments, env={"HOME": str(file.parent.parent), **env})
    assert PASSWORD not in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_what_is_written_is_what_todays_client_reads(file: Path) -> None:
    result = register(file, *ADA, FINK_DASK_PASSWORD=PASSWORD)
    assert result.returncode == 0, result.stderr
    assert yaml.safe_load(file.read_text()) == {
        "survey": "ztf",
        "username": USER,
        "password": PASSWORD,
        "groupid": "ada-1",
        "servers": "kafka.example.org:9092",
        "maxtimeout": 10,
    }
    assert (mode(file), mode(file.parent)) == (0o600, 0o700)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_without_a_password_none_is_written_and_nobody_is_asked(file: Path) -> None:
    assert register(file, *ADA).returncode == 0
    assert yaml.safe_load(file.read_text())["password"] is None


def test_a_file_that_is_there_is_kept_as_it_was_unless_forced(file: Path, tmp_path: Path) -> None:
    file.parent.mkdir()
    before = "group_id: old\nservers: [a:1, b:2]\nusername: bob\npassword: p\ntopics:\n  mine: {slack: {token: t}}\n"
    file.write_text(before)
    refused = register(file, *ADA)
    assert refused.returncode == 2
    assert all(words in refused.stderr for words in (str(file), "--force"))
    assert file.read_text() == before
    forced = register(file, "--survey", "ztf", "--group-id", "new", "--force")
    assert forced.returncode == 0, forced.stderr
    assert yaml.safe_load(file.read_text()) == {
        "group_id": "new",
        "servers": ["a:1", "b:2"],
        "username": "bob",
        "password": "p",
        "topics": {"mine": {"slack": {"token": "t"}}},
        "survey": "ztf",
        "groupid": "new",
        "maxtimeout": 10,
    }
    assert mode(file) == 0o600, "it was open to others before"


def test_what_the_environment_says_for_all_commands_changes_no_file_that_is_there(file: Path) -> None:
    said = {"FINK_DASK_USERNAME": "other", "FINK_DASK_GROUP_ID": "other", "FINK_DASK_BOOTSTRAP_SERVERS": "other:1"}
    assert register(file, *ADA).returncode == 0
    before = yaml.safe_load(file.read_text())
    changed = register(file, "--survey", "ztf", "--force", FINK_DASK_PASSWORD=PASSWORD, **said)
    assert changed.returncode == 0, changed.stderr
    assert yaml.safe_load(file.read_text()) == before | {"password": PASSWORD}
    file.unlink()
    assert register(file, "--survey", "ztf", **said).returncode == 0
    assert yaml.safe_load(file.read_text())["servers"] == "other:1", "a new file has nothing to keep"


def test_a_file_that_is_broken_is_left_to_its_owner(file: Path) -> None:
    file.parent.mkdir()
    file.write_text(f"password: {PASSWORD}\n[")
    result = register(file, *ADA, "--force")
    assert result.returncode == 2
    assert "YAML" in result.stderr
    assert file.read_text() == f"password: {PASSWORD}\n["


def test_a_link_to_the_file_stays_one(file: Path, tmp_path: Path) -> None:
    file.parent.mkdir()
    (tmp_path / "dotfiles.yml").write_text("servers: a:1\n")
    file.symlink_to(tmp_path / "dotfiles.yml")
    assert register(file, *ADA, "--force").returncode == 0
    assert file.is_symlink()
    assert yaml.safe_load((tmp_path / "dotfiles.yml").read_text())["username"] == USER


@pytest.mark.parametrize(
    "text",
    [
        "0123",
        "yes",
        "null",
        "a: b",
        "- a",
        "# c",
        "'",
        '"',
        "!!python/name:os.system",
        "&a",
        "*a",
        "%x",
        " {a",
        "é🙂",
        "~",
    ],
)
def test_whatever_a_value_looks_like_it_comes_back_as_it_was_typed(tmp_path: Path, text: str) -> None:
    path = tmp_path / "credentials.yml"
    write_credentials(path, Registration("ztf", text, text, "a:1", text), replace=False)
    found = read_credentials(path)
    assert (found.username, found.group_id, found.password, found.servers) == (text, text, text, "a:1")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--username", "ada\nservers: evil:1"),
        ("--username", "\x1b[31m"),
        ("--username", " "),
        ("--group-id", "x" * 1001),
        ("--group-id", "a\0b"),
        ("--servers", "kafka.example.org"),
        ("--servers", "kafka.example.org:99999"),
        ("--servers", "a:1,,b:2"),
        ("--servers", "http://a:1"),
        ("--servers", ""),
        ("--maxtimeout", "0"),
    ],
)
def test_a_value_that_can_be_none_is_refused_in_one_line_and_nothing_is_written(
    file: Path, option: str, value: str
) -> None:
    if "\0" in value:
        with pytest.raises(SettingsError):
            Registration("ztf", group_id=value)
        return
    result = register(file, *ADA, option, value)
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert "\x1b" not in result.stderr
    assert not file.exists()


def test_what_is_missing_is_named_and_nothing_is_written(file: Path) -> None:
    result = register(file, "--survey", "ztf", "--username", "ada")
    assert result.returncode == 2
    assert all(option in result.stderr for option in ("--group-id", "--bootstrap-servers"))
    assert not file.exists()


def test_nobody_else_can_read_the_file_at_any_time_and_a_full_disk_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "credentials.yml"
    seen: list[int] = []
    sync = os.fsync

    def look(descriptor: int) -> None:
        seen.extend(mode(each) for each in tmp_path.iterdir())
        sync(descriptor)

    before = os.umask(0)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", look)
            write_credentials(path, Registration("ztf", "ada", "g", "a:1", PASSWORD), replace=False)
    finally:
        os.umask(before)
    assert seen == [0o600]
    text = path.read_text()

    def full(_: int) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(SettingsError, match="No space left"):
            write_credentials(path, Registration("ztf", "bob"), replace=True)
    assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(SettingsError, match="File exists"):  # another one was quicker
        write_credentials(path, Registration("ztf", "bob", "g", "a:1"), replace=False)
    assert path.read_text() == text


def answer(file: Path, arguments: list[str], answers: dict[bytes, Callable[[subprocess.Popen[bytes]], bytes]]) -> str:
    """Register on a terminal: what is done at each question gives what is typed. Returns the screen, and the status."""
    leader, follower = os.openpty()
    process = subprocess.Popen(
        [*PROGRAM, "register", *arguments],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=environment({"HOME": str(file.parent.parent)}),
        start_new_session=True,
    )
    os.close(follower)
    shown = b""
    with suppress(OSError):
        while chunk := os.read(leader, 4096):
            shown += chunk
            for question in [question for question in answers if question in shown]:
                os.write(leader, answers.pop(question)(process))
    os.close(leader)
    return f"{shown.decode()}\nstatus {process.wait(timeout=300)}"


def test_on_a_terminal_the_password_is_asked_for_and_not_shown(file: Path) -> None:
    shown = answer(file, ADA, {b"Password": lambda _: f"{PASSWORD}\n".encode()})
    assert shown.endswith("status 0"), shown
    assert PASSWORD not in shown
    assert read_credentials(file).password == PASSWORD


def test_on_a_terminal_what_is_refused_is_refused_before_the_password_is_asked_for(file: Path) -> None:
    shown = answer(file, [*ADA[:-1], "kafka.example.org"], {b"Password": lambda _: b"secret\n"})
    assert shown.endswith("status 2"), shown
    assert all(words in shown for words in ("'kafka.example.org'", "HOST:PORT"))
    assert "Password" not in shown


def test_a_question_that_is_interrupted_ends_as_every_interrupt_does(file: Path) -> None:
    def interrupt(process: subprocess.Popen[bytes]) -> bytes:
        # Between the question and the system call that waits for the answer, Python takes note of a signal and waits.
        wait_for(lambda: psutil.Process(process.pid).status() == psutil.STATUS_SLEEPING, "it to wait for an answer")
        process.send_signal(signal.SIGINT)
        return b""

    for arguments, question in ((ADA, b"Password"), (ADA[:2], b"User name")):
        shown = answer(file, arguments, {question: interrupt})
        assert shown.endswith("status 130"), shown
        assert not file.exists()


def test_a_check_connects_and_says_what_it_found(secure: SecureKafka, file: Path, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    (tmp_path / "password").chmod(0o600)
    sasl = ["--security-protocol", "SASL_PLAINTEXT"]
    servers = ["--servers", secure.broker.address("SASL")]
    written = register(file, *ADA, *servers, *sasl, "--password-file", str(tmp_path / "password"), "--check")
    assert written.returncode == 0, written.stderr
    assert secure.broker.address("SASL") in written.stdout
    assert re.search(rf"password .*accepted.* {USER}\b", written.stdout)
    assert re.search(r"[1-9]\d* topic", written.stdout)
    assert "ada-1" in written.stdout
    before = file.read_text()
    again = register(file, "--survey", "ztf", "--check", *sasl)
    assert again.returncode == 0, again.stderr
    assert "accepted" in again.stdout
    assert file.read_text() == before
    wrong = register(file, "--survey", "ztf", "--check", "--force", *sasl, FINK_DASK_PASSWORD="wrong")
    assert wrong.returncode == 1
    assert "credentials" in wrong.stderr


def test_a_check_says_where_nobody_asks_for_the_password(secure: SecureKafka, file: Path) -> None:
    written = register(file, *ADA, "--servers", secure.broker.bootstrap_servers, "--check")
    found = register(file, "--survey", "ztf", "--check")
    for each in (written, found):
        assert each.returncode == 0, each.stderr
        assert "PLAINTEXT" in each.stdout


@pytest.mark.commands
def test_a_check_of_a_broker_that_is_not_there_fails_in_one_line(file: Path) -> None:
    nowhere = f"127.0.0.1:{free_ports(1)[0]}"
    result = register(file, *ADA, "--servers", nowhere, "--check")
    assert result.returncode == 1
    assert nowhere in result.stderr
    assert file.exists()
