"""The credentials files that today's client writes in ``~/.finkclient``, in all their old and new spellings."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import yaml

from fink_dask.errors import SettingsError

#: A credentials file has half a dozen lines; more than this is something else.
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
    """

    path: Path
    servers: str | None


def find_credentials(survey: str | None, home: Path | None = None) -> Credentials | None:
    """Read the first credentials file that exists for `survey`, or None.

    Newer clients write ``ztf_credentials.yml`` and ``lsst_credentials.yml``, older ones ``credentials.yml``. Without
    a survey, a newer file is taken only where there is just one.

    Raises
    ------
    SettingsError
        If a file can't be read, is not YAML, or is of another form.
    """
    folder = home or Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.home() raises where there is none
    folder /= ".finkclient"
    names = [f"{survey}_credentials.yml"] if survey else ["ztf_credentials.yml", "lsst_credentials.yml"]
    found = [folder / name for name in names if _exists(folder / name)]
    if len(found) == 1:
        return read_credentials(found[0])
    old = folder / "credentials.yml"
    return read_credentials(old) if _exists(old) else None


def read_credentials(path: Path) -> Credentials:
    """Read one credentials file; YAML tags in it are refused, never run.

    Raises
    ------
    SettingsError
        If it can't be read, is not YAML, or is of another form.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"can't read {path}: {error.strerror}") from error
    if len(text) > _MAX_BYTES:
        raise SettingsError(f"{path} is no credentials file: it is larger than {_MAX_BYTES // 1024} kB")
    try:
        content = yaml.safe_load(text)
    except Exception:  # PyYAML has no one root: a bad number, date or tag raises what it likes
        # Without its cause, whose text quotes the file, and with it a password.
        raise SettingsError(f"{path} is not valid YAML") from None
    if not isinstance(content, dict):
        raise SettingsError(f"{path} is no credentials file: it should hold 'servers: HOST:PORT' and the like")
    return Credentials(
        path=path,
        servers=_servers(path, content.get("servers")),
    )


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
