"""The credentials files that today's client writes in ``~/.finkclient``, in all their old and new spellings."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from fink_dask.errors import SettingsError
from fink_dask.kafka.topics import SURVEYS

#: A credentials file has half a dozen lines, a password file has one; anything larger is something else.
_MAX_BYTES = 64 * 1024


@dataclass(frozen=True)
class Credentials:
    """What a credentials file says.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    servers : str, optional
        ``host:port`` pairs with commas between them.
    username : str, optional
        The user's name.
    secret : object
        What stands for the password; `password` checks it.
    group_id : str, optional
        The user's consumer group.
    """

    path: Path
    servers: str | None
    username: str | None = None
    secret: object = field(default=None, repr=False)
    group_id: str | None = None

    @property
    def password(self) -> str | None:
        """The password; checked only when it is needed, as many files hold one that no broker asks for.

        Raises
        ------
        SettingsError
            If it is not text: YAML reads ``0123`` as a number, which is not what was typed.
        """
        if self.secret is None or self.secret == "":
            return None
        if not isinstance(self.secret, str):
            raise SettingsError(f"{self.path}: 'password' should be text: put it in quotes")
        return self.secret


def find_credentials(survey: str | None, home: Path | None = None) -> Credentials | None:
    """Read the first credentials file that exists for `survey`, or None.

    Newer clients write ``ztf_credentials.yml`` and ``lsst_credentials.yml``, older ones ``credentials.yml``. Without
    a survey, a newer file is taken only where there is just one, or both say the same.

    Raises
    ------
    SettingsError
        If a file can't be read, is not YAML, or has another form.
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

    Raises
    ------
    SettingsError
        If it can't be read, is not YAML, or has another form.
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

    Raises
    ------
    SettingsError
        If it can't be read, is not YAML, or holds no names with values.
    """
    text = _read(path, "credentials file")
    try:
        content = yaml.safe_load(text)
    except Exception:  # PyYAML's errors have no common root: a bad number, date or tag raises what it likes
        # Without its cause, whose text quotes the file, and with it a password.
        raise SettingsError(f"{path} is not valid YAML") from None
    if not isinstance(content, dict):
        raise SettingsError(f"{path} is not a credentials file: it should hold 'servers: HOST:PORT' and the like")
    return content


def read_password(path: Path) -> str:
    """Read a password from a file of one line.

    Raises
    ------
    SettingsError
        If it can't be read, or is not one line of text.
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

    Raises
    ------
    SettingsError
        If it can't be read, or holds none.
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
