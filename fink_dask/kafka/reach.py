"""How to reach Kafka, put together from what the user says and from a credentials file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fink_dask.config import (
    RECONNECT_TIMEOUT_S,
    SASL_MECHANISMS,
    SECURITY_PROTOCOLS,
    KafkaSettings,
    Security,
    has_sasl,
    has_tls,
)
from fink_dask.errors import SettingsError
from fink_dask.kafka.credentials import (
    Credentials,
    find_credentials,
    is_open_to_others,
    need_a_survey,
    read_certificates,
    read_password,
)

#: Names the servers, for the command line and for Python.
SERVERS_VARIABLE = "FINK_DASK_BOOTSTRAP_SERVERS"
#: What is wrong where a name that tells no survey meets credentials of several.
OF_BOTH = "~/.finkclient has credentials of ztf and others of lsst, and nothing tells whose are meant"


def find_kafka(
    survey: str | None,
    warn: Callable[[str], None],
    *,
    bootstrap_servers: str | None = None,
    security_protocol: str = SECURITY_PROTOCOLS[0],
    sasl_mechanism: str = SASL_MECHANISMS[0],
    username: str | None = None,
    password: str | None = None,
    password_file: Path | None = None,
    ssl_ca_file: Path | None = None,
    reconnect_timeout_s: float | None = None,
    limit_rate: int | None = None,
) -> KafkaSettings:
    """Put together how to reach Kafka; what is left out comes from the credentials file of the survey.

    Parameters
    ----------
    survey : {"ztf", "lsst"} or None
        Whose credentials file to look for.
    warn : callable
        Told of a password that others on the machine can read.
    bootstrap_servers : str, optional
        ``host:port`` pairs with commas between them.
    security_protocol, sasl_mechanism : str
        See `fink_dask.config.Security`.
    username, password : str, optional
        For SASL.
    password_file : pathlib.Path, optional
        Holds the password; takes precedence over `password`.
    ssl_ca_file : pathlib.Path, optional
        Certificates of the authorities that are trusted, as PEM.
    reconnect_timeout_s, limit_rate : float, int, optional
        See `fink_dask.config.KafkaSettings`.

    Raises
    ------
    SettingsError
        If something is missing, or a file can't be used.
    """
    asks = has_sasl(security_protocol)
    credentials = None
    if bootstrap_servers is None or (asks and not (username and (password or password_file))):
        credentials = find_credentials(survey)
    if asks:
        username = username or (credentials.username if credentials is not None else None)
        password = _password(password_file, password, credentials, warn)
    return KafkaSettings(
        bootstrap_servers or _servers(credentials, survey),
        reconnect_timeout_s=RECONNECT_TIMEOUT_S if reconnect_timeout_s is None else reconnect_timeout_s,
        limit_rate=limit_rate,
        security=Security(
            protocol=security_protocol,
            mechanism=sasl_mechanism,
            username=username if asks else None,
            password=password if asks else None,
            ca_pem=read_certificates(ssl_ca_file) if has_tls(security_protocol) and ssl_ca_file is not None else None,
        ),
    )


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


def _servers(credentials: Credentials | None, survey: str | None) -> str:
    if need_a_survey(survey):
        raise SettingsError(f"{OF_BOTH}: say --survey ztf or --survey lsst, or give --bootstrap-servers HOST:PORT")
    if credentials is None or credentials.servers is None:
        raise SettingsError(
            f"no Kafka servers: give --bootstrap-servers HOST:PORT, set {SERVERS_VARIABLE}, or type "
            f"fink-dask register --survey {survey or 'ztf'}, which keeps what Fink has sent you in "
            f"~/.finkclient/{survey or 'ztf'}_credentials.yml"
        )
    return credentials.servers
