"""The options that say how to reach Kafka, and where its secrets come from: never from the command line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from fink_dask.cli.options import Command, declare_all, option
from fink_dask.config import SASL_MECHANISMS, SECURITY_PROTOCOLS, KafkaSettings
from fink_dask.kafka.reach import find_kafka

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


def kafka_settings(survey: str | None, **options: Any) -> KafkaSettings:
    """Put together how to reach Kafka, from `connection_options`, environment and credentials file.

    Raises
    ------
    SettingsError
        If something is missing, or a file can't be used.
    """
    # The processes that are started from here have no need of it.
    password = os.environ.pop(PASSWORD_VARIABLE, None)
    return find_kafka(survey, _warn, password=password, **options)


def _warn(words: str) -> None:
    click.echo(f"{click.style('fink-dask: warning:', fg='yellow')} {words}", err=True)
