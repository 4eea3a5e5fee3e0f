"""How to reach Kafka: from what the user says, and from the credentials files of today's client in ``~/.finkclient``.

These files are read in all their old and new spellings, and written as today's client does, so that both find the
servers and the password in them.
"""

from __future__ import annotations

import os
import re
import stat
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from fink_dask.errors import SettingsError, parameter
from fink_dask.settings import (
    RECONNECT_TIMEOUT_S,
    SURVEYS,
    Connection,
    KafkaSettings,
    Security,
    has_sasl,
    has_tls,
)

#: A credentials file has half a dozen lines, a password file has one; anything larger is something else.
_MAX_BYTES = 64 * 1024

#: The most characters of a value; even a password of a hundred is a long one.
_MAX_CHARS = 1000
_SERVER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")

#: Names the servers, for the command line and for Python.
SERVERS_VARIABLE = "FINK_DASK_BOOTSTRAP_SERVERS"
#: What is wrong where a name that tells no survey meets credentials of several.
OF_BOTH = "~/.finkclient has credentials of ztf and others of lsst, and nothing tells whose are meant"


@dataclass(frozen=True)
class Credentials:
    """What a credentials file says."""

    path: Path
    #: ``host:port`` pairs with commas between them.
    servers: str | None
    username: str | None = None
    #: What stands for the password; `password` checks it.
    secret: object = field(default=None, repr=False)
    #: The user's consumer group.
    group_id: str | None = None

    @property
    def password(self) -> str | None:
        """The password; checked only when it is needed, as many files hold one that no broker asks for.

        Raises SettingsError if it is not text.
        """
        return _text(self.path, "password", self.secret)


def find_credentials(survey: str | None, home: Path | None = None) -> Credentials | None:
    """Read the first credentials file that exists for `survey`, or None.

    Newer clients write ``ztf_credentials.yml`` and ``lsst_credentials.yml``, older ones ``credentials.yml``. Without
    a survey, a newer file is taken only where there is just one, or both say the same.

    Raises SettingsError if a file can't be read, is not YAML, or has another form.
    """
    paths = [credentials_path(each, home) for each in ([survey] if survey else SURVEYS)]
    found = [path for path in paths if _exists(path)]
    if len(found) == 1:
        return read_credentials(found[0])
    old = paths[0].with_name("credentials.yml")
    if _exists(old):
        return read_credentials(old)
    said = [read_credentials(path) for path in found]
    return said[0] if said and all(replace(each, path=found[0]) == said[0] for each in said) else None


def need_a_survey(survey: str | None, home: Path | None = None) -> bool:
    """Tell whether there are credentials of several surveys, and nothing that tells whose are meant."""
    if survey is not None or not all(_exists(credentials_path(each, home)) for each in SURVEYS):
        return False
    try:
        found = find_credentials(None, home)
    except SettingsError:  # a file that is broken is another matter, and said where it is read
        return False
    return found is None


def credentials_path(survey: str, home: Path | None = None) -> Path:
    """Name the credentials file of a survey, whether it exists or not."""
    folder = home or Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.home() raises where there is none
    return folder / ".finkclient" / f"{survey}_credentials.yml"


def read_credentials(path: Path) -> Credentials:
    """Read what fink-dask needs of one credentials file.

    Raises SettingsError if it can't be read, is not YAML, or has another form.
    """
    content = read_content(path)
    return Credentials(
        path=path,
        servers=_servers(path, content.get("servers")),
        username=_text(path, "username", content.get("username")),
        secret=content.get("password"),
        group_id=_text(path, "groupid", content.get("groupid") or content.get("group_id")),
    )


def read_content(path: Path) -> dict[str, object]:
    """Read the whole of a credentials file; YAML tags in it are refused, never run.

    Raises SettingsError if it can't be read, is not YAML, or holds no names with values.
    """
    import yaml

    text = _read(path, "credentials file")
    try:
        content = yaml.load(text, _loader())  # noqa: S506 - it is a SafeLoader
    except Exception:  # PyYAML's errors have no common root: a bad number, date or tag raises what it likes
        # Without its cause, whose text quotes the file, and with it a password.
        raise SettingsError(f"{path} is not valid YAML") from None
    if not isinstance(content, dict):
        raise SettingsError(f"{path} is not a credentials file: it should hold 'servers: HOST:PORT' and the like")
    return content


@cache
def _loader() -> Any:
    """Make what reads YAML as it was typed: no ``0123`` becomes 83, no ``1e5`` 100000.0, no ``on`` true, no day a date.

    The library is loaded here: not every command asks for a file.
    """
    import yaml

    class TextLoader(yaml.SafeLoader):
        """Takes all but nothing and whole numbers for text."""

    TextLoader.yaml_implicit_resolvers = {}
    null, number = re.compile(r"(?:~|null|Null|NULL|)$"), re.compile(r"(?:0|[1-9][0-9]{0,17})$")
    TextLoader.add_implicit_resolver("tag:yaml.org,2002:null", null, ["~", "n", "N", ""])
    # As `maxtimeout` is a number to today's client; these are written back as they were.
    TextLoader.add_implicit_resolver("tag:yaml.org,2002:int", number, list("0123456789"))
    return TextLoader


def read_password(path: Path) -> str:
    """Read a password from a file of one line.

    Raises SettingsError if it can't be read, or is not one line of text.
    """
    text = _read(path, "password file")
    try:
        password = text.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        password = ""
    if not password or not password.isprintable():
        raise SettingsError(f"{path} is not a password file: it should hold one line, the password")
    return password


def read_certificates(path: Path) -> str:
    """Read the certificates of authorities that are trusted, as PEM.

    Raises SettingsError if it can't be read, or holds none.
    """
    text = _read(path, "file of certificates", 64 * _MAX_BYTES).decode(errors="replace")
    if "-----BEGIN CERTIFICATE-----" not in text or "\0" in text:
        raise SettingsError(f"{path} holds no certificate in PEM (-----BEGIN CERTIFICATE-----)")
    return text


def is_open_to_others(path: Path) -> bool:
    """Tell whether anybody but the owner may read a file."""
    return bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))


def _read(path: Path, what: str, max_bytes: int = _MAX_BYTES) -> bytes:
    try:
        with path.open("rb") as file:
            text = file.read(max_bytes + 1)
    except OSError as error:
        raise SettingsError(f"can't read {path}: {error.strerror}") from error
    if len(text) > max_bytes:
        raise SettingsError(f"{path} is not a {what}: it is larger than {max_bytes // 1024} kB")
    return text


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:
        raise SettingsError(f"can't read {path}: {error.strerror}") from error


def _servers(path: Path, value: object) -> str | None:
    texts = [_text(path, "servers", item) for item in (value if isinstance(value, list) else [value])]
    servers = [server.strip() for text in texts if text for server in text.split(",")]
    return ",".join(filter(None, servers)) or None


def _text(path: Path, key: str, value: object) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise SettingsError(f"{path}: '{key}' should be text")
    try:
        return str(value)
    except ValueError as error:  # Python writes no number of thousands of digits
        raise SettingsError(f"{path}: '{key}' should be text") from error


@dataclass(frozen=True)
class Registration:
    """What a user registers with; what is None stays as it is.

    Raises SettingsError if a value is empty, too long, or of no such form.
    """

    #: Whose credentials these are.
    survey: str
    username: str | None = None
    #: The user's consumer group.
    group_id: str | None = None
    #: ``host:port`` pairs with commas between them.
    servers: str | None = None
    #: The password; left out of the repr of this object.
    password: str | None = field(default=None, repr=False)
    #: Seconds that today's client waits for an alert; unused here.
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
                raise SettingsError(f"{parameter('bootstrap_servers')}: {server[:80]!r} is not HOST:PORT")

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

    `replace`: whether it may exist already; what `registration` leaves out then stays in it, except for comments.
    Raises SettingsError if it exists and may not, can't be read or written, or would be incomplete.
    """
    import yaml

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
            (parameter("username"), content.get("username")),
            (parameter("group_id"), group),
            (parameter("bootstrap_servers"), content.get("servers")),
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


def find_kafka(survey: str | None, warn: Callable[[str], None], asked: Connection) -> KafkaSettings:
    """Put together how to reach Kafka; what is left out comes from the credentials file of the survey.

    `warn`: told of a password that others on the machine can read.
    Raises SettingsError if something is missing or would have no effect, or a file can't be used.
    """
    asks, username, password = has_sasl(asked.security_protocol), asked.username, asked.password
    _check_used(asked)
    credentials = None
    if asked.bootstrap_servers is None or (asks and not (username and (password or asked.password_file))):
        credentials = find_credentials(survey)
    if asks:
        username = username or (credentials.username if credentials is not None else None)
        password = _password(asked.password_file, password, credentials, warn)
    return KafkaSettings(
        asked.bootstrap_servers or _servers_of(credentials, survey),
        reconnect_timeout_s=RECONNECT_TIMEOUT_S if asked.reconnect_timeout_s is None else asked.reconnect_timeout_s,
        limit_rate=asked.limit_rate,
        security=Security(
            protocol=asked.security_protocol,
            mechanism=asked.sasl_mechanism,
            username=username if asks else None,
            password=password if asks else None,
            ca_pem=None if asked.ssl_ca_file is None else read_certificates(asked.ssl_ca_file),
            token_url=asked.oauth_token_url,
            scope=asked.oauth_scope,
        ),
    )


def _check_used(asked: Connection) -> None:
    """Refuse what would have no effect with the protocol; a password in the environment may be meant for others."""
    protocol = asked.security_protocol
    vain = [] if has_sasl(protocol) else ["username", "password_file", "oauth_token_url", "oauth_scope"]
    vain += [] if has_tls(protocol) else ["ssl_ca_file"]
    if wrong := [name for name in vain if getattr(asked, name) is not None]:
        names = ", ".join(map(parameter, wrong))
        other = parameter("security_protocol", "SSL" if wrong == ["ssl_ca_file"] else "SASL_SSL")
        raise SettingsError(f"{names} would have no effect with {protocol}: give another protocol too, such as {other}")


def _password(
    file: Path | None, given: str | None, credentials: Credentials | None, warn: Callable[[str], None]
) -> str | None:
    """Find the password: first in the file that was named, then what was given, then in the credentials file."""
    if file is not None:
        password = read_password(file)
        _warn_if_open(file, warn)
        return password
    if given:
        return given
    if credentials is not None and credentials.password is not None:
        _warn_if_open(credentials.path, warn)
        return credentials.password
    return None


def _warn_if_open(path: Path, warn: Callable[[str], None]) -> None:
    if is_open_to_others(path):
        warn(f"others on this machine can read the password in {path}: run chmod 600 on it")


def _servers_of(credentials: Credentials | None, survey: str | None) -> str:
    if need_a_survey(survey):
        raise SettingsError(
            f"{OF_BOTH}: say {parameter('survey', 'ztf')} or {parameter('survey', 'lsst')}, or give "
            f"{parameter('bootstrap_servers', 'HOST:PORT')}"
        )
    if credentials is None or credentials.servers is None:
        raise SettingsError(
            f"no Kafka servers: give {parameter('bootstrap_servers', 'HOST:PORT')}, set {SERVERS_VARIABLE}, or type "
            f"fink-dask register --survey {survey or 'ztf'}, which keeps what Fink has sent you in "
            f"~/.finkclient/{survey or 'ztf'}_credentials.yml"
        )
    return credentials.servers
