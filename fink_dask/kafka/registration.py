"""Write a credentials file as today's client does, so that both find the servers and the password in it."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from fink_dask.errors import SettingsError
from fink_dask.kafka.credentials import read_content

#: The most characters of a value; even a password of a hundred is a long one.
_MAX_CHARS = 1000
_SERVER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")


@dataclass(frozen=True)
class Registration:
    """What a user registers with; what is None stays as it is.

    Parameters
    ----------
    survey : str
        Whose credentials these are.
    username : str, optional
        The user's name.
    group_id : str, optional
        The user's consumer group.
    servers : str, optional
        ``host:port`` pairs with commas between them.
    password : str, optional
        The password; left out of the repr of this object.
    maxtimeout : int, optional
        Seconds that today's client waits for an alert; unused here.

    Raises
    ------
    SettingsError
        If a value is empty, too long, or of no such form.
    """

    survey: str
    username: str | None = None
    group_id: str | None = None
    servers: str | None = None
    password: str | None = field(default=None, repr=False)
    maxtimeout: int | None = None

    def __post_init__(self) -> None:
        for name, value in (
            ("user name", self.username),
            ("consumer group", self.group_id),
            ("list of servers", self.servers),
            ("password", self.password),
        ):
            # Without the value: it may be a password.
            if value is not None and not (value.isprintable() and value.strip() and len(value) <= _MAX_CHARS):
                raise SettingsError(f"the {name} is empty, too long, or has unprintable characters")
        for server in (self.servers or "a:1").split(","):
            match = _SERVER.fullmatch(server.strip())
            if match is None or not 0 < int(match[2]) < 65536:
                raise SettingsError(f"--servers: {server[:80]!r} is not HOST:PORT")

    def content(self) -> dict[str, object]:
        """Return what is set, under the names that today's client uses."""
        said = {
            "survey": self.survey,
            "username": self.username,
            "password": self.password,
            "groupid": self.group_id,
            "servers": self.servers,
            "maxtimeout": self.maxtimeout,
        }
        return {name: value for name, value in said.items() if value is not None}


def write_credentials(path: Path, registration: Registration, replace: bool) -> None:
    """Write a credentials file that only its owner can read, from the first byte on; it appears whole or not at all.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    registration : Registration
        What goes into it.
    replace : bool
        Whether it may exist already; what `registration` leaves out then stays in it, except for comments.

    Raises
    ------
    SettingsError
        If it exists and may not, can't be read or written, or would be incomplete.
    """
    path = Path(os.path.realpath(path))  # a link to it stays a link
    before = read_content(path) if replace and path.exists() else {}
    content = before | registration.content()
    if "group_id" in before and registration.group_id is not None:
        content["group_id"] = registration.group_id  # as older clients spell it
    _check_complete(content)
    content.setdefault("password", None)
    content.setdefault("maxtimeout", 10)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=False)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(path, text.encode(), replace)
    except OSError as error:
        raise SettingsError(f"can't write {path}: {error.strerror}") from error


def _check_complete(content: Mapping[str, object]) -> None:
    """Refuse a file that today's client could do nothing with."""
    group = content.get("groupid") or content.get("group_id")
    missing = [
        option
        for option, value in (
            ("--username", content.get("username")),
            ("--group-id", group),
            ("--servers", content.get("servers")),
        )
        if not value
    ]
    if missing:
        raise SettingsError(f"give {', '.join(missing)} too: they are in Fink's answer to your registration")


def _write(path: Path, text: bytes, replace: bool) -> None:
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            aside.replace(path)
        else:
            os.link(aside, path)  # which never replaces
    finally:
        aside.unlink(missing_ok=True)
