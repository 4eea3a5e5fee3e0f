"""The options that say how to reach Kafka, and where its secrets come from: never from the command line."""

from __future__ import annotations

import os
from pathlib import Path

import click

from fink_dask.cli.options import Command, declare_all, option
from fink_dask.config import SASL_MECHANISMS, SECURITY_PROTOCOLS, KafkaSettings, Security, has_sasl, has_tls
from fink_dask.errors import SettingsError
from fink_dask.kafka.credentials import (
    Credentials,
    find_credentials,
    is_open_to_others,
    read_certificates,
    read_password,
)

#: Holds the password. There is no option of it: everybody on the machine sees what processes are started with.
PASSWORD_VARIABLE = "FINK_DASK_PASSWORD"  # noqa: S105 - a name, no password

_OPTIONS = (
    option(
        "--bootstrap-servers",
        "--servers",
        metavar="HOST:PORT,…",
        help="Kafka; otherwise the servers in ~/.finkclient/ztf_credentials.yml or lsst_credentials.yml.",
    ),
    option(
        "--security-protocol",
        type=click.Choice(SECURITY_PROTOCOLS, case_sensitive=False),
        default=SECURITY_PROTOCOLS[0],
        show_default=True,
        help="How Kafka is spoken to.",
    ),
    option(
        "--sasl-mechanism",
        type=click.Choice(SASL_MECHANISMS, case_sensitive=False),
        default=SASL_MECHANISMS[0],
        show_default=True,
        help="How the password is proved, with SASL_….",
    ),
    option("--username", metavar="NAME", help="With SASL_…; otherwise the one in the credentials file."),
    option(
        "--password-file",
        type=click.Path(dir_okay=False, path_type=Path),
        help=f"File with the password in one line; otherwise ${PASSWORD_VARIABLE}, or the credentials file.",
    ),
    option(
        "--ssl-ca-file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Certificates to trust, as PEM, with …SSL; otherwise the system's.",
    ),
)


def connection_options(command: Command) -> Command:
    """Declare the options; the command gets them as keywords, for `kafka_settings`."""
    return declare_all(command, _OPTIONS)


def kafka_settings(
    survey: str | None,
    *,
    bootstrap_servers: str | None,
    security_protocol: str,
    sasl_mechanism: str,
    username: str | None,
    password_file: Path | None,
    ssl_ca_file: Path | None,
) -> KafkaSettings:
    """Put together how to reach Kafka, from options, environment and credentials file.

    Raises
    ------
    SettingsError
        If something is missing, or a file can't be used.
    """
    # The processes that are started from here have no need of it.
    password = os.environ.pop(PASSWORD_VARIABLE, None)
    asks = has_sasl(security_protocol)
    credentials = None
    if bootstrap_servers is None or (asks and not (username and (password or password_file))):
        credentials = find_credentials(survey)
    if asks:
        username = username or (credentials.username if credentials is not None else None)
        password = _password(password_file, password, credentials)
    return KafkaSettings(
        bootstrap_servers or _servers(credentials, survey),
        security=Security(
            protocol=security_protocol,
            mechanism=sasl_mechanism,
            username=username if asks else None,
            password=password if asks else None,
            ca_pem=read_certificates(ssl_ca_file) if has_tls(security_protocol) and ssl_ca_file is not None else None,
        ),
    )


def _password(file: Path | None, variable: str | None, credentials: Credentials | None) -> str | None:
    """Find the password: the file that was named goes before the environment, and that before the credentials file."""
    if file is not None:
        password = read_password(file)
        _warn_if_open(file)
        return password
    if variable:
        return variable
    if credentials is not None and credentials.password is not None:
        _warn_if_open(credentials.path)
        return credentials.password
    return None


def _warn_if_open(path: Path) -> None:
    if is_open_to_others(path):
        words = f"others on this machine can read the password in {path}: chmod 600 it"
        click.echo(f"{click.style('fink-dask: warning:', fg='yellow')} {words}", err=True)


def _servers(credentials: Credentials | None, survey: str | None) -> str:
    if credentials is None or credentials.servers is None:
        raise SettingsError(
            "no Kafka servers: give --bootstrap-servers HOST:PORT, set FINK_DASK_BOOTSTRAP_SERVERS, or have "
            f"'servers' in ~/.finkclient/{survey or 'ztf'}_credentials.yml"
        )
    return credentials.servers
