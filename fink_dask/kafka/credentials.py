"""The credentials files that today's client writes in ``~/.finkclient``, in all their old and new spellings."""

from __future__ import annotations

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
    group_id : str, optional
        The user's consumer group.
    """

    path: Path
    servers: str | None
    group_id: str | None


def find_credentials(survey: str | None, home: Path | None = None) -> Credentials | None:
    """Read the first credentials file that exists for `survey`, or None.

    Newer clients write ``ztf_credentials.yml`` and ``lsst_credentials.yml``, older ones ``credentials.yml``. Without
    a survey, a newer file is taken only where there is just one.

    Raises
    ------
    SettingsError
        If a file can't be read, is not YAML, or is of another form.
    """
    folder = (home or Path.home()) / ".finkclient"
    names = [f"{survey}_credentials.yml"] if survey else ["ztf_credentials.yml", "lsst_credentials.yml"]
    found = [folder / name for name in names if (folder / name).is_file()]
    if len(found) == 1:
        return read_credentials(found[0])
    old = folder / "credentials.yml"
    return read_credentials(old) if old.is_file() else None


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
        if len(text) > _MAX_BYTES:
            raise SettingsError(f"{path} is no credentials file: it is larger than {_MAX_BYTES // 1024} kB")
        content = yaml.safe_load(text)
    except OSError as error:
        raise SettingsError(f"can't read {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # The text of the error can quote the file, and with it a password.
        raise SettingsError(f"{path} is not valid YAML") from error
    if not isinstance(content, dict):
        raise SettingsError(f"{path} is no credentials file: it should hold 'servers: HOST:PORT' and the like")
    return Credentials(
        path=path,
        servers=_servers(path, content.get("servers")),
        group_id=_text(path, "group_id", content.get("group_id", content.get("groupid"))),
    )


def _servers(path: Path, value: object) -> str | None:
    if isinstance(value, list):
        return ",".join(filter(None, (_text(path, "servers", item) for item in value))) or None
    return _text(path, "servers", value)


def _text(path: Path, key: str, value: object) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str | int):
        raise SettingsError(f"{path}: '{key}' should be text")
    return str(value)
