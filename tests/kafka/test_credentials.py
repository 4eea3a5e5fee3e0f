"""The files of today's client are read in all their spellings; nothing in them runs, and no password leaves them."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import Any

import pytest
import yaml

from fink_dask.errors import SettingsError
from fink_dask.kafka.credentials import (
    Registration,
    find_credentials,
    find_kafka,
    is_open_to_others,
    need_a_survey,
    read_certificates,
    read_credentials,
    read_password,
    write_credentials,
)
from fink_dask.settings import Connection, Security

PASSWORD = "hunter2-secret"


def write(home: Path, name: str, text: str | bytes) -> Path:
    path = home / ".finkclient" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("servers: a:1\ngroup_id: mine", "a:1"),
        ("servers: 'a:1, b:2'\ngroupid: mine", "a:1,b:2"),
        ("servers: [a:1, b:2]", "a:1,b:2"),
        ("servers:\n- a:1\n- b:2,c:3\n", "a:1,b:2,c:3"),
        ("servers: []", None),
        ("servers: ['', null, a:1]", "a:1"),
        ("servers: ''", None),
        ("servers: null", None),
        (f"survey: ztf\nusername: me\npassword: {PASSWORD}\nmaxtimeout: 10\nmytopics: [t]\nservers: a:1", "a:1"),
        ("{}", None),
        ("\ufeffservers: a:1", "a:1"),
    ],
)
def test_every_spelling_of_the_client_is_read(tmp_path: Path, text: str, servers: str | None) -> None:
    path = write(tmp_path, "ztf_credentials.yml", text)
    found = find_credentials("ztf", tmp_path)
    assert found is not None
    assert (found.path, found.servers) == (path, servers)
    assert PASSWORD not in repr(found)


def test_name_and_password_are_read_for_a_broker_that_asks_for_them(tmp_path: Path) -> None:
    write(tmp_path, "ztf_credentials.yml", f"username: me\npassword: {PASSWORD}\nservers: a:1")
    found = find_credentials("ztf", tmp_path)
    assert found is not None
    assert (found.username, found.password) == ("me", PASSWORD)


@pytest.mark.parametrize("text", ["password: null", "password: ''", "servers: a:1"])
def test_a_file_may_hold_no_password(tmp_path: Path, text: str) -> None:
    found = read_credentials(write(tmp_path, "ztf_credentials.yml", text))
    assert found.password is None


def test_a_password_that_is_no_text_is_refused_only_when_it_is_needed(tmp_path: Path) -> None:
    path = write(tmp_path, "ztf_credentials.yml", "servers: a:1\npassword: [secret]")
    found = read_credentials(path)
    assert found.servers == "a:1"
    with pytest.raises(SettingsError, match="'password'") as caught:
        _ = found.password
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "value",
    ["0123", "123", "0x1F", "0o17", "0b1", "1_000", "12:30:45", "12.50", "1e5", "true", "on", "2026-11-30", ".inf"],
)
def test_names_and_passwords_are_what_was_typed_whatever_yaml_takes_them_for(tmp_path: Path, value: str) -> None:
    text = f"username: {value}\npassword: {value}\ngroupid: {value}\nservers: a:1\nmaxtimeout: 10"
    path = write(tmp_path, "ztf_credentials.yml", text)
    found = read_credentials(path)
    assert (found.username, found.password, found.group_id) == (value, value, value)
    # Written anew, they still are, and today's client still finds its number.
    write_credentials(path, Registration("ztf", servers="b:2"), replace=True)
    found = read_credentials(path)
    assert (found.username, found.password, found.group_id, found.servers) == (value, value, value, "b:2")
    assert yaml.safe_load(path.read_text())["maxtimeout"] == 10


def test_a_password_file_has_one_line(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("pass word\n")
    assert read_password(path) == "pass word"
    for text in (b"", b"\n", b"two\nlines\n", b"nul\0", b"\xff\xfe", b"x" * 70_000):
        path.write_bytes(text)
        with pytest.raises(SettingsError, match=r"line|64 kB"):
            read_password(path)
    with pytest.raises(SettingsError, match="absent"):
        read_password(tmp_path / "absent")


def test_a_file_of_certificates_holds_one(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")
    assert read_certificates(path) == path.read_text()
    for text in (b"", b"-----BEGIN PRIVATE KEY-----", b"-----BEGIN CERTIFICATE-----\0"):
        path.write_bytes(text)
        with pytest.raises(SettingsError, match="CERTIFICATE"):
            read_certificates(path)


def test_a_file_that_others_may_read_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path, "ztf_credentials.yml", "servers: a:1")
    for mode, is_open in ((0o600, False), (0o400, False), (0o640, True), (0o604, True)):
        path.chmod(mode)
        assert is_open_to_others(path) == is_open


@pytest.mark.parametrize(
    ("files", "survey", "chosen"),
    [
        ([], None, None),
        ([], "ztf", None),
        (["ztf"], "ztf", "ztf"),
        (["ztf"], "lsst", None),
        (["ztf"], None, "ztf"),
        (["lsst"], None, "lsst"),
        (["ztf", "lsst"], "ztf", "ztf"),
        (["ztf", "lsst"], "lsst", "lsst"),
        (["ztf", "lsst"], None, None),  # a guess could be the wrong Kafka
        (["ztf", "lsst", "old"], None, "old"),
        (["old"], None, "old"),
        (["old"], "lsst", "old"),
        (["old", "ztf"], None, "ztf"),
        (["old", "ztf"], "ztf", "ztf"),
        (["old", "ztf"], "lsst", "old"),
    ],
)
def test_the_file_of_the_survey_is_the_one_that_is_read(
    tmp_path: Path, files: list[str], survey: str | None, chosen: str | None
) -> None:
    names = {"ztf": "ztf_credentials.yml", "lsst": "lsst_credentials.yml", "old": "credentials.yml"}
    for file in files:
        write(tmp_path, names[file], f"servers: {file}:1")
    found = find_credentials(survey, tmp_path)
    assert (found and found.servers) == (chosen and f"{chosen}:1")


@pytest.mark.parametrize("name", ["me", "other"])
def test_two_files_that_say_the_same_are_as_good_as_one_and_else_a_survey_is_needed(tmp_path: Path, name: str) -> None:
    write(tmp_path, "ztf_credentials.yml", "survey: ztf\nservers: a:1\nusername: me")
    assert not need_a_survey(None, tmp_path)
    write(tmp_path, "lsst_credentials.yml", f"survey: lsst\nservers: a:1\nusername: {name}")
    found = find_credentials(None, tmp_path)
    assert (found and found.servers) == ("a:1" if name == "me" else None)
    assert need_a_survey(None, tmp_path) == (found is None)
    assert not need_a_survey("lsst", tmp_path)
    write(tmp_path, "lsst_credentials.yml", "[")
    assert not need_a_survey(None, tmp_path)


def test_the_home_directory_is_where_files_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "credentials.yml", "servers: a:1")
    monkeypatch.setenv("HOME", str(tmp_path))
    found = find_credentials(None)
    assert found is not None
    assert found.servers == "a:1"


def test_a_directory_in_a_files_place_is_no_file(tmp_path: Path) -> None:
    (tmp_path / ".finkclient" / "credentials.yml").mkdir(parents=True)
    assert find_credentials(None, tmp_path) is None


@pytest.mark.parametrize(
    "text",
    [
        f"password: {PASSWORD}\n- broken: [",
        f"password: {PASSWORD}\nservers: !!python/object/apply:os.system ['touch RAN']",
        f"password: {PASSWORD}\nservers: !!python/name:os.system",
        f"password: {PASSWORD}\nservers: !mine a:1",
        f"password: !!int '{PASSWORD}'",
        f"password: !!bool '{PASSWORD}'",
        f"password: !!timestamp '{PASSWORD}'",
        "!!float ''",
        f"? [{PASSWORD}]\n: x\n{{}}",
        f"password: {PASSWORD}\nservers: *nothing",
        b"servers: \xff\xfe\xfd",
        b"servers: a\x00b",
        "[" * 20_000,
        f"- {PASSWORD}\n- servers",
        PASSWORD,
        "",
        "servers: {a: 1}",
        "servers: [[a]]",
        "servers: a:1\n# " + "x" * 70_000,
    ],
    ids=lambda text: repr(text[:50]),
)
def test_a_file_that_is_none_is_refused_in_one_line_without_its_text_and_without_running_it(
    tmp_path: Path, text: str | bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, "credentials.yml", text)
    with pytest.raises(SettingsError) as caught:
        find_credentials(None, tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))
    assert not (tmp_path / "RAN").exists()


def test_a_file_that_expands_without_end_is_refused_and_not_expanded(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 40)]
    path = write(tmp_path, "credentials.yml", "\n".join([*lines, "servers: *a39"]))
    with pytest.raises(SettingsError, match="'servers'"):
        read_credentials(path)


def test_a_file_that_may_not_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "credentials.yml", "servers: a:1")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, os.strerror(13))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        with pytest.raises(SettingsError, match=r"credentials\.yml.*Permission denied"):
            read_credentials(path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_file", refuse)  # a directory that may not be searched
        with pytest.raises(SettingsError, match=r"credentials\.yml.*Permission denied"):
            find_credentials(None, tmp_path)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"username": "ada", "password_file": Path("password")}, ["username", "password_file"]),
        ({"oauth_token_url": "https://a.example", "security_protocol": "SSL"}, ["oauth_token_url"]),
        ({"ssl_ca_file": Path("ca.pem"), "security_protocol": "SASL_PLAINTEXT"}, ["ssl_ca_file"]),
    ],
)
def test_a_name_a_password_or_a_certificate_that_nobody_would_ask_for_is_not_left_out_in_silence(
    given: dict[str, Any], names: list[str]
) -> None:
    with pytest.raises(SettingsError) as caught:
        find_kafka("ztf", lambda _: None, Connection(bootstrap_servers="a:1", **given))
    assert caught.value.parameters == (*names, "security_protocol")
    # The environment may hold a password for another Kafka.
    assert (
        find_kafka("ztf", lambda _: None, Connection(bootstrap_servers="a:1", password="secret")).security == Security()
    )
