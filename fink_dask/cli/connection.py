"""The options for reaching Kafka; secrets never come from the command line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from fink_dask.cli.options import Command, declare_all, option
from fink_dask.kafka.credentials import find_kafka
from fink_dask.settings import SASL_MECHANISMS, SECURITY_PROTOCOLS, KafkaSettings
from fink_dask.units import parse_rate

#: Holds the password. There is no option for it: everybody on the machine can see the arguments of processes.
PASSWORD_VARIABLE = "FINK_DASK_PASSWORD"  # noqa: S105 - a name, no password

_OPTIONS = (
    option(
        "--bootstrap-servers",
        "--servers",
        metavar="HOST:PORT,…",
        help="The Kafka servers; by default those in ~/.finkclient/ztf_credentials.yml or lsst_credentials.yml.",
    ),
    option(
        "--security-protocol",
        type=click.Choice(SECURITY_PROTOCOLS, case_sensitive=False),
        metavar="|".join(SECURITY_PROTOCOLS),
        default=SECURITY_PROTOCOLS[0],
        show_default=True,
        help="Kafka's security protocol.",
    ),
    option(
        "--sasl-mechanism",
        type=click.Choice(SASL_MECHANISMS, case_sensitive=False),
        metavar="|".join(SASL_MECHANISMS),
        default=SASL_MECHANISMS[0],
        show_default=True,
        help="With SASL_…: how the password is proved.",
    ),
    option("--username", metavar="NAME", help="With SASL_…: user name; by default that of the credentials file."),
    option(
        "--password-file",
        type=click.Path(dir_okay=False, path_type=Path),
        help=f"With SASL_…: a file with the password in one line; by default ${PASSWORD_VARIABLE}, or the credentials "
        "file.",
    ),
    option(
        "--ssl-ca-file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="With …SSL: the CA certificates to trust, as PEM; by default the system's.",
    ),
)


def _rate(_: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    return None if value is None else parse_rate(parameter.opts[0], value)


def _reconnect_timeout(_: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """Take how long to wait; for Kafka, and for an object store, which a command may need without Kafka."""
    if value is None:
        return None
    from fink_dask.cluster.local import parse_duration
    from fink_dask.store.bucket import wait_for_stores

    seconds = parse_duration(parameter.opts[0], value)
    wait_for_stores(seconds)
    return seconds


_LINE_OPTIONS = (
    option(
        "--reconnect-timeout",
        "reconnect_timeout_s",
        metavar="TIME",
        callback=_reconnect_timeout,
        help="How long Kafka may send nothing, or Kafka or an object store be unreachable, before that is a failure.  "
        "[default: 5m]",
    ),
    option(
        "--limit-rate",
        metavar="RATE",
        callback=_rate,
        help="Read no more than this from Kafka, all consumers together, such as 5MB/s or 40Mbit/s.  [default: as "
        "much as the line carries]",
    ),
)


def connection_options(command: Command) -> Command:
    """Declare the options; the command gets them as keywords, for `kafka_settings`."""
    return declare_all(command, _OPTIONS)


def line_options(command: Command) -> Command:
    """Declare the options of commands that read much from Kafka; these too are for `kafka_settings`."""
    return declare_all(command, _LINE_OPTIONS)


def kafka_settings(survey: str | None, **options: Any) -> KafkaSettings:
    """Find out how to reach Kafka, from `connection_options`, `line_options`, environment and credentials file.

    Raises
    ------
    SettingsError
        If something is missing, or a file can't be used.
    """
    # The processes that are started from here do not need it.
    password = os.environ.pop(PASSWORD_VARIABLE, None)
    return find_kafka(survey, _warn, password=password, **options)


def _warn(words: str) -> None:
    click.echo(f"{click.style('fink-dask: warning:', fg='yellow')} {words}", err=True)
