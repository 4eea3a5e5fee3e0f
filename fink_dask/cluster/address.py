"""Where the Dask dashboard is served."""

from __future__ import annotations

from fink_dask.errors import SettingsError

#: Unless that port is taken; Dask's own default.
DASHBOARD_ADDRESS = "127.0.0.1:8787"


def parse_address(option: str, text: str) -> str:
    """Read a ``HOST:PORT`` to listen on; without a host, on this machine alone.

    Raises
    ------
    SettingsError
        If it is not one.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdecimal()) or len(port) > 5 or int(port) > 65535:
        raise SettingsError(f"{option} is {text[:80]!r}, but should be HOST:PORT")
    return f"{host or '127.0.0.1'}:{port}"
